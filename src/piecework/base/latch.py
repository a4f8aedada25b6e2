"""A flag that is raised once, for whoever looks at it, blocks for it or awaits it."""

from __future__ import annotations

import asyncio
import threading


class Latch:
    """Not set to begin with, and once it is set it stays so. Any thread and any event loop may use it."""

    __slots__ = ("_event", "_lock", "_waiting")

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._waiting: set[asyncio.Future[None]] = set()

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._event.is_set()

    def set(self) -> None:
        """Set it, and wake up everybody who waits for that."""
        with self._lock:
            self._event.set()
            waiting, self._waiting = self._waiting, set()
        for future in waiting:
            try:
                future.get_loop().call_soon_threadsafe(_wake, future)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

    async def wait(self) -> None:
        """Wait until it is set."""
        with self._lock:
            if self._event.is_set():
                return
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
        try:
            await future
        finally:
            with self._lock:
                self._waiting.discard(future)

    def block(self, timeout: float | None) -> bool:
        """Block until it is set, or for so many seconds; return whether it is."""
        return self._event.wait(None if timeout is None else min(timeout, threading.TIMEOUT_MAX))


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
