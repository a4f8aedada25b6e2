"""Resident functions: how they are defined, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from piecework import CurrentJob, InvalidOptions, Jobs, RegistrationError, Reschedule, RetrySettings

jobs = Jobs()


@jobs.resident
async def bare() -> Reschedule:
    return Reschedule.now()


@jobs.resident("sweep-2", queue="sweeps", retry=RetrySettings(n_attempts=2, n_warn_attempts=9), aliases=["old"])
def called(job: CurrentJob, every: int = 3) -> Reschedule:
    """Sweep."""
    return Reschedule.now()


async def test_it_stays_the_function() -> None:
    assert isinstance(await bare(), Reschedule)
    assert called.__doc__ == "Sweep."
    assert repr(called) == "<JobFunction sweep-2>"


def test_all_jobs_of_the_type_have_one_key() -> None:
    assert bare.spec().new.key == called.spec(every=4).new.key == called.spec().new.key == "resident"
    assert bytes(called.spec(every=4).new.config) == b'{"every":4}'


def test_attempts_are_without_end_and_the_rest_of_the_settings_counts() -> None:
    job = jobs._service.registry.get("old")
    assert job is not None
    assert job.resident
    assert job.retry == RetrySettings(n_attempts=None, n_warn_attempts=9)
    assert job.placement.queue == "sweeps"


@pytest.mark.parametrize(
    "setting, says",
    [
        ({"key": "{every}"}, "key= has no meaning, since a resident job never ends: there is one of its type already"),
        ({"fail_on": (ValueError,)}, "fail_on= has no meaning"),
        ({"inherits_state": True}, "inherits_state= has no meaning"),
        ({"every": 3}, "takes no 'every'"),
    ],
)
def test_a_setting_without_meaning_is_refused(setting: dict[str, Any], says: str) -> None:
    with pytest.raises(RegistrationError) as refused:
        Jobs().resident(**setting)(called.fn)
    assert says in str(refused.value)
    assert "@jobs.resident on " in str(refused.value)
    assert "called" in str(refused.value)


def test_an_option_without_meaning_is_refused() -> None:
    with pytest.raises(InvalidOptions, match="there is one job of the resident type bare in any case"):
        bare.options(key="k")
    assert bare.options(concurrency_key="c").spec().new.concurrency_key == "c"


def test_a_local_type_is_found() -> None:
    class Every(msgspec.Struct):
        a: int

    @Jobs().resident
    def local(every: Every) -> Reschedule:
        return Reschedule.now()

    @Jobs().resident("named")
    def other(every: Every) -> Reschedule:
        return Reschedule.now()

    assert bytes(local.spec(Every(a=1)).new.config) == bytes(other.spec(Every(a=1)).new.config) == b'{"every":{"a":1}}'
