"""The heartbeat: a thread and a connection of its own, which a busy event loop cannot stop (invariants H and I)."""

from __future__ import annotations

import logging
import os
import random
import socket
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from importlib.metadata import version

from piecework.base.errors import DatabaseError
from piecework.base.surroundings import Thread
from piecework.engine.facts import listed
from piecework.engine.horizon_guard import HorizonGuard
from piecework.engine.tracing import rescued
from piecework.model.observation import Observer
from piecework.model.settings import WorkerSettings
from piecework.store.liveness import Counters, Pulse, WorkerRow
from piecework.work.registry import Registry

log = logging.getLogger("piecework.worker")
_JITTER = 0.1
_DUTIES_EVERY, _KEYED_DUTIES_EVERY = 60.0, 10.0


class Heartbeat:
    """Registers the worker, beats, observes the others, and rescues what the dead held.

    Args:
        registry: asked before each beat: what the worker runs.
        reborn: called in the heartbeat's thread with the new id, after the worker had been given up for dead and was
            registered anew: what it held under the old id is another's.
        rescued: called in the heartbeat's thread when jobs were taken back.
        renewed: called in the heartbeat's thread after each beat that was answered.
        requested: called in the heartbeat's thread with the ids and claim numbers of jobs that are to be cancelled.
    """

    def __init__(
        self,
        pulse: Pulse,
        settings: WorkerSettings,
        registry: Registry,
        reborn: Callable[[str], None],
        rescued: Callable[[], None],
        renewed: Callable[[], None],
        requested: Callable[[Sequence[tuple[str, int]]], None],
    ) -> None:
        self._surroundings = pulse.surroundings
        self.worker_id = str(self._surroundings.new_id())
        self.sent = float("-inf")
        """When the last answered beat was sent, monotonic seconds: the lease counts from here."""
        self.draining = False
        self.keyed = False
        """Set when jobs with concurrency keys have ended here, or were not in line: then keys are swept more often."""
        self.counters = Counters()
        self._guard = HorizonGuard(pulse, self.counters)
        self._pulse = pulse
        self._settings = settings
        self._registry = registry
        self._reborn = reborn
        self._rescued = rescued
        self._renewed = renewed
        self._requested = requested
        self._beat_every = settings.liveness.beat.total_seconds()
        self._wake = self._surroundings.flag()
        self._stopping = False
        self._thread: Thread | None = None
        self._next_duties, self._last_duties = 0.0, float("-inf")
        self._missed = False
        self._observer = Observer(self.worker_id, 2 * self._beat_every)

    def start(self) -> None:
        """Register and start to beat. Blocking: one round trip.

        Raises:
            DatabaseError: the worker could not be registered.
        """
        self._pulse.add_partitions()
        self._register()
        self._thread = self._surroundings.start_thread("job-heartbeat", self._run)

    @property
    def connection(self) -> str:
        """The state of the connection that beats."""
        return self._pulse.condition

    def beat_now(self) -> None:
        """Beat without waiting for the interval to pass."""
        self._wake.set()

    def stop(self) -> None:
        """Stop beating and strike the worker off, as far as the database can be reached. Blocking."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        try:
            if not self._pulse.leave(self.worker_id):
                log.warning(
                    "worker %s leaves with jobs in its hands: they run again when its lease is over", self.worker_id
                )
        except DatabaseError as error:
            log.warning("worker %s could not sign off: %s", self.worker_id, error)
        finally:
            self._pulse.close()

    def _register(self) -> None:
        liveness = self._settings.liveness
        jobs = {name: self._registry.get(name) for name in self._registry.job_types}
        timeouts = {name: job.timeout for name, job in jobs.items() if job is not None and job.timeout is not None}
        sent = self._surroundings.monotonic()
        self._pulse.register(
            WorkerRow(
                id=self.worker_id, pid=os.getpid(), host=socket.gethostname(), lease=liveness.lease,
                stop=liveness.stop, exit=liveness.exit, queues=self._settings.queues,
                job_types=self._registry.job_types, version=version("piecework"), timeouts=timeouts,
            )
        )  # fmt: skip
        self.sent = sent

    def _run(self) -> None:
        tried_again_after = min(1.0, self._beat_every / 4)
        pause = self._beat_every
        broken = False
        while not self._stopping:
            self._wake.wait(pause * random.uniform(1 - _JITTER, 1 + _JITTER))
            self._wake.clear()
            if self._stopping:
                return
            pause = tried_again_after
            try:
                self._beat()
                pause, broken = self._beat_every, False
            except DatabaseError as error:
                log.debug("a heartbeat of worker %s failed: %s", self.worker_id, error)
            except Exception:
                if not broken:  # once, not at every try
                    log.exception("a heartbeat of worker %s failed", self.worker_id)
                broken = True

    def _beat(self) -> None:
        sent = self._surroundings.monotonic()
        beat = self._pulse.beat(
            self.worker_id, draining=self.draining, job_types=self._registry.job_types, counters=self.counters
        )
        now = self._surroundings.monotonic()
        if beat is None:
            self._be_reborn()
            return
        if now - sent < self._settings.liveness.stop.total_seconds():
            self.sent = sent
            self._renewed()
        else:
            self._wake.set()  # an answer this late renews nothing, the next one does
        if beat.requests:
            self._requested(beat.requests)
        known = {worker_id: (beat_no, lease) for worker_id, beat_no, lease in beat.others}
        for dead in self._observer.observe(now, beat.others):
            if self._surroundings.monotonic() - sent > self._beat_every:
                self._wake.set()  # the own lease comes first, and the next beat finds the others again
                return
            self._rescue(dead, *known[dead])
        self._do_duties(now)

    def _do_duties(self, now: float) -> None:
        if now < self._next_duties and not (self.keyed and now >= self._last_duties + _KEYED_DUTIES_EVERY):
            return
        wanted, self.keyed, self._last_duties = self.keyed, False, now
        self._next_duties = now + _DUTIES_EVERY * random.uniform(1 - _JITTER, 1 + _JITTER)
        self._guard.forget_if_old()
        try:
            done = self._pulse.do_duties(self.worker_id, self._guard.look, self._sweep)
        except DatabaseError:
            self.keyed = True  # the keys may have been ours to sweep, and nobody does it before they are due again
            raise
        # Another may have swept them just before our last job of a key ended.
        self._missed = wanted and not self._missed and "concurrency_keys" not in done
        self.keyed |= self._missed

    def _sweep(self) -> None:
        # Rows that somebody held were passed over: where anything was not in line, soon again.
        self.keyed |= self._pulse.sweep_keys() > 0

    def _rescue(self, dead: str, beat_no: int, lease: float) -> None:
        began = time.time_ns()
        jobs = self._pulse.rescue(dead, beat_no, lease)
        if jobs is None:
            return
        silent = timedelta(seconds=lease)
        log.warning(
            "worker %s gave no sign of life for %s: %d of its jobs were rescued: %s",
            dead, silent, len(jobs), listed(jobs), extra={"worker_id": dead, "job_ids": [id for id, _ in jobs]},
        )  # fmt: skip
        rescued(self.worker_id, dead, silent, jobs, began)
        # The dead may have held keys of jobs that had ended already.
        self._sweep()
        if jobs:
            self._rescued()

    def _be_reborn(self) -> None:
        old, self.worker_id = self.worker_id, str(self._surroundings.new_id())
        self._observer = Observer(self.worker_id, 2 * self._beat_every)
        self._register()
        log.warning("worker %s was given up for dead, what it held is another's; it goes on as %s", old, self.worker_id)
        self._reborn(self.worker_id)
