"""What does not get on, from what `piecework status` reads: pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Literal, TypeAlias, TypedDict

from piecework.cli.output import span
from piecework.store.overview import JobCount, RunningJob, WorkerState

Kind: TypeAlias = Literal["silent", "ownerless", "overdue", "long", "queue_without_worker", "type_without_worker"]

_GRACE = timedelta(seconds=5)
"""A timeout counts from the start of a run, which may come a little after the claim."""


class Stuck(TypedDict):
    """Something that somebody should look at."""

    kind: Kind
    subject: str
    """The id of the worker or job, or the name of the queue or job type."""
    text: str


def find_stuck(
    counts: Sequence[JobCount], workers: Sequence[WorkerState], running: Sequence[RunningJob], long: timedelta
) -> list[Stuck]:
    """Return who is silent, what runs for too long, and what nobody will run.

    Args:
        long: a run without a timeout of its own that lasts longer than this is worth a look.
    """
    return [*_silent(workers), *_running(running, long), *_unclaimed(counts, workers)]


def _silent(workers: Iterable[WorkerState]) -> Iterable[Stuck]:
    for worker in workers:
        if worker.last_beat > worker.lease:
            text = (
                f"worker {worker.host} pid {worker.pid} gave no sign of life for {span(worker.last_beat)}, its lease "
                f"is {span(worker.lease)}: another worker rescues its {worker.running} jobs, if one lives"
            )
            yield Stuck(kind="silent", subject=str(worker.id), text=text)


def _running(running: Iterable[RunningJob], long: timedelta) -> Iterable[Stuck]:
    for job in running:
        what = f"job {job.id} ({job.job_type}) runs for {span(job.lasts)}"
        where = f"on {job.host} pid {job.pid}"
        if job.host is None:
            text = f"job {job.id} ({job.job_type}) is held by the worker {job.worker_id}, which has no row any more"
            yield Stuck(kind="ownerless", subject=str(job.id), text=text)
        elif job.timeout is not None and job.lasts > job.timeout + _GRACE:
            text = f"{what} {where}, its timeout is {span(job.timeout)}: it cannot be stopped"
            yield Stuck(kind="overdue", subject=str(job.id), text=text)
        elif job.timeout is None and job.lasts > long:
            yield Stuck(kind="long", subject=str(job.id), text=f"{what} {where}, and has no timeout")


def _unclaimed(counts: Iterable[JobCount], workers: Sequence[WorkerState]) -> Iterable[Stuck]:
    claiming = [worker for worker in workers if worker.last_beat <= worker.lease and not worker.draining]
    served = {queue for worker in claiming for queue in worker.queues}
    known = {(queue, name) for worker in claiming for queue in worker.queues for name in worker.job_types}
    orphaned: dict[str, int] = {}
    for kind in counts:
        if kind.status != "pending":
            continue
        if kind.queue not in served:
            orphaned[kind.queue] = orphaned.get(kind.queue, 0) + kind.count
        elif (kind.queue, kind.job_type) not in known:
            text = (
                f"{kind.count} pending jobs of the type {kind.job_type!r} wait in the queue {kind.queue!r}: "
                "no worker of that queue knows the type"
            )
            yield Stuck(kind="type_without_worker", subject=kind.job_type, text=text)
    for queue, count in orphaned.items():
        text = f"{count} pending jobs wait in the queue {queue!r}: no worker takes from it"
        yield Stuck(kind="queue_without_worker", subject=queue, text=text)
