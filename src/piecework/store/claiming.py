"""Claiming: which lanes have work, and taking it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple, TypeAlias

import msgspec
import psycopg

from piecework.base.errors import DatabaseError
from piecework.model.cursors import Place, Walk
from piecework.model.job import ClaimedJob
from piecework.model.lanes import Lane
from piecework.store import unpacking
from piecework.store.link import Link

# A text of 1 GiB, or the memory for it.
_TOO_LARGE = (psycopg.errors.ProgramLimitExceeded, psycopg.errors.InternalError_)
_order = attrgetter("priority", "run_at", "id")
_decode_jobs = msgspec.json.Decoder(list[ClaimedJob]).decode
_AnsweredKeyed: TypeAlias = tuple[list[ClaimedJob] | None, bool, int, list[tuple[str, str, int]] | None]
_decode_keyed = msgspec.json.Decoder(
    tuple[list[ClaimedJob] | None, bool, int, list[tuple[str, str, int]] | None]
).decode
_decode_look = msgspec.json.Decoder(tuple[list[tuple[str, str, int, bool, int]] | None, int, int, int, int]).decode


class WorkerGone(Exception):
    """The worker's row is gone: others took its jobs. It has to stop its runs and register under a new id."""


class _Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A job as `claim` answers it: `lane` is its place among those that were asked for, from 1."""

    id: str
    claim_no: int
    lane: int
    run_at: int
    attempt: int
    failures: int
    crashes: int
    config: msgspec.Raw
    trace_context: msgspec.Raw = msgspec.Raw(b"null")
    created_at: int = 0
    state: msgspec.Raw = msgspec.Raw(b"null")
    inherited_state: msgspec.Raw = msgspec.Raw(b"null")


_Answered: TypeAlias = tuple[int, int, list[_Row]]
_decode_claimed = msgspec.json.Decoder(tuple[int, int, list[_Row]]).decode


def _read_claimed(text: str) -> _Answered:
    try:
        return _decode_claimed(text)
    except RecursionError:
        passed, took, rows = unpacking.elements(text)
        return int(passed), int(took), unpacking.rows(rows, _Row)


def _read_keyed(text: str) -> _AnsweredKeyed:
    try:
        return _decode_keyed(text)
    except RecursionError:
        rows, *rest = unpacking.elements(text)
        _, again, passed, places = _decode_keyed(f"[null,{','.join(rest)}]")
        return unpacking.rows(rows, ClaimedJob), again, passed, places


class Claimed(NamedTuple):
    """What a claim answered."""

    jobs: list[ClaimedJob]
    """What this worker now holds, ordered by (priority, run_at, id)."""
    counts: list[int]
    """How many of them are of each lane that was asked for."""
    walk: Walk
    size: int
    """Characters of the answer."""


async def claim(
    link: Link, worker_id: str, allotment: Sequence[tuple[Lane, int]], most: int, after: Place | None = None
) -> Claimed:
    """Take up to `most` due jobs, up to the allotted count from each lane, in the lanes' order.

    Args:
        after: take what comes after this place in the order of the only lane; None: from the start.

    Raises:
        WorkerGone: this worker was given up for dead and may not claim under this id.
        DatabaseUnreachable: the answer is lost; jobs may be held by this worker without its knowing.
        DatabaseError: it cannot be done now, or the answer would be too large: ask for less.
    """
    try:
        if after is None:
            answer = await link.value("claim", worker_id, *_lanes(allotment), most)
        else:
            answer = await link.value("claim_after", worker_id, *_lanes(allotment), most, *after)
    except psycopg.errors.NoDataFound:
        raise WorkerGone(worker_id) from None
    except _TOO_LARGE as error:
        raise DatabaseError(f"a claim of {most} jobs cannot be answered: {error}") from error
    counts = [0] * len(allotment)
    if answer is None:
        return Claimed([], counts, Walk(0, 0.0), 0)
    text = str(answer)
    passed, took, rows = _read_claimed(text)
    jobs: list[ClaimedJob] = []
    for row in rows:
        counts[row.lane - 1] += 1
        queue, job_type, priority, _ = allotment[row.lane - 1][0]
        jobs.append(
            ClaimedJob(
                row.id, row.claim_no, job_type, queue, priority, row.run_at, row.attempt, row.failures, row.crashes,
                row.config, None, row.trace_context, row.created_at, row.state, row.inherited_state,
            )
        )  # fmt: skip
    jobs.sort(key=_order)
    return Claimed(jobs, counts, Walk(passed, took / 1e6), len(text))


class Chains(NamedTuple):
    """Jobs of one concurrency key that are claimed at once, to be run one after the other."""

    lengths: Mapping[str, int]
    """How many of a key at most, by job type; of others as many as its limit allows."""
    room: int
    """How many jobs that have to wait for others of their key may be taken in all."""


NO_CHAINS = Chains({}, 0)

Places: TypeAlias = Mapping[tuple[str, str], int]
"""How many jobs of a key, (queue, concurrency key), may run at once, where it is more than one. Others are a chain."""


class Keyed(NamedTuple):
    """What a claim of jobs with concurrency keys answered."""

    jobs: list[ClaimedJob]
    """What this worker now holds, ordered by (priority, run_at, id)."""
    again: bool
    """Whether a further claim may find more: jobs were parked, or keys were in other workers' hands for a moment."""
    passed: int
    """How many due jobs were passed over, since somebody's open transaction holds their rows."""
    places: Places
    size: int
    """Characters of the answer."""


