"""One claimer per worker: decides what to claim, claims, hands over, and sleeps until there is more to do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from piecework.base.errors import DatabaseError
from piecework.engine.agenda import Agenda
from piecework.engine.executor import Executor
from piecework.engine.facts import listed
from piecework.engine.held import Held
from piecework.engine.idleness import Idleness
from piecework.engine.keyed_claims import Brought, KeyedClaims
from piecework.engine.planner import Planner
from piecework.model.claim_size import ClaimSize
from piecework.model.cursors import SLOW, Cursors, pause_after
from piecework.model.horizon import Claims
from piecework.model.lanes import Call, Lane
from piecework.model.settings import WorkerSettings
from piecework.store import claiming
from piecework.store.claiming import WorkerGone
from piecework.store.link import Link
from piecework.work.registry import Registry

log = logging.getLogger("piecework.worker")
_GATHER = 0.005
_STALE, _A_MOMENT = 2.0, 0.001
_AUDIT_EVERY = 30.0


class Claimer:
    """Claims up to the free capacity, a batch at a time.

    While claims come back full the worker looks by itself and asks for no hints; when it may sleep, `Idleness` says.

    Args:
        gone: called when the database says that this worker was given up for dead.
    """

    def __init__(
        self, link: Link, registry: Registry, settings: WorkerSettings, executor: Executor, gone: Callable[[], None]
    ) -> None:
        self.worker_id = ""
        """Under which claims are made; empty: none are made now."""
        self.costs = Claims()
        self._link = link
        self._registry = registry
        self._settings = settings
        self._executor = executor
        self._gone = gone
        self._agenda = Agenda()
        self._size = ClaimSize()
        self._cursors = Cursors()
        self._planner = Planner(registry, executor.capacity)
        self._idleness = Idleness(settings.look_every.total_seconds())
        self._generation = -1
        self._keyed = KeyedClaims(link, registry, executor)
        self._stopping = False
        self._last_claim = float("-inf")
        self._next_audit = 0.0
        self._front: Held | None = None
        self._front_since = 0.0
        self._wake = asyncio.Event()
        self._now = asyncio.get_running_loop().time

    def become(self, worker_id: str) -> None:
        """Claim under this id from now on."""
        self.worker_id = worker_id
        self._idleness.revoke()
        self.look_now()

    def hint(self, lane: Lane) -> None:
        """A job of this lane may be due."""
        if lane.queue in self._settings.queues and self._registry.get(lane.job_type) is not None:
            self._agenda.due.add(lane)
            self._wake.set()

    def hint_to_another(self, lane: Lane) -> None:
        """A job of this lane was due a moment ago, and another worker was named: is it still?"""
        if self._idleness.declared and lane.queue in self._settings.queues and self._registry.get(lane.job_type):
            self._agenda.look_soon()
            self._wake.set()

    def expect(self, lane: Lane, delay: float) -> None:
        """A job of this lane will be due in so many seconds."""
        self._agenda.expect(lane, self._now() + delay)
        self._wake.set()

    def wake(self) -> None:
        """Capacity came back."""
        self._wake.set()

    def listening(self, stands: bool) -> None:
        """Hints come from now on, or do not; either way some may have gone by."""
        were_coming, self._idleness.listening = self._idleness.listening, stands
        if stands or were_coming:
            self.look_now()

    def look_now(self) -> None:
        """Hints may have been lost: look at the database."""
        self._agenda.look_now()
        self._wake.set()

    def stop(self) -> None:
        """Claim no more. A claim that is under way is waited for, so that nothing is held without anybody's knowing."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Claim and hand over until stopped. Losing the database is a pause."""
        loop = asyncio.get_running_loop()

        def registered() -> None:
            loop.call_soon_threadsafe(self._wake.set)

        with self._registry.watched(registered):
            while not self._stopping:
                await self._turn()

    async def _turn(self) -> None:
        self._wake.clear()
        try:
            await self._step()
        except WorkerGone as gone:
            if str(gone) == self.worker_id:  # else the heartbeat found out first, and there is a new id already
                self.worker_id = ""
                self._gone()
        except DatabaseError:
            # A claim may have landed whose answer is lost, perhaps since it was too large.
            self._size.failed()
            self._next_audit = 0.0
            self._idleness.revoke()
            self._agenda.look_now()
            await self._link.pause()

    async def _step(self) -> None:
        now = self._now()
        self._release_stale(now)
        if self.worker_id and now >= self._next_audit and (self._executor.held or not self._idleness.calm):
            await self.audit()
        if not self.worker_id or not self._executor.capacity.room:
            await self._sleep(now + _STALE)
            return
        if self._generation != self._registry.generation:
            self._generation = self._registry.generation
            self._idleness.revoke()
            self._agenda.look_now()
        self._agenda.promote(now)
        if now >= self._agenda.next_look:
            await self._look()
        elif not self._agenda.due:
            await self._rest(now)
        elif (wait := self._last_claim + _GATHER - now) > 0 and self._scarce():
            await self._sleep(now + wait)
        else:
            await self._claim()

    async def audit(self) -> None:
        """Hand back what the database says this worker holds, and the worker knows nothing of (invariant J).

        Runs between claims, so that none is under way. What is settled meanwhile was known before.
        """
        self._executor.stopping.end_unbegun(self._executor.held.values())
        before = set(self._executor.held)
        owned = await claiming.owned(self._link, self.worker_id)
        orphans = [job for job in owned if job.id not in before and job.id not in self._executor.held]
        self._next_audit = self._now() + _AUDIT_EVERY
        if orphans:
            log.warning(
                "%d jobs were claimed without this worker's learning of it: they are handed back: %s",
                len(orphans), listed([(job.id, job.job_type) for job in orphans]),
            )  # fmt: skip
            for job in orphans:
                self._executor.release(job, self.worker_id)

    async def _look(self) -> None:
        self._agenda.look_begins()
        held = len(self._executor.held)
        # While something is held there is an audit now and then, and what was owned may take long to walk over.
        queues, job_types = self._settings.queues, self._registry.job_types
        look = await claiming.look(self._link, self.worker_id, queues, job_types, not held)
        hinted = self._agenda.due
        self._idleness.looked(look.xmin)
        pause = pause_after(look.walk) if look.walk.passed > SLOW else 0.0
        now, longest = self._now(), self._idleness.longest
        self._agenda.looked(look.lanes, now, longest, calm=self._idleness.calm, pause=pause)
        self._cursors.forget_unused(now)
        self.costs.slow_lanes = tuple(self._cursors.slow_lanes)
        self._agenda.due |= hinted
        if look.owned > max(held, len(self._executor.held)):
            self._next_audit = 0.0
            if not held:
                await self.audit()

    def _scarce(self) -> bool:
        capacity = self._executor.capacity
        return capacity.held > 0 and capacity.room < min(self._size.most, capacity.window // 2)

    async def _claim(self) -> None:
        most = min(self._executor.capacity.room, self._size.most)
        planned = self._planner.plan(self._agenda.due, most, self._cursors.apart)
        if not planned:
            await self._sleep(self._agenda.next_event())
            return
        worker_id, left = self.worker_id, most
        self._keyed.begin()
        for call in planned:
            if left > 0 and worker_id == self.worker_id:
                left -= await self._call(worker_id, call, left)
        if left <= 0:
            await self._stay_busy(worker_id)

    async def _call(self, worker_id: str, call: Call, most: int) -> int:
        """Claim from lanes of one kind; return how many jobs were taken, or how many batches."""
        poll, most = self._executor.tracing.poll, most * call.batch
        asked = [(lane, min(count, max(self._size.most // call.batch, 1)) * call.batch) for lane, count in call.asked]
        if asked[0][0].keyed:
            claimed = await self._keyed.claim(worker_id, asked, most, self._size.most, batched=call.batch > 1)
            if claimed.took > 0:
                self.costs.add(claimed.took, len(claimed.brought.jobs))
            self._size.answered(len(claimed.brought.jobs), claimed.size)
            taken = self._take(worker_id, claimed.brought)
            return most if taken >= claimed.most else taken
        began = self._now()
        lanes = [lane for lane, _ in asked]
        after = self._cursors.after(lanes, began)
        claim = claiming.claim(self._link, worker_id, asked, most, after)
        jobs, counts, walk, size = await poll(worker_id, most, claim)
        now = self._now()
        self._size.answered(len(jobs), size)
        self.costs.add(now - began, len(jobs))
        spent = [lane for (lane, count), got in zip(asked, counts, strict=True) if got < min(count, most)]
        self._cursors.claimed(lanes, after, walk, jobs, now, short=bool(spent))
        taken = self._take(worker_id, Brought(jobs, spent, len(jobs) == most))
        for lane, at in self._cursors.unfinished(spent, after):
            self._agenda.expect(lane, at)
        return taken

    def _take(self, worker_id: str, brought: Brought) -> int:
        """Hand claimed jobs over, and return how much capacity they take."""
        jobs, spent, more, places, pause = brought
        now = self._last_claim = self._now()
        if worker_id != self.worker_id:
            log.warning(
                "%d jobs were claimed when the lease was over: they are handed back, or are rescued: %s",
                len(jobs), listed([(job.id, job.job_type) for job in jobs]),
            )  # fmt: skip
            self._next_audit = 0.0  # the lease may be renewed, under the same id
            return 0
        if not more:
            self._agenda.drained(spent, now, in_vain=not jobs)
        elif not jobs:
            self._agenda.postpone(spent, now, pause)
        before = self._executor.capacity.held
        self._executor.take(jobs, worker_id, places)
        return self._executor.capacity.held - before

    async def _stay_busy(self, worker_id: str) -> None:
        self._idleness.claimed_all(self._last_claim)
        self._idleness.revoke()
        if self._idleness.flagged:
            await claiming.declare_busy(self._link, worker_id)
            self._idleness.flagged = False

    async def _rest(self, now: float) -> None:
        """Sleep until the next event, declared idle first where it is time for that."""
        if self._idleness.may_declare(now):
            horizon = await claiming.declare_idle(
                self._link, self.worker_id, self._settings.queues, self._registry.job_types
            )
            self._idleness.declare(horizon)
            self._agenda.look_now()
            return
        await self._sleep(self._agenda.next_event())

    def _release_stale(self, now: float) -> None:
        """Give prefetched jobs back that others could run by now."""
        waiting = self._executor.capacity.waiting
        front = waiting[0] if waiting else None
        if front is not self._front:
            self._front, self._front_since = front, now
        elif front is not None and now - self._front_since > _STALE:
            self._executor.capacity.overestimated()
            self._executor.release_waiting()

    async def _sleep(self, until: float) -> None:
        if self._front is not None:
            until = min(until, self._front_since + _STALE + _A_MOMENT)
        try:
            async with asyncio.timeout_at(until):
                await self._wake.wait()
        except TimeoutError:
            pass
