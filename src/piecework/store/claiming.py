"""Claiming: which lanes have work, and taking it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import psycopg

from piecework.model.job import ClaimedJob
from piecework.model.lanes import Lane
from piecework.store.link import Link

_decode_jobs = msgspec.json.Decoder(list[ClaimedJob]).decode
_decode_lanes = msgspec.json.Decoder(list[tuple[str, str, int, int]]).decode


class WorkerGone(Exception):
    """The worker's row is gone: others took its jobs. It has to stop its runs and register under a new id."""


async def claim(link: Link, worker_id: str, allotment: Sequence[tuple[Lane, int]], most: int) -> list[ClaimedJob]:
    """Take up to `most` due jobs, up to the allotted count from each lane, in the lanes' order.

    Returns:
        What this worker now holds, ordered by (priority, run_at, id).

    Raises:
        WorkerGone: this worker was given up for dead and may not claim under this id.
        DatabaseUnreachable: the answer is lost; jobs may be held by this worker without its knowing.
    """
    try:
        answer = await link.value(
            "claim",
            worker_id,
            [lane.queue for lane, _ in allotment],
            [lane.job_type for lane, _ in allotment],
            [lane.priority for lane, _ in allotment],
            [count for _, count in allotment],
            most,
        )
    except psycopg.errors.NoDataFound:
        raise WorkerGone(worker_id) from None
    if answer is None:
        return []
    jobs = _decode_jobs(str(answer))
    jobs.sort(key=_order)
    return jobs


async def owned(link: Link, worker_id: str) -> list[ClaimedJob]:
    """Return the jobs that the database says this worker holds, without their configs.

    Raises:
        DatabaseError
    """
    answer = await link.value("owned_jobs", worker_id)
    return [] if answer is None else _decode_jobs(str(answer))


async def declare_idle(link: Link, worker_id: str, queues: Sequence[str]) -> None:
    """Say that this worker sleeps: from the commit on, spawns send hints. What came before has to be looked for."""
    await link.value("declare_idle", worker_id, list(queues))


async def declare_busy(link: Link, worker_id: str) -> None:
    """Say that this worker looks by itself."""
    await link.value("declare_busy", worker_id)


def _order(job: ClaimedJob) -> tuple[int, int, str]:
    return job.priority, job.run_at, job.id


async def lanes(link: Link, queues: Sequence[str], job_types: Sequence[str]) -> dict[Lane, float]:
    """Return the lanes of these queues and job types with claimable jobs, and the seconds until the first is due."""
    answer = await link.value("lanes", list(queues), list(job_types))
    if answer is None:
        return {}
    return {
        Lane(queue, job_type, priority): wait / 1e6 for queue, job_type, priority, wait in _decode_lanes(str(answer))
    }
