"""What an operator looks at: how many jobs of each kind, the workers, lists of jobs, and the attempts of one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias, cast

import msgspec

from piecework.base.ids import JobId
from piecework.model.snapshot import ErrorInfo, JobSnapshot, JobStatus
from piecework.store import reading
from piecework.store.connection import connect, translated
from piecework.store.liveness import Counters
from piecework.store.store import Store

AttemptEnd: TypeAlias = Literal["retry", "reschedule", "fail", "cancel", "release", "rescue"]

_decode_counters = msgspec.json.Decoder(Counters).decode


@dataclass(frozen=True, slots=True)
class JobCount:
    """How many jobs of one kind there are, live or in the kept history."""

    queue: str
    job_type: str
    status: JobStatus
    count: int
    oldest_due: datetime | None
    """The `run_at` of the pending job that has been due for longest; None if none is due."""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker as the database knows it."""

    id: JobId
    host: str
    pid: int
    queues: tuple[str, ...]
    job_types: tuple[str, ...]
    version: str
    draining: bool
    started_at: datetime
    last_beat: timedelta
    """How long ago it gave its last sign of life, by the database's clock."""
    lease: timedelta
    """It counts as dead when it gave no sign of life for this long."""
    running: int
    """Jobs that it holds."""
    idle: bool
    stop: timedelta
    """Without an answer to its beats for this long it stops its own runs."""
    exit: timedelta
    """What it could not stop by then ends with its process."""
    counters: Counters


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that a worker holds."""

    id: JobId
    job_type: str
    queue: str
    attempt: int
    worker_id: JobId
    host: str | None
    """Where its worker is; None: that has no row any more."""
    pid: int | None
    claimed_at: datetime
    lasts: timedelta
    """Since the claim, by the database's clock."""
    timeout: timedelta | None
    """Its own, or the one that its job type has at its worker."""


@dataclass(frozen=True, slots=True)
class Rescues:
    """How many attempts ended with the worker that made them."""

    last_hour: int
    last_day: int


@dataclass(frozen=True, slots=True)
class PastAttempt:
    """An attempt that ended otherwise than in completion."""

    attempt: int
    claim_no: int
    worker_id: JobId
    ended: AttemptEnd
    started_at: datetime | None
    """None: it was handed back before it began."""
    ended_at: datetime
    next_run_at: datetime | None
    error: ErrorInfo | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs; None stands for any."""

    status: JobStatus | None = None
    queue: str | None = None
    job_type: str | None = None


async def count_jobs(store: Store) -> list[JobCount]:
    """Count the jobs by queue, job type and status. Walks over all of them: not for every second."""
    rows = await store.rows("count_jobs")
    return [
        JobCount(
            queue=cast(str, row[0]), job_type=cast(str, row[1]), status=cast(JobStatus, row[2]),
            count=cast(int, row[3]), oldest_due=cast("datetime | None", row[4]),
        )
        for row in rows
    ]  # fmt: skip


async def count_attempts(store: Store) -> dict[AttemptEnd, int]:
    """Count the kept attempts that ended otherwise than in completion, by how they ended."""
    return {cast(AttemptEnd, move): cast(int, count) for move, count in await store.rows("count_attempts")}


async def list_jobs(store: Store, which: JobFilter, limit: int) -> list[JobSnapshot]:
    """Return the newest jobs first, live and finished, at most `limit`.

    Walks back from the newest: over all of them where few are of the queue or type.
    """
    return [
        reading.snapshot(row) for row in await store.rows("list_jobs", which.status, which.queue, which.job_type, limit)
    ]


async def list_workers(store: Store) -> list[WorkerState]:
    """Return the workers that have not signed off, and that nobody gave up for dead, oldest first."""
    rows = await store.rows("list_workers")
    return [
        WorkerState(
            id=cast(JobId, row[0]), host=cast(str, row[1]), pid=cast(int, row[2]),
            queues=tuple(cast("list[str]", row[3])), job_types=tuple(cast("list[str]", row[4])),
            version=cast(str, row[5]), draining=cast(bool, row[6]), started_at=cast(datetime, row[7]),
            last_beat=timedelta(seconds=cast(float, row[8])), lease=timedelta(seconds=cast(float, row[9])),
            running=cast(int, row[10]), idle=cast(bool, row[11]), stop=timedelta(seconds=cast(float, row[12])),
            exit=timedelta(seconds=cast(float, row[13])),
            counters=Counters() if row[14] is None else _decode_counters(cast(str, row[14])),
        )
        for row in rows
    ]  # fmt: skip


async def list_running(store: Store, limit: int) -> list[RunningJob]:
    """Return what workers hold, longest first, at most `limit`. Walks over all that they hold."""
    rows = await store.rows("list_running", limit)
    return [
        RunningJob(
            id=cast(JobId, row[0]), job_type=cast(str, row[1]), queue=cast(str, row[2]), attempt=cast(int, row[3]),
            worker_id=cast(JobId, row[4]), host=cast("str | None", row[5]), pid=cast("int | None", row[6]),
            claimed_at=cast(datetime, row[7]), lasts=timedelta(seconds=cast(float, row[8])),
            timeout=None if row[9] is None else timedelta(seconds=cast(float, row[9])),
        )
        for row in rows
    ]  # fmt: skip


async def count_rescues(store: Store) -> Rescues:
    """Count the rescues of late."""
    [row] = await store.rows("count_rescues")
    return Rescues(last_hour=cast(int, row[0]), last_day=cast(int, row[1]))


async def list_attempts(store: Store, id: JobId) -> list[PastAttempt]:
    """Return the kept attempts of one job that ended otherwise than in completion, in their order."""
    rows = await store.rows("list_attempts", id)
    return [
        PastAttempt(
            attempt=cast(int, row[0]), claim_no=cast(int, row[1]), worker_id=cast(JobId, row[2]),
            ended=cast(AttemptEnd, row[3]), started_at=cast("datetime | None", row[4]),
            ended_at=cast(datetime, row[5]), next_run_at=cast("datetime | None", row[6]),
            error=reading.stored_error(row[7]),
        )
        for row in rows
    ]  # fmt: skip


async def drop_schema(store: Store) -> None:
    """Remove the schema with everything in it. There is no way back."""
    conn = await connect(store.dsn, store.statements.pins)
    try:
        with translated(store.dsn):
            await conn.execute(store.statements.sql("drop_schema"))
    finally:
        await conn.close()
