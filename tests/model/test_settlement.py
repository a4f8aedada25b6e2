from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from piecework.model.completion import Fail, Reschedule
from piecework.model.error_info import describe
from piecework.model.job import ClaimedJob
from piecework.model.retry import RetrySettings
from piecework.model.settlement import (
    Settlement,
    completed,
    failed,
    failed_by_reason,
    refused,
    released,
    rescheduled,
)
from piecework.model.snapshot import ErrorInfo

SHORT = timedelta(milliseconds=5)
MIDDLE = 0.5  # a draw that leaves the backoff without jitter


def claimed(attempt: int = 1, failures: int = 0, crashes: int = 0) -> ClaimedJob:
    return ClaimedJob(
        id="0190-id",
        claim_no=7,
        job_type="send_email",
        queue="default",
        priority=0,
        run_at=0,
        attempt=attempt,
        failures=failures,
        crashes=crashes,
        config=msgspec.Raw(b"{}"),
    )


def fail_with(
    error: BaseException,
    job: ClaimedJob | None = None,
    retry: RetrySettings | None = None,
    fail_on: tuple[type[Exception], ...] = (),
    lasted: timedelta = SHORT,
) -> Settlement:
    return failed(job or claimed(), retry or RetrySettings(), fail_on, 12.5, lasted, error, MIDDLE)


def test_a_completion_keeps_the_attempt_and_forgets_failures_and_crashes() -> None:
    job, result = claimed(attempt=4, failures=3, crashes=2), msgspec.Raw(b'"done"')
    assert completed(job, 12.5, result) == Settlement(job, "complete", 12.5, attempt=4, result=result)


def test_a_reschedule_counts_attempts_failures_and_crashes_anew() -> None:
    job = claimed(attempt=4, failures=3, crashes=2)
    hour, noon = timedelta(hours=1), datetime(2030, 1, 1, 12, tzinfo=UTC)
    assert rescheduled(job, 1.0, Reschedule.after(hour)) == Settlement(job, "reschedule", 1.0, attempt=1, delay=hour)
    assert rescheduled(job, 1.0, Reschedule.at(noon)) == Settlement(job, "reschedule", 1.0, attempt=1, run_at=noon)


def test_a_reschedule_into_the_past_is_one_for_now() -> None:
    assert rescheduled(claimed(), 1.0, Reschedule.after(timedelta(days=-1))).delay == timedelta(0)


def test_a_release_changes_no_counter() -> None:
    job = claimed(attempt=4, failures=3, crashes=2)
    assert released(job) == Settlement(job, "release", None, attempt=4, failures=3, crashes=2)


def test_a_failed_attempt_is_retried_after_its_backoff() -> None:
    job, error = claimed(attempt=3, failures=2, crashes=1), ValueError("no such address")
    assert fail_with(error, job) == Settlement(
        job,
        "retry",
        12.5,
        attempt=4,
        failures=3,
        crashes=1,
        delay=timedelta(seconds=4),
        error=ErrorInfo(type="ValueError", message="no such address"),
        will_retry=True,
        level=logging.WARNING,
    )


def test_the_fourth_failure_in_a_row_is_reported_as_an_error_though_it_is_retried() -> None:
    settlement = fail_with(ValueError(), claimed(attempt=4, failures=3))
    assert (settlement.will_retry, settlement.level) == (True, logging.ERROR)


def test_the_last_failure_ends_the_job_with_the_number_of_its_last_attempt() -> None:
    job = claimed(attempt=5, failures=4, crashes=1)
    assert fail_with(ValueError("again"), job, RetrySettings(n_attempts=5, n_warn_attempts=None)) == Settlement(
        job,
        "fail",
        12.5,
        attempt=5,
        failures=5,
        crashes=1,
        error=ErrorInfo(type="ValueError", message="again"),
        level=logging.ERROR,
    )


def test_a_run_that_was_healthy_again_starts_the_backoff_anew_but_not_the_count_of_failures() -> None:
    settlement = fail_with(ValueError(), claimed(attempt=9, failures=8), lasted=timedelta(hours=1))
    assert (settlement.attempt, settlement.failures, settlement.delay) == (2, 9, timedelta(seconds=1))


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
def test_what_would_end_a_program_is_an_ordinary_failed_attempt_of_a_job(error: BaseException) -> None:
    assert fail_with(error).move == "retry"


