"""Why a job does not run: from what the database knows of it to a word and a sentence. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

import msgspec

from piecework.base.ids import JobId
from piecework.model.snapshot import ErrorInfo, JobStatus

WaitReason: TypeAlias = Literal["not_due", "no_worker", "key_paused", "behind_key", "waiting", "running", "finished"]

_MOST_NAMED = 3


class JobFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What `sql/explain.sql` answers. Of a job that ended only the first fields are there."""

    id: JobId
    status: JobStatus
    job_type: str
    queue: str
    attempt: int
    at: datetime
    """When it may run, when it was claimed, or when it ended."""
    error: ErrorInfo | None = None
    due_in: float = 0.0
    """Seconds; less than 0 where it is overdue."""
    manual_clock: bool = False
    concurrency_key: str | None = None
    parked: bool = False
    limit: int | None = None
    """How many jobs of its concurrency key may run at once."""
    holders: list[JobId] = []
    """The jobs of its concurrency key that run."""
    before: int = 0
    """How many due jobs of its concurrency key come before it, counted up to 1000."""
    cancel_requested: bool = False
    worker_id: JobId | None = None
    worker: str | None = None
    """The host and process of its worker; None where that has no row any more."""
    workers: int = 0
    """How many workers live and claim."""
    workers_of_queue: int = 0
    workers_of_both: int = 0
    """Those that take from its queue, and those of them that know its type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobExplanation:
    """Why a job does not run; or that it does, or did."""

    id: JobId
    reason: WaitReason
    text: str
    """The same as a sentence, with what to do where there is something to do."""
    holders: tuple[JobId, ...] = ()
    """The jobs that run and hold its concurrency key."""
    worker_id: JobId | None = None
    """The worker that runs it."""


def explained(job: JobFacts) -> JobExplanation:
    """Return the first reason that keeps the job from running, in the order in which they count."""
    reason, text = _why(job)
    return JobExplanation(id=job.id, reason=reason, text=text, holders=tuple(job.holders), worker_id=job.worker_id)


def _why(job: JobFacts) -> tuple[WaitReason, str]:
    if job.status == "running":
        return "running", _running(job)
    if job.status != "pending":
        why = "" if job.error is None else f": {job.error.type}: {job.error.message}"
        return "finished", f"it ended {job.status} at {_moment(job.at)}, in attempt {job.attempt}{why}"
    if job.due_in > 0:
        clock = " by the manual clock that is set for tests" if job.manual_clock else ""
        return "not_due", f"it may run at {_moment(job.at)}, {job.due_in:.1f} s from now{clock}; attempt {job.attempt}"
    if not job.workers_of_both:
        return "no_worker", _no_worker(job)
    if job.limit == 0:
        return "key_paused", (
            f"the concurrency key {job.concurrency_key!r} is paused, or its limit is 0: `piecework limits list` shows "
            f"who said so, `piecework limits resume` ends it. {len(job.holders)} of its jobs run to their end"
        )
    if job.limit is not None and (job.parked or job.before or len(job.holders) >= job.limit):
        return "behind_key", _behind_key(job, job.limit)
    return "waiting", (
        f"it is due, and waits for its turn: {job.workers_of_both} workers that live take jobs of its type from the "
        f"queue {job.queue!r}. How many come before it is not counted"
    )


def _running(job: JobFacts) -> str:
    where = f"on {job.worker} " if job.worker is not None else ""
    gone = "" if job.worker is not None else ". That worker has no row any more: the next audit or rescue takes it back"
    asked = ". Its cancellation is requested" if job.cancel_requested else ""
    return f"it runs {where}(worker {job.worker_id}) since {_moment(job.at)}, attempt {job.attempt}{asked}{gone}"


def _no_worker(job: JobFacts) -> str:
    if not job.workers:
        return "it is due, and no worker lives: start one by `piecework worker MODULE:JOBS`"
    if not job.workers_of_queue:
        return (
            f"it is due, and none of the {job.workers} workers that live takes from the queue {job.queue!r}: start one "
            f"with `--queues {job.queue}`"
        )
    return (
        f"it is due, and none of the {job.workers_of_queue} workers of the queue {job.queue!r} knows the job type "
        f"{job.job_type!r}: start one whose modules define it"
    )


def _behind_key(job: JobFacts, limit: int) -> str:
    named = ", ".join(str(holder) for holder in job.holders[:_MOST_NAMED])
    more = f" and {len(job.holders) - _MOST_NAMED} more" if len(job.holders) > _MOST_NAMED else ""
    held = f"held by {named}{more}" if job.holders else "held by none at this moment"
    return (
        f"it waits behind its concurrency key {job.concurrency_key!r}, of which {limit} may run at once: {held}, and "
        f"{job.before}{' or more' if job.before >= 1000 else ''} due jobs of the key come before it"
    )


def _moment(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="seconds")
