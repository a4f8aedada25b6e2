"""A bounded pool of threads for `def` jobs."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

_IDLE = "piecework-thread"
Ended: TypeAlias = Callable[[object, BaseException | None], None]
"""Told in the thread how a call ended: what it returned, or what it raised."""


class Threads:
    """Runs calls in at most `most` threads. A thread that runs a job bears the job's name.

    A thread cannot be stopped: whoever shuts down waits for it. Its process does not, it may end at any time, which is
    why this is none of `concurrent.futures`.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._threads = 0
        self._idle = threading.Semaphore(0)
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def submit(
        self, name: str, call: Callable[[], object], ended: Ended, context: contextvars.Context | None = None
    ) -> None:
        """Run `call` in a thread, in `context`, else in a copy of the current one. Called by one thread alone."""
        context = contextvars.copy_context() if context is None else context
        self._calls.put(lambda: _run_named(name, context, call, ended))
        if not self._idle.acquire(blocking=False) and self._threads < self._most:
            self._threads += 1
            _JobThread(target=self._work, name=_IDLE, daemon=True).start()

    def close(self) -> None:
        """Let idle threads go; do not wait for busy ones."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # while this thread waits, nothing of the job is kept
            self._idle.release()
        self._calls.put(None)


class _JobThread(threading.Thread):
    """A thread of a pool, told apart from the others of the worker."""


def names_of_running() -> list[str]:
    """Return the names of the jobs that run in threads of this process, whichever worker they belong to."""
    return [each.name for each in threading.enumerate() if isinstance(each, _JobThread) and each.name != _IDLE]


def _run_named(name: str, context: contextvars.Context, call: Callable[[], object], ended: Ended) -> None:
    thread = threading.current_thread()
    idle_name, thread.name = thread.name, name
    value: object = None
    failure: BaseException | None = None
    try:
        value = context.run(call)
    except BaseException as error:
        failure = error
    thread.name = idle_name
    ended(value, failure)