def test_a_raised_fail_ends_the_job_as_a_returned_one_does() -> None:
    job = claimed(attempt=2, failures=1, crashes=1)
    expected = Settlement(
        job,
        "fail",
        12.5,
        attempt=2,
        failures=2,
        crashes=1,
        error=ErrorInfo(type="piecework.Fail", message="no such account"),
        level=logging.ERROR,
    )
    assert failed_by_reason(job, 12.5, Fail("no such account")) == expected
    assert fail_with(Fail("no such account"), job, RetrySettings.repeat_indefinitely()) == expected


def test_an_error_that_the_job_names_as_final_ends_it_and_so_do_its_subclasses() -> None:
    assert fail_with(UnicodeError("bad"), fail_on=(KeyError, ValueError)).move == "fail"
    assert fail_with(OSError("busy"), fail_on=(KeyError, ValueError)).move == "retry"


def test_a_job_that_never_ran_can_fail_its_attempt() -> None:
    settlement = failed(claimed(), RetrySettings(), (), None, timedelta(0), ValueError(), MIDDLE)
    assert (settlement.move, settlement.started, settlement.failures) == ("retry", None, 1)


def test_counters_stop_at_what_an_integer_column_holds() -> None:
    most = 2**31 - 1
    forever = RetrySettings.repeat_indefinitely()
    again = fail_with(ValueError(), claimed(attempt=most, failures=most), forever)
    assert (again.attempt, again.failures) == (most, most)
    assert fail_with(Fail("enough"), claimed(attempt=most, failures=most)).failures == most


def test_a_job_within_its_limits_is_not_refused() -> None:
    assert refused(claimed(), RetrySettings.never(), max_crashes=5) is None
    assert refused(claimed(attempt=30, failures=29, crashes=4), RetrySettings(), max_crashes=5) is None
    assert refused(claimed(failures=10**6), RetrySettings.repeat_indefinitely(), max_crashes=5) is None


def test_a_job_that_lost_too_many_workers_is_refused_even_where_attempts_are_unlimited() -> None:
    job = claimed(attempt=6, failures=5, crashes=5)
    refusal = refused(job, RetrySettings.repeat_indefinitely(), max_crashes=5)
    assert refusal is not None
    assert (refusal.move, refusal.started, refusal.attempt, refusal.failures) == ("fail", None, 5, 5)
    assert (refusal.crashes, refusal.will_retry, refusal.level) == (5, False, logging.ERROR)
    assert refusal.error is not None
    assert refusal.error.type == "worker lost"
    assert refusal.error.message.startswith("5 workers were lost while they ran this job")
    assert "piecework jobs retry 0190-id" in refusal.error.message


def test_a_job_whose_lost_workers_spent_its_attempts_is_refused() -> None:
    refusal = refused(claimed(attempt=4, failures=3, crashes=1), RetrySettings(n_attempts=3), max_crashes=5)
    assert refusal is not None
    assert (refusal.move, refusal.attempt, refusal.failures) == ("fail", 3, 3)
    assert refusal.error is not None
    assert refusal.error.type == "worker lost"
    assert "no attempt is left after 3 failed ones (n_attempts=3)" in refusal.error.message


def test_a_job_whose_limit_was_lowered_below_its_failures_is_not_blamed_on_its_worker() -> None:
    refusal = refused(claimed(attempt=11, failures=10), RetrySettings(n_attempts=5), max_crashes=5)
    assert refusal is not None
    assert refusal.error is not None
    assert refusal.error.type == "attempts spent"


run_lengths = st.timedeltas(timedelta(0), timedelta(days=2))


@given(
    n_attempts=st.integers(1, 40),
    runs=st.lists(st.tuples(run_lengths, st.booleans()), min_size=40, max_size=40),
)
def test_a_job_that_always_fails_runs_exactly_n_attempts_times_however_long_its_runs_are(
    n_attempts: int, runs: list[tuple[timedelta, bool]]
) -> None:
    retry, job = RetrySettings(n_attempts=n_attempts), claimed()
    for executions, (lasted, worker_dies) in enumerate(runs, start=1):
        if worker_dies:  # what a rescue writes
            job = claimed(job.attempt + 1, job.failures + 1, job.crashes + 1)
            settlement = refused(job, retry, max_crashes=1000)
        else:
            settlement = fail_with(ValueError(), job, retry, lasted=lasted)
            job = claimed(settlement.attempt, settlement.failures, settlement.crashes)
        if settlement is not None and settlement.move == "fail":
            assert executions == settlement.failures == n_attempts
            return
    pytest.fail("it never ended")


def test_the_stored_error_is_that_of_the_exception() -> None:
    error = ValueError("no")
    assert fail_with(error).error == describe(error)
