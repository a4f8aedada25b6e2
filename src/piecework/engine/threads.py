"""A bounded pool of threads for `def` jobs."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Threads:
    """Runs calls in at most `most` threads. A thread that runs a job bears the job's name.

    A thread cannot be stopped: whoever shuts down waits for it, or ends the process.
    """

    def __init__(self, most: int) -> None:
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="piecework-thread")

    def submit(self, name: str, call: Callable[[], object], done: Callable[[Future[object]], None]) -> None:
        """Run `call` in a thread, in a copy of the current context; `done` is called there with how it ended."""
        context = contextvars.copy_context()
        self._pool.submit(_run_named, name, context, call).add_done_callback(done)

    def close(self) -> None:
        """Let idle threads go; do not wait for busy ones."""
        self._pool.shutdown(wait=False)


def _run_named(name: str, context: contextvars.Context, call: Callable[[], object]) -> object:
    thread = threading.current_thread()
    idle_name, thread.name = thread.name, name
    try:
        return context.run(call)
    finally:
        thread.name = idle_name
