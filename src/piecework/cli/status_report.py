"""What `piecework status` reports: the shape of its JSON, and how it is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TypedDict

from piecework.cli.horizon_report import ClaimsReport, HorizonReport, claims_report, horizon_report
from piecework.cli.stuck import Stuck, find_stuck
from piecework.model.snapshot import JobStatus
from piecework.store import overview
from piecework.store.overview import AttemptEnd, JobCount, RunningJob, WorkerState
from piecework.store.store import Store
from piecework.store.turning import read_clock

STATUSES: tuple[JobStatus, ...] = ("pending", "running", "completed", "errored", "cancelled")
_MOST_RUNNING = 1000


class KindReport(TypedDict):
    """The jobs of one queue and job type."""

    queue: str
    job_type: str
    counts: dict[JobStatus, int]
    oldest_due: datetime | None


class QueueReport(TypedDict):
    """The live jobs of one queue."""

    queue: str
    pending: int
    running: int
    oldest_due: datetime | None


class RescueReport(TypedDict):
    """How many attempts ended with the worker that made them."""

    last_hour: int
    last_day: int


class WorkerReport(TypedDict):
    """One worker."""

    id: str
    host: str
    pid: int
    queues: Sequence[str]
    job_types: Sequence[str]
    version: str
    state: str
    running: int
    started_at: datetime
    last_beat_seconds: float
    lease_seconds: float
    stop_seconds: float
    exit_seconds: float
    lost_settles: int
    stops: int


class RunningReport(TypedDict):
    """A job that a worker holds."""

    id: str
    job_type: str
    queue: str
    attempt: int
    worker_id: str
    host: str | None
    pid: int | None
    claimed_at: datetime
    seconds: float
    timeout_seconds: float | None


class Report(TypedDict):
    """What `piecework status --json` prints."""

    schema: str
    manual_clock: datetime | None
    totals: dict[JobStatus, int]
    jobs: list[KindReport]
    queues: list[QueueReport]
    attempts: dict[AttemptEnd, int]
    rescues: RescueReport
    lost_settles: int
    claims: ClaimsReport
    horizon: HorizonReport | None
    workers: list[WorkerReport]
    running: list[RunningReport]
    stuck: list[Stuck]


async def read_report(store: Store, most_running: int, long: timedelta) -> Report:
    """Read all that there is to report.

    Args:
        most_running: how many of the running jobs are listed.
        long: a run without a timeout counts as stuck when it lasts longer.
    """
    counts = await overview.count_jobs(store)
    workers = await overview.list_workers(store)
    running = await overview.list_running(store, _MOST_RUNNING)
    rescues = await overview.count_rescues(store)
    clock = await read_clock(store)
    kinds = _kinds(counts)
    return Report(
        schema=store.schema, manual_clock=clock.now if clock.manual else None,
        totals={status: sum(kind["counts"][status] for kind in kinds) for status in STATUSES},
        jobs=kinds, queues=_queues(kinds), attempts=await overview.count_attempts(store),
        rescues=RescueReport(last_hour=rescues.last_hour, last_day=rescues.last_day),
        lost_settles=sum(worker.counters.lost_settles for worker in workers),
        claims=claims_report([worker.counters.claims for worker in workers]),
        horizon=horizon_report([worker.counters.horizon for worker in workers]),
        workers=[*map(_worker, workers)], running=[*map(_running, running[:most_running])],
        stuck=find_stuck(counts, workers, running, long),
    )  # fmt: skip


def _kinds(counts: Iterable[JobCount]) -> list[KindReport]:
    kinds: dict[tuple[str, str], KindReport] = {}
    for each in counts:
        none: dict[JobStatus, int] = dict.fromkeys(STATUSES, 0)
        new = KindReport(queue=each.queue, job_type=each.job_type, counts=none, oldest_due=None)
        kind = kinds.setdefault((each.queue, each.job_type), new)
        kind["counts"][each.status] += each.count
        kind["oldest_due"] = each.oldest_due or kind["oldest_due"]
    return list(kinds.values())


def _queues(kinds: Iterable[KindReport]) -> list[QueueReport]:
    queues: dict[str, QueueReport] = {}
    for kind in kinds:
        pending, running = kind["counts"]["pending"], kind["counts"]["running"]
        if not pending and not running:
            continue
        new = QueueReport(queue=kind["queue"], pending=0, running=0, oldest_due=None)
        queue = queues.setdefault(kind["queue"], new)
        queue["pending"] += pending
        queue["running"] += running
        due = [moment for moment in (queue["oldest_due"], kind["oldest_due"]) if moment is not None]
        queue["oldest_due"] = min(due, default=None)
    return list(queues.values())


def _worker(worker: WorkerState) -> WorkerReport:
    return WorkerReport(
        id=str(worker.id), host=worker.host, pid=worker.pid, queues=worker.queues, job_types=worker.job_types,
        version=worker.version, state=_state(worker), running=worker.running, started_at=worker.started_at,
        last_beat_seconds=worker.last_beat.total_seconds(), lease_seconds=worker.lease.total_seconds(),
        stop_seconds=worker.stop.total_seconds(), exit_seconds=worker.exit.total_seconds(),
        lost_settles=worker.counters.lost_settles, stops=worker.counters.stops,
    )  # fmt: skip


def _state(worker: WorkerState) -> str:
    if worker.last_beat > worker.lease:
        return "silent"
    if worker.last_beat > worker.stop:
        return "late"
    if worker.draining:
        return "draining"
    return "idle" if worker.idle and not worker.running else "working"


def _running(job: RunningJob) -> RunningReport:
    return RunningReport(
        id=str(job.id), job_type=job.job_type, queue=job.queue, attempt=job.attempt, worker_id=str(job.worker_id),
        host=job.host, pid=job.pid, claimed_at=job.claimed_at, seconds=job.lasts.total_seconds(),
        timeout_seconds=None if job.timeout is None else job.timeout.total_seconds(),
    )  # fmt: skip
