"""The demo's two worker processes: ordinary `piecework worker`s, one of which does not live to see the end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import click

from piecework.cli import lifeline
from piecework.cli.lifeline import Child

_STOPS_WITHIN = 10.0
_IN_FLIGHT = 0.05
"""What a process had sent to the database before it was frozen is through after so many seconds."""
_LOG_TAIL = 15


class DemoWorker:
    """One worker process, with its log in a file."""

    def __init__(self, number: int, child: Child, log: Path) -> None:
        self.number = number
        self._child = child
        self._log = log
        self.killed_at: int | None = None
        """When it was gone after SIGKILL, in nanoseconds of the monotonic clock."""

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def name(self) -> str:
        return f"worker {self.number} (pid {self.pid})"

    def must_live(self) -> None:
        """Raise with the end of its log if it ended of itself."""
        if self.killed_at is None and self._child.ended:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-_LOG_TAIL:])
            raise click.ClickException(f"{self.name} ended by itself. The end of its log:\n{tail}")

    async def freeze(self) -> None:
        """Stop it in its tracks; on return what it had sent to the database has been answered."""
        self._child.signal(signal.SIGSTOP)
        await asyncio.sleep(_IN_FLIGHT)

    def thaw(self) -> None:
        """Let it go on."""
        self._child.signal(signal.SIGCONT)

    async def kill(self) -> None:
        """Kill it by SIGKILL, which no program can see coming."""
        self._child.signal(signal.SIGKILL)
        await self._child.wait()
        self.killed_at = time.monotonic_ns()

    async def stop(self) -> None:
        """Let it drain; kill it if it does not end."""
        if self._child.ended:
            return
        self._child.signal(signal.SIGCONT)
        self._child.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOPS_WITHIN):
                await self._child.wait()
        except TimeoutError:
            self._child.signal(signal.SIGKILL)
            await self._child.wait()


async def start_worker(
    number: int, log: Path, *, concurrency: int, lease: timedelta, surroundings: Mapping[str, str]
) -> DemoWorker:
    """Start one worker on the demo's jobs."""
    command = [
        sys.executable, "-P", "-m", "piecework", "worker", "piecework.cli.demo.work:jobs",
        "--concurrency", str(concurrency), "--threads", str(concurrency), "--grace", "5",
        "--lease", str(lease.total_seconds()),
    ]  # fmt: skip
    with log.open("wb") as stderr:
        child = await lifeline.start(command, env=os.environ | surroundings, stderr=stderr)
    return DemoWorker(number, child, log)
