"""Runs claimed jobs. It writes nothing: each run ends in a settlement, handed to the completer."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import cast

from piecework.base.latch import Latch
from piecework.engine import reports
from piecework.engine.batches import Batches
from piecework.engine.capacity import Capacity
from piecework.engine.chains import Chains
from piecework.engine.completer import Completer
from piecework.engine.held import Held, HeldBatch, Stop
from piecework.engine.lines import Lines
from piecework.engine.stopping import Stopping, too_late
from piecework.engine.threads import Threads
from piecework.engine.tracing import Tracing
from piecework.engine.verdicts import judge_end, judge_error, tamed, verified
from piecework.model.job import ClaimedJob
from piecework.model.settings import WorkerSettings
from piecework.model.settlement import Settlement, cancelled, refused, released
from piecework.store.claiming import Places
from piecework.store.settling import Answer
from piecework.work.claim_run import ClaimRun
from piecework.work.current_job import CurrentJob
from piecework.work.service import Service

_STILL_RUNNING_PAUSE = timedelta(seconds=5)
_RETURNING_PAUSE = timedelta(milliseconds=50)
_UNSETTLED_FOR_LONG = 5.0


class Executor:
    """Starts runs while there is capacity and judges how they end. Used on the worker's loop.

    Args:
        freed: called when capacity came back, but not by `answered`; while the worker stops, when a run has ended.
        leased: says whether runs may begin: where the loop hung, the watchdog's call is still in its queue.
    """

    def __init__(
        self, service: Service, settings: WorkerSettings, completer: Completer, freed: Callable[[], None],
        leased: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.capacity = Capacity(settings)
        self.shutdown = Latch()
        self.held: dict[str, Held] = {}
        self.tracing = Tracing()
        self._service = service
        self._registry = service.registry
        self._settings = settings
        self._completer = completer
        self._freed, self._leased = freed, leased
        self._threads = Threads(settings.threads)
        self._batches = Batches(self, service.store.lending, service.statements)
        self.chains = Chains(settings.prefetch, self._hand_back)
        self._lines = Lines(self.capacity, self._batches, self.chains)
        self.stopping = Stopping(lambda held: self._ended(held, None, asyncio.CancelledError()))
        self._loop = asyncio.get_running_loop()

    def take(self, jobs: Sequence[ClaimedJob], worker_id: str, places: Places | None = None) -> None:
        """Take claimed jobs in their order. What does not fit the concurrency, or its key (`Chains.form`), waits."""
        self.tracing.refresh()
        single: list[Held] = []
        batched: list[Held] = []
        for job in jobs:
            registered = self._registry.get(job.job_type)
            assert registered is not None, "only registered job types are claimed"
            earlier = self.held.get(job.id)
            if earlier is not None and (earlier.running or (earlier.started is None and earlier.stop != "release")):
                # Its claim was lost and rescued, but its run could not be stopped and goes on here: not twice at once.
                # Or it has ended the job in a transaction, and is about to return.
                pause = _RETURNING_PAUSE if earlier.returns_soon else _STILL_RUNNING_PAUSE
                self._completer.put(worker_id, released(job, pause))
                continue
            if earlier is not None:
                self._drop(earlier)  # its settle has landed, or was lost with the claim: only the answer is not here
            held = Held(job, registered, worker_id)
            self.held[job.id] = held
            (single if registered.batching is None else batched).append(held)
        for held in single if places is None else self.chains.form(single, places):
            self.capacity.reserve(held)
        for batch in self._batches.form(batched) if batched else ():
            self.capacity.reserve(batch)
        # Not at once: the claimer sends its next claim first, and the server works while the runs begin here.
        self._loop.call_soon(self.start_waiting)

    def start_waiting(self) -> None:
        """Begin the runs of waiting jobs as far as the concurrency allows."""
        capacity, waiting = self.capacity, self.capacity.waiting
        if not waiting or self.shutdown.is_set():
            return
        while waiting and capacity.may_start:
            unit = waiting.popleft()
            if unit.stop is None and (not isinstance(unit, HeldBatch) or self._batches.may_begin(unit)):
                self._start(unit)

    def answered(self, settlement: Settlement, answer: Answer) -> Settlement:
        """Give the capacity of a settled claim back, say what is worth saying, and return what stands in the end.

        After the last of many `start_waiting` is to be called, once.
        """
        held = self.held.get(settlement.job.id)
        if held is not None and held.job.claim_no != settlement.job.claim_no:
            held = None
        if held is not None:
            del self.held[settlement.job.id]
            self._free(held)
            self._pass_on(held)
        trace, worker_id = (None, "") if held is None else (held.trace, held.worker_id)
        stands = reports.standing(settlement, answer, worker_id)
        if self.tracing.on:
            self.tracing.settled(stands, answer, trace, worker_id, self._completer.sent)
        if answer == "lost":
            reports.lost(stands, worker_id)
        elif stands.error is not None:
            reports.failed(stands, worker_id, trace)
        return stands

    def release_waiting(self) -> None:
        """Hand back every claim whose run has not begun."""
        self._hand_back(self._lines.take_all())

    def _hand_back(self, claims: Sequence[Held]) -> None:
        for held in claims:
            held.stop = "release"
            self.release(held.job, held.worker_id)

    def release(self, job: ClaimedJob, worker_id: str) -> None:
        """Hand back a claim that is not, or no longer, in hand."""
        self._completer.put(worker_id, released(job))

    def stop_runs(self, what: Stop) -> None:
        """Stop what runs: `async def` jobs are cancelled, `def` jobs go on until their function returns."""
        for unit in {held.batch or held: None for held in self.held.values()}:
            if unit.task is not None:
                self.stopping.stop(unit, what)
            if what == "drop":
                unit.stop = what
        if what == "drop":
            self._lines.take_all()
            for held in list(self.held.values()):
                held.stop = what
                if held.started is None:
                    self._drop(held)

    def cancel(self, claims: Sequence[tuple[str, int]]) -> None:
        """Cancel jobs, by id and claim number; those that are not in hand, or have ended, are passed over."""
        for id, claim_no in claims:
            held = self.held.get(id)
            if held is None or held.job.claim_no != claim_no or held.stop is not None:
                continue
            if held.started is None:
                held.stop = "cancel"
                self._lines.leave(held)
                self.settle(held, cancelled(held.job, None))
            elif held.running:
                reports.to_be_cancelled(held.job)
                if held.batch is None or self._batches.cancel(held):
                    self.stopping.stop(held.batch or held, "cancel")

    @property
    def running(self) -> list[Held]:
        """The claims whose function runs. Any thread may ask."""
        return [held for held in list(self.held.values()) if held.running]

    def close(self) -> None:
        """Let the idle threads and the timer go."""
        self._threads.close()
        self.stopping.close()
        self.chains.close()

    def _start(self, unit: Held) -> None:
        self.capacity.started += 1
        unit.started = self._loop.time()
        call = self._batches.prepare(unit) if isinstance(unit, HeldBatch) else self.prepare(unit)
        if call is None:
            return
        unit.running = True
        if unit.registered.timeout is not None:
            self.stopping.limit(unit, unit.registered.timeout)
        if isinstance(unit, HeldBatch) and self.tracing.on:
            unit.trace = self.tracing.begin_batch([item.trace for item in unit.items], unit.job, unit.worker_id)
        context = None if unit.trace is None else unit.trace.context
        if unit.in_thread:
            call = call if self._leased() else too_late(unit)
            self._threads.submit(unit.task_name, call, functools.partial(self._from_thread, unit), context)
        else:
            run = cast("Callable[[], Coroutine[object, object, object]]", call)
            unit.task = self._loop.create_task(self._run(unit, run), name=unit.task_name, context=context)

    def prepare(self, held: Held) -> Callable[[], object] | None:
        """Make a claim ready to run, and return its call; None if it may not run, or its config cannot be read."""
        job, registered, now = held.job, held.registered, self._loop.time
        held.started = now()
        if job.failures or job.crashes:
            if (settlement := refused(job, registered.retry, self._settings.max_crashes)) is not None:
                self.settle(held, settlement)
                return None
        open_run = functools.partial(ClaimRun, self._service, job, registered, held.worker_id, held.started, now)
        held.current = CurrentJob(job, self.shutdown, open_run)
        held.trace = self.tracing.begin(job, held.worker_id) if self.tracing.on else None
        try:
            call = registered.prepare(held.current)
        except Exception as error:
            self.settle(held, judge_error(held, error, self._loop.time(), ran=False))
            return None
        held.running = True
        return call

    async def _run(self, held: Held, call: Callable[[], Coroutine[object, object, object]]) -> None:
        if held.job.concurrency_key is not None:
            held.stepped = self._loop.time()
        try:
            value = await (call if self._leased() else too_late(held))()
        except GeneratorExit:
            raise
        except BaseException as error:
            held.task = None
            self._ended(held, None, error)
        else:
            held.task = None
            self._ended(held, value, None)

    def _from_thread(self, held: Held, value: object, error: BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._ended, held, value, error)
        except RuntimeError:
            reports.left_behind(held.job, held.worker_id)

    def _ended(self, held: Held, value: object, error: BaseException | None) -> None:
        assert held.started is not None
        value, error = tamed(value, error)
        held.running = False
        if held.deadline is not None:
            self.stopping.ended(held)
        now = self._loop.time()
        self.capacity.lasted(now - held.started)
        if held.job.concurrency_key is not None:
            self.chains.lasted(held.registered.job_type, now - (held.stepped or held.started))
        if self.shutdown.is_set():
            self._freed()
        if isinstance(held, HeldBatch):
            if held.trace is not None:
                self.tracing.ended_batch(held.trace, error)
            self._batches.conclude(held, value, error)
        else:
            self.conclude(held, value, error)
        self.start_waiting()

    def conclude(self, held: Held, value: object, error: BaseException | None) -> None:
        """Settle a claim as what its run returned or raised says, unless it is another worker's by now."""
        if isinstance(error, asyncio.CancelledError) and held.stop == "drop":
            self._drop(held)
        elif isinstance(error, asyncio.CancelledError) and held.stop == "release":
            self.settle(held, verified(held, released(held.job), value, error), error)
        else:
            self.settle(held, verified(held, judge_end(held, value, error, self._loop.time()), value, error), error)

    def settle(self, held: Held, settlement: Settlement, error: BaseException | None = None) -> None:
        """Hand the end of a run to the completer."""
        if settlement.sent is not None:
            self._loop.call_later(_UNSETTLED_FOR_LONG, reports.unsettled, held, self.held)
        if held.trace is not None:
            told = settlement if error is not None or settlement.sent is None else settlement.sent
            self.tracing.ended(held.trace, told)
        self._completer.put(held.worker_id, settlement)
        if settlement.sent is None:
            self._pass_on(held)

    def _pass_on(self, held: Held) -> None:
        """Let the next one of a chain take the place of a run that has ended: its settle need not have landed."""
        if held.chain is not None and (following := self.chains.following(held)) is not None:
            self.capacity.reserve(following)

    def _drop(self, held: Held) -> None:
        """Forget a claim that is another worker's now."""
        if self.held.get(held.job.id) is held:
            del self.held[held.job.id]
            self._free(held)
            self._pass_on(held)
            self._freed()
        if held.trace is not None:
            self.tracing.ended(held.trace, None)

    def _free(self, held: Held) -> None:
        if held.waits:
            return
        unit = held.batch or held
        if isinstance(unit, HeldBatch):
            unit.left -= 1
            if unit.left > 0:
                return
            if unit.started is not None:
                self._batches.freed(unit)
        self.capacity.free(unit)
