from __future__ import annotations

import logging
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piecework.base.errors import ConfigurationError
from piecework.model.retry import (
    RetrySettings,
    backoff,
    base_backoff,
    counted_attempt,
    exhausted,
    failure_level,
)

SECOND = timedelta(seconds=1)
MS = timedelta(milliseconds=1)
draws = st.floats(0, 1, exclude_max=True)


@st.composite
def settings(draw: st.DrawFn) -> RetrySettings:
    shortest, longest = sorted(draw(st.tuples(*[st.timedeltas(timedelta(0), timedelta(days=36_500))] * 2)))
    return RetrySettings(min_backoff=shortest, max_backoff=longest, backoff_jitter_pct=draw(st.integers(0, 100)))


def test_the_defaults_are_those_of_the_seed() -> None:
    assert RetrySettings() == RetrySettings(
        n_attempts=30,
        n_warn_attempts=3,
        min_backoff=SECOND,
        max_backoff=timedelta(hours=1),
        backoff_jitter_pct=20,
        attempt_reset_after_backoff_multiples=3,
    )


def test_the_named_settings_differ_from_the_defaults_in_the_number_of_attempts_alone() -> None:
    assert RetrySettings.repeat_indefinitely() == RetrySettings(n_attempts=None)
    assert RetrySettings.never() == RetrySettings(n_attempts=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_attempts", 0),
        ("n_attempts", True),
        ("n_attempts", 2.5),
        ("n_warn_attempts", -1),
        ("min_backoff", timedelta(seconds=-1)),
        ("min_backoff", 5),
        ("max_backoff", timedelta(days=36_501)),
        ("backoff_jitter_pct", 101),
        ("backoff_jitter_pct", -1),
        ("attempt_reset_after_backoff_multiples", -1),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        RetrySettings(**{name: value})  # type: ignore[arg-type]
    assert f"{name}={value!r}" in str(refusal.value)


def test_a_shortest_wait_above_the_longest_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="min_backoff must not be longer than max_backoff"):
        RetrySettings(min_backoff=timedelta(hours=2))


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(0, 1), (1, 1), (2, 2), (3, 4), (12, 2048), (13, 3600), (31, 3600), (10**9, 3600)]
)
def test_the_backoff_doubles_up_to_its_cap(attempt: int, seconds: int) -> None:
    assert base_backoff(RetrySettings(), attempt) == timedelta(seconds=seconds)


def test_the_backoff_stops_doubling_after_thirty_times() -> None:
    slow = RetrySettings(min_backoff=timedelta(microseconds=1), max_backoff=timedelta(days=1))
    assert base_backoff(slow, 31) == base_backoff(slow, 99) == timedelta(microseconds=2**30)


def test_the_jitter_spans_its_percentage_in_both_directions_in_whole_milliseconds() -> None:
    steps = [backoff(RetrySettings(), 1, (i + 0.5) / 401) for i in range(401)]
    assert steps == [SECOND + i * MS for i in range(-200, 201)]


@given(settings=settings(), attempt=st.integers(0, 2**31), draw=draws)
def test_every_wait_is_within_its_jitter_of_the_base_and_never_above_the_cap(
    settings: RetrySettings, attempt: int, draw: float
) -> None:
    base = base_backoff(settings, attempt)
    wait = backoff(settings, attempt, draw)
    assert timedelta(0) <= wait <= settings.max_backoff
    assert abs(wait - base) * 100 <= base * settings.backoff_jitter_pct


@given(settings=settings(), attempt=st.integers(1, 100))
def test_without_jitter_the_wait_is_the_base(settings: RetrySettings, attempt: int) -> None:
    plain = RetrySettings(min_backoff=settings.min_backoff, max_backoff=settings.max_backoff, backoff_jitter_pct=0)
    assert backoff(plain, attempt, 0.999) == base_backoff(settings, attempt)


def test_only_a_run_strictly_longer_than_three_times_the_backoff_before_it_counts_anew() -> None:
    # Attempt 4 began after the backoff of attempt 3: 4 seconds.
    assert counted_attempt(RetrySettings(), 4, timedelta(seconds=12)) == 4
    assert counted_attempt(RetrySettings(), 4, timedelta(seconds=12, microseconds=1)) == 1


def test_a_run_cannot_outlast_a_backoff_that_is_zero() -> None:
    at_once = RetrySettings(min_backoff=timedelta(0))
    assert counted_attempt(at_once, 7, timedelta(days=1)) == 7


def test_the_jitter_does_not_move_the_bound_of_the_reset() -> None:
    jittery = RetrySettings(backoff_jitter_pct=100)
    assert counted_attempt(jittery, 2, timedelta(seconds=3)) == 2


@pytest.mark.parametrize(("failures", "spent"), [(0, False), (4, False), (5, True), (6, True)])
def test_attempts_are_spent_with_as_many_failures(failures: int, spent: bool) -> None:
    assert exhausted(RetrySettings(n_attempts=5), failures) is spent
    assert not exhausted(RetrySettings.repeat_indefinitely(), failures)


@pytest.mark.parametrize(
    ("n_warn_attempts", "failures", "level"),
    [
        (3, 1, logging.WARNING),
        (3, 3, logging.WARNING),
        (3, 4, logging.ERROR),
        (0, 1, logging.ERROR),
        (None, 1000, logging.WARNING),
    ],
)
def test_failures_are_warnings_up_to_and_including_n_warn_attempts(
    n_warn_attempts: int | None, failures: int, level: int
) -> None:
    settings = RetrySettings(n_warn_attempts=n_warn_attempts)
    assert failure_level(settings, failures, will_retry=True) == level
    assert failure_level(settings, failures, will_retry=False) == logging.ERROR
