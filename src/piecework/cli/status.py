"""`piecework status`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypedDict

import click

from piecework.cli.database import ask, database_options
from piecework.cli.output import Column, json_option, print_json, print_table, quiet_text, since, span
from piecework.model.snapshot import JobStatus
from piecework.store.overview import AttemptEnd, JobCount, WorkerState, count_attempts, count_jobs, list_workers
from piecework.store.store import Store

_STATUSES: tuple[JobStatus, ...] = ("pending", "running", "completed", "errored", "cancelled")


class KindReport(TypedDict):
    """The jobs of one queue and job type."""

    queue: str
    job_type: str
    counts: dict[JobStatus, int]
    oldest_due: datetime | None


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


class Report(TypedDict):
    """What `piecework status --json` prints."""

    schema: str
    totals: dict[JobStatus, int]
    jobs: list[KindReport]
    attempts: dict[AttemptEnd, int]
    workers: list[WorkerReport]


@click.command("status", short_help="How many jobs of each kind there are, and who works.")
@json_option
@database_options
def command(as_json: bool, database_url: str | None, schema: str) -> None:
    """Show how many jobs of each kind there are, and which workers work.

    Finished jobs count as long as they are kept.

    \b
    Keys of --json:
      schema
      totals    {pending, running, completed, errored, cancelled}
      jobs      [{queue, job_type, counts: as totals, oldest_due}]
      attempts  {retry, reschedule, fail, release, rescue}, those there were
      workers   [{id, host, pid, queues, job_types, version, state: working |
                idle | draining | silent, running, started_at,
                last_beat_seconds, lease_seconds}]

    Example: piecework status --json | jq .totals.pending
    """

    async def read(store: Store) -> Report:
        return _report(schema, await count_jobs(store), await count_attempts(store), await list_workers(store))

    report = ask(database_url, schema, read)
    if as_json:
        print_json(report)
    else:
        _print(report)


def _report(
    schema: str, counts: Sequence[JobCount], attempts: dict[AttemptEnd, int], workers: Sequence[WorkerState]
) -> Report:
    kinds: dict[tuple[str, str], KindReport] = {}
    totals: dict[JobStatus, int] = dict.fromkeys(_STATUSES, 0)
    for each in counts:
        kind = kinds.setdefault(
            (each.queue, each.job_type),
            KindReport(
                queue=each.queue, job_type=each.job_type, counts=dict.fromkeys(_STATUSES, 0), oldest_due=None
            ),
        )  # fmt: skip
        kind["counts"][each.status] += each.count
        kind["oldest_due"] = each.oldest_due or kind["oldest_due"]
        totals[each.status] += each.count
    return Report(
        schema=schema, totals=totals, jobs=list(kinds.values()), attempts=attempts, workers=[*map(_worker, workers)]
    )


def _worker(worker: WorkerState) -> WorkerReport:
    return WorkerReport(
        id=str(worker.id), host=worker.host, pid=worker.pid, queues=worker.queues, job_types=worker.job_types,
        version=worker.version, state=_state(worker), running=worker.running, started_at=worker.started_at,
        last_beat_seconds=worker.last_beat.total_seconds(), lease_seconds=worker.lease.total_seconds(),
    )  # fmt: skip


def _state(worker: WorkerState) -> str:
    if worker.last_beat > worker.lease:
        return "silent"
    if worker.draining:
        return "draining"
    return "idle" if worker.idle and not worker.running else "working"


def _print(report: Report) -> None:
    numbers = [Column(status, right=True) for status in _STATUSES]
    kinds = [Column("queue"), Column("job type"), *numbers, Column("due for")]
    if report["jobs"]:
        print_table(kinds, [*map(_job_row, report["jobs"])])
    else:
        click.echo("There are no jobs yet.")
    click.echo()
    if report["workers"]:
        columns = [Column("worker", whole=True), Column("state", whole=True), Column("running", right=True, whole=True)]
        columns += [Column("last beat", whole=True), Column("queues"), Column("id")]
        print_table(columns, [*map(_worker_row, report["workers"])])
    else:
        click.echo("No worker is running: start one with `piecework worker MODULE:JOBS`.")


def _job_row(kind: KindReport) -> list[str]:
    numbers = [str(kind["counts"][status]) for status in _STATUSES]
    return [quiet_text(kind["queue"]), quiet_text(kind["job_type"]), *numbers, since(kind["oldest_due"])]


def _worker_row(worker: WorkerReport) -> list[str]:
    return [
        f"{quiet_text(worker['host'])} pid {worker['pid']}", worker["state"], str(worker["running"]),
        span(timedelta(seconds=worker["last_beat_seconds"])) + " ago",
        quiet_text(", ".join(worker["queues"])), worker["id"],
    ]  # fmt: skip