async def claim_keyed(
    link: Link,
    worker_id: str,
    allotment: Sequence[tuple[Lane, int]],
    most: int,
    chains: Chains = NO_CHAINS,
    beyond: int = 0,
) -> Keyed:
    """Take up to `most` due jobs with concurrency keys, as far as the limits of the keys allow (invariant A).

    Args:
        chains: which jobs are taken besides, to be run one after the other.
        beyond: so many more jobs of each lane are looked at, since those in front may be locked.

    Raises:
        WorkerGone, DatabaseUnreachable: as `claim`.
    """
    try:
        lengths = [chains.lengths.get(lane.job_type, 1) for lane, _ in allotment]
        answer = await link.value("claim_keyed", worker_id, *_lanes(allotment), lengths, most, chains.room, beyond)
    except psycopg.errors.NoDataFound:
        raise WorkerGone(worker_id) from None
    except _TOO_LARGE as error:
        raise DatabaseError(f"a claim of {most} jobs cannot be answered: {error}") from error
    if answer is None:
        return Keyed([], False, 0, {}, 0)
    text = str(answer)
    jobs, again, passed, found = _read_keyed(text)
    places = {(queue, key): n for queue, key, n in found or ()}
    return Keyed(sorted(jobs or (), key=_order), again, passed, places, len(text))


def _lanes(allotment: Sequence[tuple[Lane, int]]) -> tuple[list[str], list[str], list[int], list[int]]:
    return (
        [lane.queue for lane, _ in allotment],
        [lane.job_type for lane, _ in allotment],
        [lane.priority for lane, _ in allotment],
        [count for _, count in allotment],
    )


async def owned(link: Link, worker_id: str) -> list[ClaimedJob]:
    """Return the jobs that the database says this worker holds, without their configs.

    Raises:
        DatabaseError
    """
    answer = await link.value("owned_jobs", worker_id)
    return [] if answer is None else _decode_jobs(str(answer))


async def declare_idle(link: Link, worker_id: str, queues: Sequence[str], job_types: Sequence[str]) -> int:
    """Say that this worker sleeps: from the commit on, spawns into these queues, of these job types, send hints.

    Returns:
        The horizon. A spawn that did not see the declaration has a transaction id before it, and may still be
        open: once a look's `xmin` is not before the horizon, nothing was missed (invariant F).
    """
    await link.value("declare_idle", worker_id, list(queues), list(job_types))
    return int(str(await link.value("take_horizon")))


async def declare_busy(link: Link, worker_id: str) -> None:
    """Say that this worker looks by itself."""
    await link.value("declare_busy", worker_id)


class Look(NamedTuple):
    """What a look at the database found."""

    lanes: dict[Lane, float]
    """The lanes with claimable jobs, and the seconds until the first of each is due."""
    xmin: int
    """Every transaction before this one had ended before the look: what it committed was seen."""
    owned: int
    """How many jobs the database says this worker holds; 0 where that was not asked."""
    walk: Walk


async def look(
    link: Link, worker_id: str, queues: Sequence[str], job_types: Sequence[str], count_owned: bool = True
) -> Look:
    """Look for work in these queues, of these job types.

    Args:
        count_owned: whether the jobs that this worker holds are counted.

    Raises:
        DatabaseError
    """
    answer = await link.value("look", worker_id if count_owned else None, list(queues), list(job_types))
    lanes, xmin, owned, passed, took = _decode_look(str(answer))
    due = {
        Lane(queue, job_type, priority, keyed): wait / 1e6 for queue, job_type, priority, keyed, wait in lanes or ()
    }
    return Look(due, xmin, owned, Walk(passed, took / 1e6))
