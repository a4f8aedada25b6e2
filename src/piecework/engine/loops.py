"""The loops of a worker: named tasks, started and stopped by their names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

log = logging.getLogger("piecework.worker")
_RESTART_PAUSE = 1.0


class Loops:
    """Keeps loops going: an error that one did not expect is logged, and it starts anew."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, run: Callable[[], Coroutine[object, object, None]]) -> None:
        self._tasks[name] = asyncio.get_running_loop().create_task(_for_ever(name, run), name=name)

    async def stop(self, name: str, within: float = 0.0) -> None:
        """Wait `within` seconds for the loop to end, then cancel it."""
        task = self._tasks.pop(name, None)
        if task is not None:
            await asyncio.wait({task}, timeout=within)
            task.cancel()
            await asyncio.wait({task})


async def _for_ever(name: str, run: Callable[[], Coroutine[object, object, None]]) -> None:
    while True:
        try:
            return await run()
        except Exception:
            log.exception("%s failed and starts anew", name)
        await asyncio.sleep(_RESTART_PAUSE)
