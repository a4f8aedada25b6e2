"""A worker: the loops of one process, started and stopped together."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence
from types import TracebackType

from piecework.base.errors import DatabaseError
from piecework.base.surroundings import SURROUNDINGS, Surroundings
from piecework.base.threads import in_thread
from piecework.engine import reports
from piecework.engine.claimer import Claimer
from piecework.engine.completer import Completer
from piecework.engine.dump import describe, printed_on_signal
from piecework.engine.executor import Executor
from piecework.engine.heartbeat import Heartbeat
from piecework.engine.listener import Listener
from piecework.engine.loops import Loops
from piecework.engine.tracing import drained
from piecework.engine.watchdog import Watchdog
from piecework.model.lanes import Lane
from piecework.model.settings import WorkerSettings
from piecework.model.settlement import Settlement
from piecework.store.links import links_of, pulse_of
from piecework.store.settling import Answer
from piecework.work.service import Service

log = logging.getLogger("piecework.worker")
_SETTLE_GRACE = 10.0
_CANCEL_GRACE = 1.0
_LINKS = ("claims", "settles", "hints")
_EXIT_CUT_OFF = 75  # sysexits.h: a temporary failure


class Worker:
    """Claims jobs of the registered types and runs them. `async with worker:` starts it and, at the end, drains it.

    Args:
        service: open. The worker opens connections of its own to the same place, runs the job types of the registry,
            also those that are added later, and opens the resources before its first claim.
        settings: how much, of which queues, and how it proves that it lives.
        on_settled: called on the loop with the ids of jobs whose settles were answered.
        surroundings: what it takes from its machine.
    """

    def __init__(
        self,
        service: Service,
        settings: WorkerSettings,
        on_settled: Callable[[Sequence[str]], None] = lambda ids: None,
        surroundings: Surroundings = SURROUNDINGS,
    ) -> None:
        self._surroundings = surroundings
        store, registry = service.store, service.registry
        self._store, self._registry = store, registry
        self._settings = settings
        self._resources = service.resources
        self._loop = asyncio.get_running_loop()
        beat, lease = settings.liveness.beat.total_seconds(), settings.liveness.lease.total_seconds()
        self._links = claims, settles, listens = links_of(store, lease)
        self._completer = Completer(settles, self._answered, self._flushed, self._unparked)
        self._executor = Executor(service, settings, self._completer, self._freed, lambda: not self._watchdog.over)
        self._claimer = Claimer(claims, registry, settings, self._executor, self._beat_now)
        self._listener = Listener(
            listens, lambda: self.worker_id, self._claimer.hint, self._claimer.hint_to_another, self._executor.cancel,
            self._claimer.listening, 2 * lease,
        )  # fmt: skip
        self._heartbeat = Heartbeat(
            pulse_of(store, beat, surroundings), settings, registry, self._in_loop(self._reborn),
            self._in_loop(self._claimer.look_now), self._in_loop(self._lease_renewed),
            self._in_loop(self._executor.cancel),
        )  # fmt: skip
        self._heartbeat.counters.claims = self._claimer.costs
        self._watchdog = Watchdog(
            settings.liveness, lambda: self._heartbeat.sent, self._in_loop(self._lease_over), self._end_what_runs,
            surroundings,
        )  # fmt: skip
        self._on_settled = on_settled
        self._fenced = False
        self._owns_process = False
        self._loops = Loops()
        self._hurried = False
        self._changed = asyncio.Event()

    @property
    def worker_id(self) -> str:
        """The id of this worker, a new one after it had been given up for dead."""
        return self._heartbeat.worker_id

    async def __aenter__(self) -> Worker:
        self._registry.resolve()
        await self._store.check_listen_dsn()
        await self._resources.open()
        try:
            await self._sign_on()
        except BaseException:
            await self._resources.close()
            raise
        self._watchdog.start()
        self._claimer.become(self.worker_id)
        self._loops.start("job-poller-main-loop", self._claimer.run)
        self._loops.start("job-completer", self._completer.run)
        self._loops.start("job-listener", self._listener.run)
        log.info("worker %s claims from %s", self.worker_id, ", ".join(self._settings.queues))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A cancellation while it drains is what a second signal is: the rest is done without waiting for runs.
        draining = self._loop.create_task(drained(self.drain, self.worker_id, self._executor.held), name="job-drain")
        cancelled: asyncio.CancelledError | None = None
        while not draining.done():
            try:
                await asyncio.wait({draining})
            except asyncio.CancelledError as again:
                cancelled = again
                self.hurry()
        draining.result()
        if cancelled is not None:
            raise cancelled

    async def _sign_on(self) -> None:
        start = in_thread("job-sign-on", self._heartbeat.start, self._surroundings)
        starting = self._loop.create_task(start, name="job-sign-on")
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait({starting})  # the thread cannot be stopped, and would beat for ever
            if starting.exception() is None:
                await in_thread("job-sign-off", self._heartbeat.stop, self._surroundings)
            raise

    async def run_until_signalled(self) -> None:
        """Work until SIGTERM or SIGINT, then drain. A second signal does not wait for what runs. SIGUSR1 prints a dump.

        Should a job even then ignore that it was cancelled, the process ends here, with the exit code 1.
        """
        stop = asyncio.Event()
        self._owns_process = True

        def signalled() -> None:
            if stop.is_set():
                self.hurry()
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, signalled)
        try:
            with printed_on_signal(self.dump):
                async with self:
                    await stop.wait()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.remove_signal_handler(number)
        if any(not held.in_thread for held in self._executor.running):
            logging.shutdown()
            os._exit(1)  # a loop waits for its tasks; for threads of ours nobody does

    def dump(self) -> str:
        """Say what the worker does: lease, claims in hand, connections, tasks and threads. Any thread may ask."""
        used = {name: link.condition for name, link in zip(_LINKS, self._links, strict=True)}
        used["heartbeat"] = self._heartbeat.connection
        return describe(self._loop, self._executor, self._heartbeat, self._settings.liveness, used)

    def hurry(self) -> None:
        """Do not wait for running jobs any longer: cancel them and hand them back."""
        self._hurried = True
        self._changed.set()
        self._resources.hurry()

    async def drain(self) -> None:
        """Stop claiming, tell the runners, wait the grace, cancel, hand back, settle what is left, sign off.

        An idle worker is gone at once. What cannot be stopped, a `def` job or one that takes no notice of being
        cancelled, is waited for, unless `hurry` is called.
        """
        executor = self._executor
        executor.shutdown.set()
        self._claimer.stop()
        await self._loops.stop("job-poller-main-loop", within=_SETTLE_GRACE)
        self._heartbeat.draining = True
        executor.release_waiting()
        await self._audit()
        if executor.held:
            log.info("worker %s stops: %d jobs in hand", self.worker_id, len(executor.held))
            self._heartbeat.beat_now()
            await self._until(lambda: self._hurried, self._settings.shutdown_grace.total_seconds())
            if executor.running:
                log.info("worker %s waits no longer: its %d runs are stopped", self.worker_id, len(executor.running))
            executor.stop_runs("release")
            await self._until(lambda: not executor.running, _CANCEL_GRACE)
            if not self._hurried:
                reports.waited_for(executor.running)
            await self._until(lambda: self._hurried or not executor.running, None)
            await self._until(lambda: len(executor.running) == len(executor.held), _SETTLE_GRACE)
        self._completer.stop()
        await self._loops.stop("job-listener")
        await self._loops.stop("job-completer", within=0.0 if executor.held else _SETTLE_GRACE)
        executor.close()
        await in_thread("job-sign-off", self._heartbeat.stop, self._surroundings)
        self._watchdog.close()
        for link in self._links:
            await link.drop()
        await self._resources.close()
        log.info("worker %s has stopped", self.worker_id)

    async def _audit(self) -> None:
        if self._claimer.worker_id:
            try:
                await self._claimer.audit()
            except DatabaseError as error:
                log.warning("what worker %s owns could not be looked at: %s", self.worker_id, error)

    async def _until(self, enough: Callable[[], bool], seconds: float | None) -> None:
        """Wait until nothing is held any more, or it is enough, or time is up."""
        try:
            async with asyncio.timeout(seconds):
                while self._executor.held and not enough():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass

    def _in_loop(self, call: Callable[..., None]) -> Callable[..., None]:
        def later(*args: object) -> None:
            try:
                self._loop.call_soon_threadsafe(call, *args)
            except RuntimeError:
                log.debug("the loop of worker %s is closed", self.worker_id)

        return later

    def _answered(self, settlement: Settlement, answer: Answer) -> None:
        stands = self._executor.answered(settlement, answer)
        self._heartbeat.counters.lost_settles += answer == "lost"
        self._heartbeat.keyed |= settlement.job.concurrency_key is not None
        if answer != "lost" and stands.delay is not None:
            job = stands.job
            lane = Lane(job.queue, job.job_type, job.priority, job.concurrency_key is not None)
            self._claimer.expect(lane, stands.delay.total_seconds())

    def _flushed(self, ids: Sequence[str]) -> None:
        self._executor.start_waiting()
        self._freed()
        self._on_settled(ids)

    def _unparked(self, lane: Lane) -> None:
        self._claimer.hint(lane)

    def _beat_now(self) -> None:
        self._heartbeat.beat_now()

    def _freed(self) -> None:
        self._claimer.wake()
        self._changed.set()

    def _reborn(self, worker_id: str) -> None:
        self._executor.stop_runs("drop")
        self._claimer.become(worker_id)

    def _lease_over(self) -> None:
        """Stop the runs: from the end of the lease on others may start them."""
        self._fenced = True
        self._heartbeat.counters.stops += 1
        self._claimer.worker_id = ""
        log.warning(
            "worker %s has had no answer to a heartbeat for %s: it stops its %d runs, before others may start them",
            self.worker_id, self._settings.liveness.stop, len(self._executor.running),
        )  # fmt: skip
        self._executor.release_waiting()
        self._executor.stop_runs("release")

    def _lease_renewed(self) -> None:
        if self._fenced and not self._executor.shutdown.is_set():
            self._fenced = False
            log.warning("worker %s has an answer to its heartbeat again, and claims", self.worker_id)
            self._claimer.become(self.worker_id)

    def _end_what_runs(self) -> None:
        # In the watchdog's thread: the loop may be what hangs.
        if not (running := self._executor.running):
            return
        if self._owns_process:
            # Whoever reads the log may hang as well, and the process has to end before others start what it runs.
            left = self._settings.liveness.lease - self._settings.liveness.exit
            self._surroundings.start_timer("job-exit", left.total_seconds() / 2, self._cut_off)
        reports.not_stopped(self.worker_id, running, ends=self._owns_process)
        if self._owns_process:
            logging.shutdown()
            self._cut_off()

    def _cut_off(self) -> None:
        self._surroundings.end_process(_EXIT_CUT_OFF)
