"""Claims of jobs with concurrency keys: how many keys each asks for, how long chains, and how far it looks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from piecework.engine.executor import Executor
from piecework.model.job import ClaimedJob
from piecework.model.lanes import Lane
from piecework.store import claiming
from piecework.store.claiming import NO_CHAINS, Keyed, Places
from piecework.store.link import Link
from piecework.work.registry import Registry

_MOST = 500
_MOST_BEYOND = 10_000
_PATIENCE, _LEAST_PAUSE, _MOMENT = 4, 0.005, 0.001


class Brought(NamedTuple):
    """What one claim brought."""

    jobs: Sequence[ClaimedJob]
    spent: Sequence[Lane]
    """The lanes that gave less than was asked of them."""
    more: bool
    """They may have others besides."""
    places: Places | None = None
    """Of jobs with concurrency keys, how many of a key may run at once."""
    pause: float | None = None
    """Seconds for which lanes that gave nothing and have more are left alone; None: for as long as usual."""


class KeyedClaim(NamedTuple):
    """A claim of jobs with concurrency keys."""

    brought: Brought
    most: int
    """How many jobs it asked for, besides those in chains."""
    took: float
    """Seconds."""


class KeyedClaims:
    """Claims jobs with concurrency keys, and learns from each claim what the next one should ask for."""

    def __init__(self, link: Link, registry: Registry, executor: Executor) -> None:
        self._link = link
        self._registry = registry
        self._executor = executor
        self._per_key = 1.0
        self._beyond = self._next_beyond = 0
        self._now = asyncio.get_running_loop().time

    def begin(self) -> None:
        """Note that a round of claims begins: what was passed over in the round before is looked beyond."""
        self._beyond, self._next_beyond = self._next_beyond, 0

    async def claim(self, worker_id: str, asked: Sequence[tuple[Lane, int]], most: int, *, batched: bool) -> KeyedClaim:
        """Claim from lanes, unless what is in hand should move on first.

        Where keys have many jobs few keys are enough: the others are left to the next claim, and to other workers.
        """
        lanes, began = [lane for lane, _ in asked], self._now()
        chains = NO_CHAINS if batched else self._executor.chains.asked(self._present_names(lanes))
        if chains is None:
            return KeyedClaim(Brought([], lanes, more=True, pause=_MOMENT), most, 0.0)
        if chains.room:
            most = min(most, ceil(_MOST / self._per_key))
        claim = claiming.claim_keyed(self._link, worker_id, asked, most, chains, self._beyond)
        found = await self._executor.tracing.poll(worker_id, most, claim)
        took = self._now() - began
        self._learn(found)
        got = Counter(Lane(job.queue, job.job_type, job.priority, keyed=True) for job in found.jobs)
        spent = [lane for lane, count in asked if got[lane] < count]
        # Where chains go on it is no hurry to park what is in their way: they will take most of it.
        pause = max(_PATIENCE * took, _LEAST_PAUSE) if chains.room else None
        return KeyedClaim(Brought(found.jobs, spent, found.again, found.places, pause), most, took)

    def _learn(self, found: Keyed) -> None:
        self._next_beyond = max(self._next_beyond, min(2 * found.passed, _MOST_BEYOND))
        if found.jobs:
            self._per_key = len(found.jobs) / len({(job.queue, job.concurrency_key) for job in found.jobs})

    def _present_names(self, lanes: Sequence[Lane]) -> dict[str, str]:
        jobs = {lane.job_type: self._registry.get(lane.job_type) for lane in lanes}
        return {name: job.job_type for name, job in jobs.items() if job is not None}
