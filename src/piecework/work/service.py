"""What all spawners and handles of one `Jobs` share: the way to its store, from whatever loop or thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TypeVar

from piecework.base.errors import NotOpen
from piecework.base.threads import named
from piecework.store.statements import Statements
from piecework.store.store import Store
from piecework.work.registry import Registry
from piecework.work.resource import Resources
from piecework.work.waiters import Waiters

T = TypeVar("T")

_HOW_TO_OPEN = "open it around everything that uses it: `async with jobs:`, or `with jobs:` without asyncio"


@dataclass(frozen=True, slots=True)
class _Opened:
    store: Store
    waiters: Waiters
    loop: asyncio.AbstractEventLoop
    pid: int


class Service:
    """The registry of one `Jobs`, and its store while it is open. Made without I/O.

    The store belongs to the loop that opened it: calls from other loops and threads are handed over to that loop.
    """

    def __init__(self, *, schema: str, max_config_size: int) -> None:
        self.registry = Registry()
        self.resources = Resources()
        self.statements = Statements(schema)
        """The SQL of the schema: what joins a transaction of the caller's needs no more than that."""
        self.max_config_size = max_config_size
        self._opened: _Opened | None = None
        self._lock = threading.Lock()

    def open(self, store: Store) -> None:
        """Take an open store into use; called on the loop that opened it."""
        self._opened = _Opened(store, Waiters(), asyncio.get_running_loop(), os.getpid())

    def close(self) -> None:
        """Give the store up, and end what waits for jobs; called on the same loop, before the store is closed."""
        with self._lock:  # what was submitted before this is in the loop's line already, what comes later is refused
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.waiters.close()

    @property
    def store(self) -> Store:
        """The open store.

        Raises:
            NotOpen: the `Jobs` is not open in this process.
        """
        return self._current().store

    @property
    def waiters(self) -> Waiters:
        """Who waits for what, while the `Jobs` is open.

        Raises:
            NotOpen: the `Jobs` is not open in this process.
        """
        return self._current().waiters

    @property
    def on_owning_loop(self) -> bool:
        """Whether the caller runs on the loop that opened the `Jobs`.

        Raises:
            NotOpen: the `Jobs` is not open in this process.
        """
        return self._current().loop is asyncio._get_running_loop()

    async def run(self, call: Callable[[Store], Coroutine[object, object, T]]) -> T:
        """Run `call` with the store, on the owning loop, and return what it returns.

        Raises:
            NotOpen: the `Jobs` is not open in this process, or was closed meanwhile.
        """
        opened = self._current()
        if opened.loop is asyncio.get_running_loop():
            return await call(opened.store)
        handed_over = self._submit(call)
        try:
            return await asyncio.wrap_future(handed_over)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise _closed_meanwhile() from None

    def run_sync(self, call: Callable[[Store], Coroutine[object, object, T]], verb: str) -> T:
        """Run `call` as `run` does, from any thread but that of the owning loop, and block until it is done.

        Args:
            call: takes the store.
            verb: the method that the user called, for the message.

        Raises:
            NotOpen: the `Jobs` is not open in this process, or was closed meanwhile.
            RuntimeError: the owning loop would wait for itself.
        """
        if self.on_owning_loop:
            raise RuntimeError(f"{verb}_sync() would block the event loop that has to do its work: "
                               f"write `await ….{verb}(…)` here")
        handed_over = self._submit(call)
        try:
            return handed_over.result()
        except concurrent.futures.CancelledError:
            raise _closed_meanwhile() from None
        except BaseException:
            handed_over.cancel()
            raise

    def _submit(self, call: Callable[[Store], Coroutine[object, object, T]]) -> concurrent.futures.Future[T]:
        with self._lock:
            opened = self._current()
            if opened.loop.is_closed():
                raise NotOpen(f"the event loop that opened this Jobs has ended without closing it: {_HOW_TO_OPEN}")
            return asyncio.run_coroutine_threadsafe(named("job-call", lambda: call(opened.store)), opened.loop)

    def _current(self) -> _Opened:
        opened = self._opened
        if opened is None:
            raise NotOpen(f"this Jobs is not open: {_HOW_TO_OPEN}")
        if opened.pid != os.getpid():
            raise NotOpen("this Jobs was opened before the process forked, and its connections belong to the parent: "
                          "open it in each child process")
        return opened


def _closed_meanwhile() -> NotOpen:
    return NotOpen("this Jobs was closed while the call was under way: whether it took effect is not known")
