"""What the end of an attempt asks of the database: which move, when the job runs again, and with what counters."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

import msgspec

from piecework.base.moments import within_reach
from piecework.model.completion import Fail, Reschedule
from piecework.model.error_info import describe
from piecework.model.job import ClaimedJob
from piecework.model.retry import RetrySettings, backoff, counted_attempt, exhausted, failure_level
from piecework.model.snapshot import ErrorInfo

Move: TypeAlias = Literal["complete", "retry", "reschedule", "fail", "cancel", "release"]

_LARGEST_COUNT = 2**31 - 1
"""What PostgreSQL's integer holds: counters stop here rather than overflow."""


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """How one claim ends. Made by the functions of this module alone."""

    job: ClaimedJob
    move: Move
    started: float | None
    """When the run began, in the seconds of the loop's monotonic clock; None if it never ran."""
    attempt: int
    """Of a job that goes on the number of its next attempt, of one that ends that of its last."""
    failures: int = 0
    """Failed attempts since the last completion or reschedule, this one included."""
    crashes: int = 0
    delay: timedelta | None = None
    """Due this long after the settle, by the database's clock."""
    run_at: datetime | None = None
    """Due at this moment; excludes `delay`. With neither, a job that goes on is due as it was."""
    result: msgspec.Raw | None = None
    error: ErrorInfo | None = None
    will_retry: bool = False
    """A failed attempt after which there is another."""
    level: int = logging.NOTSET
    """The logging level to report a failed attempt with; NOTSET where nothing failed."""
    sent: Settlement | None = None
    """How the run itself ended its job in a transaction. If that was committed it stands, and this changes nothing."""
    surplus: str = ""
    """What the run did besides `sent`, in words, where it should have done nothing."""


def completed(job: ClaimedJob, started: float, result: msgspec.Raw | None) -> Settlement:
    """The runner returned: the job ends `completed`."""
    # Positional, since every job passes here: 0 failures, 0 crashes, no delay, no run_at.
    return Settlement(job, "complete", started, job.attempt, 0, 0, None, None, result)


def rescheduled(job: ClaimedJob, started: float, reschedule: Reschedule) -> Settlement:
    """The runner asked to run again: attempts, failures and crashes are counted anew."""
    when = reschedule.when
    if isinstance(when, datetime):
        return Settlement(job, "reschedule", started, 1, run_at=within_reach(when))
    return Settlement(job, "reschedule", started, 1, delay=max(when, timedelta(0)))


def cancelled(job: ClaimedJob, started: float | None) -> Settlement:
    """The job was to be cancelled, and did not complete all the same: it ends `cancelled`, whatever it raised."""
    return Settlement(job, "cancel", started, job.attempt, job.failures, job.crashes)


def released(job: ClaimedJob, delay: timedelta | None = None) -> Settlement:
    """The claim is handed back as it was taken, to run after `delay`: no counter changes."""
    return Settlement(job, "release", None, job.attempt, job.failures, job.crashes, delay)


def failed_by_reason(job: ClaimedJob, started: float, fail: Fail) -> Settlement:
    """The runner returned or raised `Fail`: the job ends `errored`, whatever its settings."""
    return _ended(job, started, describe(fail))


def failed(
    job: ClaimedJob,
    retry: RetrySettings,
    fail_on: tuple[type[Exception], ...],
    started: float | None,
    lasted: timedelta,
    error: BaseException,
    draw: float,
) -> Settlement:
    """The attempt ended with an exception: any, also `SystemExit`, `KeyboardInterrupt` and a cancellation of the job's
    own. The job is retried, unless the exception is a `Fail` or one of `fail_on`, or its attempts are spent.

    Args:
        started: when the run began; None if it never did, as with a config that cannot be decoded.
        lasted: how long it ran.
        draw: from [0, 1), for the backoff's jitter.
    """
    failures = job.failures + 1
    if isinstance(error, (Fail, *fail_on)) or exhausted(retry, failures):
        return _ended(job, started, describe(error))
    attempt = counted_attempt(retry, job.attempt, lasted)
    return Settlement(
        job,
        "retry",
        started,
        min(attempt + 1, _LARGEST_COUNT),
        min(failures, _LARGEST_COUNT),
        job.crashes,
        delay=backoff(retry, attempt, draw),
        error=describe(error),
        will_retry=True,
        level=failure_level(retry, failures, will_retry=True),
    )


def refused(job: ClaimedJob, retry: RetrySettings, max_crashes: int) -> Settlement | None:
    """The end of a job that was claimed but may not run, or None if it may.

    Whoever rescues a job counts the failure and the crash, but does not know the settings of its type; the next
    worker does, and asks this before it runs the job.
    """
    again = f"`piecework jobs retry {job.id}` runs it again"
    if job.crashes >= max_crashes:
        return _refused(
            job,
            "worker lost",
            f"{job.crashes} workers were lost while they ran this job, the most allowed is {max_crashes}: it probably"
            f" kills its worker (memory, a crash in C code). {again}",
        )
    if exhausted(retry, job.failures):
        return _refused(
            job,
            "worker lost" if job.crashes else "attempts spent",
            f"no attempt is left after {job.failures} failed ones (n_attempts={retry.n_attempts}), {job.crashes} of"
            f" them by the loss of their worker. {again}",
        )
    return None


def _refused(job: ClaimedJob, kind: str, message: str) -> Settlement:
    # The claimed attempt never runs, so the last one is that before it, and its failure is counted already.
    return Settlement(
        job,
        "fail",
        None,
        max(job.attempt - 1, 1),
        job.failures,
        job.crashes,
        error=ErrorInfo(type=kind, message=message),
        level=logging.ERROR,
    )


def _ended(job: ClaimedJob, started: float | None, error: ErrorInfo) -> Settlement:
    failures = min(job.failures + 1, _LARGEST_COUNT)
    return Settlement(job, "fail", started, job.attempt, failures, job.crashes, error=error, level=logging.ERROR)


def unstorable(settlement: Settlement, reason: str) -> Settlement:
    """The end of a job whose result the database refuses: it fails alone, without the result."""
    message = f"{reason}. The job ran, its result cannot be stored: return something else"
    return _ended(settlement.job, settlement.started, ErrorInfo(type="unstorable result", message=message))
