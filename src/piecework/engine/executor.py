"""Runs claimed jobs. It writes nothing: each run ends in a settlement, handed to the completer."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import threading
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Literal, TypeAlias, cast

from piecework.engine.capacity import Capacity
from piecework.engine.completer import Completer
from piecework.engine.threads import Threads
from piecework.model.completion import Fail, Reschedule
from piecework.model.job import ClaimedJob
from piecework.model.settings import WorkerSettings
from piecework.model.settlement import (
    Settlement,
    completed,
    failed,
    failed_by_reason,
    refused,
    released,
    rescheduled,
)
from piecework.store.settling import Answer
from piecework.work.current_job import CurrentJob
from piecework.work.registry import RegisteredJob, Registry

log = logging.getLogger("piecework.job")
_STILL_RUNNING_PAUSE = timedelta(seconds=5)

Stop: TypeAlias = Literal["shutdown", "gone"]
"""Why the worker itself stops a run: it ends and hands the claim back, or the claim is not its own any more."""


class Held:
    """A claim in the hands of this worker, from its landing until its settle landed."""

    __slots__ = ("in_thread", "job", "registered", "running", "started", "stop", "task", "worker_id")

    def __init__(self, job: ClaimedJob, registered: RegisteredJob, worker_id: str) -> None:
        self.job = job
        self.registered = registered
        self.worker_id = worker_id
        self.in_thread = not registered.is_async
        self.started: float | None = None
        self.running = False
        self.stop: Stop | None = None
        self.task: asyncio.Task[None] | None = None


class Executor:
    """Starts runs while there is capacity and judges how they end. Used on the worker's loop.

    Args:
        freed: called whenever capacity was given back, and while the worker stops whenever a run has ended.
    """

    def __init__(
        self, registry: Registry, settings: WorkerSettings, completer: Completer, freed: Callable[[], None]
    ) -> None:
        self.capacity = Capacity(settings)
        self.shutdown = threading.Event()
        self.held: dict[str, Held] = {}
        self._registry = registry
        self._settings = settings
        self._completer = completer
        self._freed = freed
        self._threads = Threads(settings.threads)
        self._loop = asyncio.get_running_loop()

    def take(self, jobs: Sequence[ClaimedJob], worker_id: str) -> None:
        """Take claimed jobs in their order; those that do not fit the concurrency wait here."""
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

    def answered(self, settlement: Settlement, answer: Answer) -> None:
        """Give the capacity of a settled claim back, and say what is worth saying."""
        held = self.held.get(settlement.job.id)
        if held is not None and held.job.claim_no == settlement.job.claim_no:
            del self.held[settlement.job.id]
            self._free(held)
        if answer == "lost":
            log.warning(
                "job %s (%s): its claim %d was lost, its end (%s) changed nothing",
                settlement.job.id, settlement.job.job_type, settlement.job.claim_no, settlement.move,
            )  # fmt: skip
        elif settlement.error is not None:
            self._report(settlement)
        self.start_waiting()
        self._freed()

    def release_waiting(self) -> None:
        """Hand back every claim whose run has not begun."""
        waiting, self.capacity.waiting = list(self.capacity.waiting), type(self.capacity.waiting)()
        for job in waiting:
            held = self.held[job.id]
            held.stop = "shutdown"
            self._completer.put(held.worker_id, released(job))

    def release(self, job: ClaimedJob, worker_id: str) -> None:
        """Hand back a claim that this worker does not know."""
        self._completer.put(worker_id, released(job))

    def stop_runs(self, why: Stop) -> None:
        """Stop what runs: `async def` jobs are cancelled, `def` jobs go on until their function returns."""
        for held in list(self.held.values()):
            if held.task is not None and held.stop is None:
                held.stop = why
                held.task.cancel()
                held.task.add_done_callback(functools.partial(self._stopped, held))
            elif why == "gone":
                held.stop = why
                if held.started is None:
                    self._drop(held)
        if why == "gone":
            self.capacity.waiting.clear()

    @property
    def running(self) -> list[Held]:
        """The claims whose function runs."""
        return [held for held in self.held.values() if held.running]

    def close(self) -> None:
        """Let the idle threads go."""
        self._threads.close()

    def _start(self, held: Held) -> None:
        job, registered = held.job, held.registered
        self.capacity.started += 1
        held.started = self._loop.time()
        settlement = refused(job, registered.retry, self._settings.max_crashes)
        if settlement is not None:
            self._completer.put(held.worker_id, settlement)
            return
        try:
            call = registered.prepare(CurrentJob(job, self.shutdown))
        except Exception as error:
            self._completer.put(held.worker_id, self._judge_error(held, error, ran=False))
            return
        held.running = True
        name = f"job-{job.job_type}-{job.id}"
        if held.in_thread:
            self._threads.submit(name, call, functools.partial(self._from_thread, held))
        else:
            run = cast("Callable[[], Coroutine[object, object, object]]", call)
            held.task = self._loop.create_task(self._run(held, run), name=name)

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

    def _stopped(self, held: Held, task: asyncio.Task[None]) -> None:
        # A task that is cancelled before its first step never enters `_run`.
        if task.cancelled():
            self._ended(held, None, asyncio.CancelledError())

    def _from_thread(self, held: Held, value: object, error: BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._ended, held, value, error)
        except RuntimeError:
            log.warning("job %s ended after its worker had closed: it will run again", held.job.id)

    def _ended(self, held: Held, value: object, error: BaseException | None) -> None:
        assert held.started is not None
        held.running = False
        self.capacity.lasted(self._loop.time() - held.started)
        if self.shutdown.is_set():
            self._freed()
        if isinstance(error, asyncio.CancelledError) and held.stop is not None:
            if held.stop == "shutdown":
                self._completer.put(held.worker_id, released(held.job))
            else:
                self._drop(held)
            return
        settlement = self._judge(held, value) if error is None else self._judge_error(held, error)
        self._completer.put(held.worker_id, settlement)

    def _judge(self, held: Held, value: object) -> Settlement:
        assert held.started is not None
        if isinstance(value, Reschedule):
            return rescheduled(held.job, held.started, value)
        if isinstance(value, Fail):
            return failed_by_reason(held.job, held.started, value)
        try:
            return completed(held.job, held.started, held.registered.encode_result(value))
        except Exception as error:
            return self._judge_error(held, error)

    def _judge_error(self, held: Held, error: BaseException, *, ran: bool = True) -> Settlement:
        assert held.started is not None
        lasted = timedelta(seconds=self._loop.time() - held.started)
        registered = held.registered
        started = held.started if ran else None
        return failed(held.job, registered.retry, registered.fail_on, started, lasted, error, random.random())

    def _drop(self, held: Held) -> None:
        """Forget a claim that is another worker's now."""
        if self.held.get(held.job.id) is held:
            del self.held[held.job.id]
            self._free(held)
            self._freed()

    def _free(self, held: Held) -> None:
        started = held.started is not None
        self.capacity.free(held.registered.job_type, in_thread=held.in_thread, started=started)

    def _report(self, settlement: Settlement) -> None:
        job, error = settlement.job, settlement.error
        assert error is not None
        delay = settlement.delay or timedelta(0)
        after = f"again in {delay.total_seconds():.1f} s" if settlement.will_retry else "no attempt is left"
        log.log(
            settlement.level, "job %s (%s) failed in attempt %d: %s: %s; %s",
            job.id, job.job_type, job.attempt, error.type, error.message, after,
        )  # fmt: skip
