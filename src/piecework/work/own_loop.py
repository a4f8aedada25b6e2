"""An event loop in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import TypeVar

from piecework.base.threads import named

T = TypeVar("T")


class OwnLoop:
    """Runs coroutines for threads without an event loop, until it is stopped. Started where it is made."""

    def __init__(self) -> None:
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="piecework-loop", daemon=True)
        self._thread.start()
        self._loop = self._started.result()

    def run(self, call: Callable[[], Coroutine[object, object, T]]) -> T:
        """Run a call on the loop and block until it is done; an interrupt cancels it."""
        future = asyncio.run_coroutine_threadsafe(named("job-call", call), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Cancel what still runs on the loop, and end its thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _main(self) -> None:
        asyncio.run(named("piecework-loop", self._serve))

    async def _serve(self) -> None:
        self._started.set_result(asyncio.get_running_loop())
        await self._stop.wait()
