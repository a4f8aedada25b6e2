"""Several worker processes under one: whoever dies is replaced, and signals reach all."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence

from piecework.base.threads import named
from piecework.cli import lifeline
from piecework.cli.lifeline import Child

log = logging.getLogger("piecework.supervisor")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_HEALTHY = 30.0
"""A process that lived for so many seconds had started well: its end is no repeated failure."""
_USAGE = 2


def run(command: Sequence[str], count: int) -> int:
    """Keep `count` processes of `command` running until SIGTERM or SIGINT, and return the exit code. Blocking.

    The first signal lets all of them drain, the next one does not wait. Processes drain too when this one dies. SIGUSR1
    is passed on. Exit code 0 if all drained, 2 if they were called wrongly, else 1.
    """
    return asyncio.run(named("worker-supervisor", _Supervisor(command, count).run))


class _Supervisor:
    def __init__(self, command: Sequence[str], count: int) -> None:
        self._command = command
        self._count = count
        self._children: set[Child] = set()
        self._started: set[Child] = set()
        self._stopping = asyncio.Event()
        self._first_is_up = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._stop)
        loop.add_signal_handler(signal.SIGUSR1, self._have_dumped)
        log.info("%d worker processes are started", self._count)
        async with asyncio.TaskGroup() as slots:
            for number in range(self._count):
                slots.create_task(self._keep(first=number == 0), name=f"worker-process-{number + 1}")
        return self._code

    def _stop(self) -> None:
        self._stopping.set()
        self._first_is_up.set()
        for child in self._children:
            # Also for SIGINT: a process that has no handler yet then ends without a traceback.
            child.signal(signal.SIGTERM)

    def _have_dumped(self) -> None:
        for child in self._started:  # the signal would end one that has no handler yet
            child.signal(signal.SIGUSR1)

    async def _keep(self, *, first: bool) -> None:
        """Keep one process running."""
        if not first:
            # If the command is wrong, it is enough that one process says so.
            await self._first_is_up.wait()
        now, pause = asyncio.get_running_loop().time, _FIRST_PAUSE
        while not self._stopping.is_set():
            began = now()
            pid, code = await self._live()
            if self._stopping.is_set():
                # What the signal ended by its default had not begun to work, or had drained.
                self._code = max(self._code, int(code not in (0, -signal.SIGTERM)))
                return
            if code == _USAGE:
                self._code = _USAGE
                self._stop()
                return
            if now() - began >= _HEALTHY:
                pause = _FIRST_PAUSE
            log.warning("worker process %d %s; another starts in %.1f s", pid, _ending(code), pause)
            await self._rest(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _live(self) -> tuple[int, int]:
        child = await lifeline.start(self._command)
        self._children.add(child)
        try:
            if self._stopping.is_set():
                child.signal(signal.SIGTERM)
            if await child.started():
                self._first_is_up.set()
                self._started.add(child)
            return child.pid, await child.wait()
        finally:
            self._children.discard(child)
            self._started.discard(child)
            self._first_is_up.set()

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}"
