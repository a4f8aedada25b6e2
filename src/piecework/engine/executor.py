"""Runs claimed jobs. It writes nothing: each run ends in a settlement, handed to the completer."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import cast

from piecework.base.latch import Latch
from piecework.engine.capacity import Capacity
from piecework.engine.completer import Completer
from piecework.engine.facts import attempt_of, facts_of, failure_facts
from piecework.engine.held import Held, Stop
from piecework.engine.stopping import Stopping
from piecework.engine.threads import Threads
from piecework.engine.tracing import Tracing
from piecework.engine.verdicts import judge_end, judge_error, verified
from piecework.model.job import ClaimedJob
from piecework.model.settings import WorkerSettings
from piecework.model.settlement import Settlement, cancelled, refused, released
from piecework.store.settling import Answer
from piecework.work.claim_run import ClaimRun
from piecework.work.current_job import CurrentJob
from piecework.work.service import Service

log = logging.getLogger("piecework.job")
_STILL_RUNNING_PAUSE = timedelta(seconds=5)
_UNSETTLED_FOR_LONG = 5.0


class Executor:
    """Starts runs while there is capacity and judges how they end. Used on the worker's loop.

    Args:
        freed: called whenever capacity was given back, and while the worker stops whenever a run has ended.
    """

    def __init__(
        self, service: Service, settings: WorkerSettings, completer: Completer, freed: Callable[[], None]
    ) -> None:
        self.capacity = Capacity(settings)
        self.shutdown = Latch()
        self.held: dict[str, Held] = {}
        self.tracing = Tracing()
        self._service = service
        self._registry = service.registry
        self._settings = settings
        self._completer = completer
        self._freed = freed
        self._threads = Threads(settings.threads)
        self._stopping = Stopping(lambda held: self._ended(held, None, asyncio.CancelledError()))
        self._loop = asyncio.get_running_loop()

    def take(self, jobs: Sequence[ClaimedJob], worker_id: str) -> None:
        """Take claimed jobs in their order; those that do not fit the concurrency wait here."""
        self.tracing.refresh()
        for job in jobs:
            registered = self._registry.get(job.job_type)
            assert registered is not None, "only registered job types are claimed"
            earlier = self.held.get(job.id)
            if earlier is not None and (earlier.running or earlier.started is None):
                # Its claim was lost and rescued, but its run could not be stopped and goes on here: not twice at once.
                self._completer.put(worker_id, released(job, _STILL_RUNNING_PAUSE))
                continue
            if earlier is not None:
                self._drop(earlier)  # its settle has landed, or was lost with the claim: only the answer is not here
            held = Held(job, registered, worker_id)
            self.held[job.id] = held
            self.capacity.reserve(registered.job_type, in_thread=held.in_thread)
            self.capacity.waiting.append(job)
        self.start_waiting()

    def start_waiting(self) -> None:
        """Begin the runs of waiting jobs as far as the concurrency allows."""
        capacity = self.capacity
        while capacity.waiting and capacity.may_start and not self.shutdown.is_set():
            held = self.held.get(capacity.waiting.popleft().id)
            if held is not None and held.stop is None:
                self._start(held)

    def answered(self, settlement: Settlement, answer: Answer) -> Settlement:
        """Give the capacity of a settled claim back, say what is worth saying, and return what stands in the end."""
        held = self.held.get(settlement.job.id)
        if held is not None and held.job.claim_no != settlement.job.claim_no:
            held = None
        if held is not None:
            del self.held[settlement.job.id]
            self._free(held)
        trace, worker_id = (None, "") if held is None else (held.trace, held.worker_id)
        if settlement.sent is not None and answer == "landed before":
            if settlement.surplus:
                log.warning(
                    "job %s (%s) %s after its completion was committed: that stays, and nothing else is stored",
                    settlement.job.id, settlement.job.job_type, settlement.surplus,
                    extra=facts_of(settlement.job, worker_id),
                )  # fmt: skip
            settlement = settlement.sent
        if self.tracing.on:
            self.tracing.settled(settlement, answer, trace, worker_id, self._completer.sent)
        if answer == "lost":
            log.warning(
                "job %s (%s): its claim %d was lost, its end (%s) changed nothing",
                settlement.job.id, settlement.job.job_type, settlement.job.claim_no, settlement.move,
                extra=facts_of(settlement.job, worker_id),
            )  # fmt: skip
        elif settlement.error is not None and trace is not None:
            trace.context.run(self._report, settlement, worker_id)
        elif settlement.error is not None:
            self._report(settlement, worker_id)
        self.start_waiting()
        self._freed()
        return settlement

    def release_waiting(self) -> None:
        """Hand back every claim whose run has not begun."""
        waiting, self.capacity.waiting = list(self.capacity.waiting), type(self.capacity.waiting)()
        for job in waiting:
            held = self.held[job.id]
            held.stop = "release"
            self._completer.put(held.worker_id, released(job))

    def release(self, job: ClaimedJob, worker_id: str) -> None:
        """Hand back a claim that this worker does not know."""
        self._completer.put(worker_id, released(job))

    def stop_runs(self, what: Stop) -> None:
        """Stop what runs: `async def` jobs are cancelled, `def` jobs go on until their function returns."""
        for held in list(self.held.values()):
            if held.task is not None:
                self._stopping.stop(held, what)
            if what == "drop":
                held.stop = what
                if held.started is None:
                    self._drop(held)
        if what == "drop":
            self.capacity.waiting.clear()

    def cancel(self, claims: Sequence[tuple[str, int]]) -> None:
        """Cancel jobs, by id and claim number; those that are not in hand, or have ended, are passed over."""
        for id, claim_no in claims:
            held = self.held.get(id)
            if held is None or held.job.claim_no != claim_no or held.stop is not None:
                continue
            if held.started is None:
                held.stop = "cancel"
                self.capacity.waiting.remove(held.job)
                self._completer.put(held.worker_id, cancelled(held.job, None))
            elif held.running:
                log.info("job %s (%s) is to be cancelled", held.job.id, held.job.job_type, extra=facts_of(held.job))
                self._stopping.stop(held, "cancel")

    @property
    def running(self) -> list[Held]:
        """The claims whose function runs."""
        return [held for held in self.held.values() if held.running]

    def close(self) -> None:
        """Let the idle threads and the timer go."""
        self._threads.close()
        self._stopping.close()

    def _start(self, held: Held) -> None:
        job, registered = held.job, held.registered
        self.capacity.started += 1
        held.started = self._loop.time()
        settlement = refused(job, registered.retry, self._settings.max_crashes)
        if settlement is not None:
            self._completer.put(held.worker_id, settlement)
            return
        open_run = functools.partial(ClaimRun, self._service, job, registered, held.worker_id, held.started)
        held.current = CurrentJob(job, self.shutdown, open_run)
        held.trace = self.tracing.begin(job, held.worker_id) if self.tracing.on else None
        try:
            call = registered.prepare(held.current)
        except Exception as error:
            self._settle(held, judge_error(held, error, self._loop.time(), ran=False))
            return
        held.running = True
        if registered.timeout is not None:
            self._stopping.limit(held, registered.timeout)
        name = f"job-{job.job_type}-{job.id}"
        context = None if held.trace is None else held.trace.context
        if held.in_thread:
            self._threads.submit(name, call, functools.partial(self._from_thread, held), context)
        else:
            run = cast("Callable[[], Coroutine[object, object, object]]", call)
            held.task = self._loop.create_task(self._run(held, run), name=name, context=context)

    async def _run(self, held: Held, call: Callable[[], Coroutine[object, object, object]]) -> None:
        try:
            value = await call()
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
            log.warning(
                "job %s (%s) ended after its worker had closed: it will run again",
                held.job.id, held.job.job_type, extra=facts_of(held.job, held.worker_id),
            )  # fmt: skip

    def _ended(self, held: Held, value: object, error: BaseException | None) -> None:
        assert held.started is not None
        held.running = False
        if held.deadline is not None:
            self._stopping.ended(held)
        self.capacity.lasted(self._loop.time() - held.started)
        if self.shutdown.is_set():
            self._freed()
        if isinstance(error, asyncio.CancelledError) and held.stop == "drop":
            self._drop(held)
        elif isinstance(error, asyncio.CancelledError) and held.stop == "release":
            self._settle(held, verified(held, released(held.job), value, error), error)
        else:
            self._settle(held, verified(held, judge_end(held, value, error, self._loop.time()), value, error), error)

    def _settle(self, held: Held, settlement: Settlement, error: BaseException | None = None) -> None:
        if settlement.sent is not None:
            self._loop.call_later(_UNSETTLED_FOR_LONG, self._name_unsettled, held)
        if held.trace is not None:
            told = settlement if error is not None or settlement.sent is None else settlement.sent
            self.tracing.ended(held.trace, told)
        self._completer.put(held.worker_id, settlement)

    def _name_unsettled(self, held: Held) -> None:
        if self.held.get(held.job.id) is held:
            log.warning(
                "job %s (%s) has returned, and the transaction in which it completed is still open, or the database is "
                "away: its capacity stays taken until that is known",
                held.job.id, held.job.job_type, extra=facts_of(held.job, held.worker_id),
            )  # fmt: skip

    def _drop(self, held: Held) -> None:
        """Forget a claim that is another worker's now."""
        if self.held.get(held.job.id) is held:
            del self.held[held.job.id]
            self._free(held)
            self._freed()
        if held.trace is not None:
            self.tracing.ended(held.trace, None)

    def _free(self, held: Held) -> None:
        started = held.started is not None
        self.capacity.free(held.registered.job_type, in_thread=held.in_thread, started=started)

    def _report(self, settlement: Settlement, worker_id: str) -> None:
        job, error = settlement.job, settlement.error
        assert error is not None
        delay = settlement.delay or timedelta(0)
        after = f"again in {delay.total_seconds():.1f} s" if settlement.will_retry else "no attempt is left"
        log.log(
            settlement.level, "job %s (%s) failed in attempt %d: %s: %s; %s",
            job.id, job.job_type, attempt_of(settlement), error.type, error.message, after,
            extra=failure_facts(settlement, worker_id),
        )  # fmt: skip
