"""Ends runs before they end by themselves: those over their timeout, those whose jobs are cancelled."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import NoReturn

from piecework.engine.deadlines import Deadlines
from piecework.engine.facts import facts_of
from piecework.engine.held import Held, Stop
from piecework.work.current_job import request_cancel

log = logging.getLogger("piecework.job")
PATIENCE = timedelta(seconds=5)


def too_late(held: Held) -> Callable[[], NoReturn]:
    """Return what runs in the place of a job whose lease is over before its first step: it is handed back."""
    held.stop = held.stop or "release"

    def call() -> NoReturn:
        raise asyncio.CancelledError

    return call


class Stopping:
    """Stops runs, by one heap of deadlines and one timer of the loop. Used on the worker's loop.

    An `async def` job is cancelled. A `def` job goes on until its function returns; `job.cancel_requested` asks it to.
    What goes on for longer than `PATIENCE` after that is named in the log, once.

    Args:
        never_ran: called with a claim whose task was cancelled before its first step.
    """

    def __init__(self, never_ran: Callable[[Held], None]) -> None:
        self._never_ran = never_ran
        self._loop = asyncio.get_running_loop()
        self._deadlines: Deadlines[Held] = Deadlines()
        self._timer: asyncio.TimerHandle | None = None

    def limit(self, held: Held, timeout: timedelta) -> None:
        """Stop the run should it take longer than `timeout` from now."""
        self._expect(held, timeout)

    def stop(self, held: Held, why: Stop) -> None:
        """Stop a run, for the first time or, if it takes no notice, once more."""
        if held.stop is None:
            held.stop = why
            if why in ("cancel", "timeout"):
                for claim in held.claims:
                    assert claim.current is not None
                    request_cancel(claim.current)
                self._expect(held, PATIENCE)
            else:
                self.ended(held)
        if held.task is not None:
            held.task.cancel()
            held.task.add_done_callback(functools.partial(self._done, held))

    def end_unbegun(self, claims: Iterable[Held]) -> None:
        """End runs whose tasks the application has cancelled before their first step: nothing has told of it."""
        tasks = [(held.batch or held, (held.batch or held).task) for held in claims]
        for held, task in tasks:
            if task is not None:
                self._done(held, task)

    def ended(self, held: Held) -> None:
        """Note that a run has ended, or that nothing more is expected of it."""
        if held.deadline is not None:
            self._deadlines.strike(held.deadline)

    def close(self) -> None:
        """Let the timer go."""
        if self._timer is not None:
            self._timer.cancel()

    def _expect(self, held: Held, after: timedelta) -> None:
        if held.deadline is not None:
            self._deadlines.strike(held.deadline)
        held.deadline = self._deadlines.add(self._loop.time() + after.total_seconds(), held)
        self._set_timer()

    def _set_timer(self) -> None:
        earliest = self._deadlines.earliest
        if earliest is None or (self._timer is not None and self._timer.when() <= earliest):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(earliest, self._ring)

    def _ring(self) -> None:
        self._timer = None
        # A timer may ring a little early, by the resolution of its clock.
        now = self._loop.time() + 1e-6
        for held in self._deadlines.due(now):
            if held.stop is None:
                self.stop(held, "timeout")
            elif held.stop in ("cancel", "timeout"):
                _report(held)
        self._set_timer()

    def _done(self, held: Held, task: asyncio.Task[None]) -> None:
        # A task that is cancelled before its first step never enters the run.
        if task.cancelled() and held.running:
            self._never_ran(held)


def late(held: Held, error: BaseException | None) -> TimeoutError:
    """Return the error of a run that was stopped by its timeout, with the traceback of where it was then."""
    timeout = TimeoutError(f"the run took longer than its timeout of {held.registered.timeout}")
    if error is not None and not isinstance(error, asyncio.CancelledError):
        timeout.__cause__ = error
    return timeout.with_traceback(None if error is None else error.__traceback__)


def _report(held: Held) -> None:
    reason = f"its timeout of {held.registered.timeout}" if held.stop == "timeout" else "it was cancelled"
    why = "it runs in a thread, which cannot be stopped" if held.in_thread else "it ignores that it was cancelled"
    log.warning(
        "job %s (%s) goes on %s after %s: %s; its capacity stays taken until it ends",
        held.job.id, held.job.job_type, PATIENCE, reason, why, extra=facts_of(held.job, held.worker_id),
    )  # fmt: skip
