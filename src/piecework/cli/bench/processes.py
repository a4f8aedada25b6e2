"""The processes of the bench: ordinary `piecework worker`s, and such that spawn."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from psycopg.conninfo import make_conninfo

from piecework.cli import lifeline
from piecework.cli.bench import meter, variables
from piecework.cli.bench.meter import Reading
from piecework.cli.bench.task import Task
from piecework.cli.lifeline import Child
from piecework.work.database import DSN_VARIABLE, LISTEN_VARIABLE

_STOPS_WITHIN = 20.0
_LOG_TAIL = 15


class Process:
    """A process, with its log in a file and its meter in the same folder."""

    def __init__(self, name: str, child: Child, folder: Path) -> None:
        self._name = name
        self._child = child
        self._folder = folder

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._child.ended

    def read(self) -> Reading:
        """Read its meter, while it lives or afterwards."""
        return meter.read(self._folder, self._child.pid)

    def waits(self) -> list[float]:
        """Return the seconds that it has kept."""
        return meter.waits(self._folder, self._child.pid)

    def must_be_well(self) -> None:
        """Raise with the end of its log if it ended of itself, or in another way than it should."""
        code = self._child.process.returncode
        if code is not None and (code or self._name == "worker"):
            log = self._folder / f"{self._name}.log"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_TAIL:])
            raise click.ClickException(f"a {self._name} process of the bench ended by itself. Its log:\n{tail}")

    async def stop(self) -> None:
        """Let it end what it has begun; kill it if it does not end."""
        self._child.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOPS_WITHIN):
                await self._child.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End it at once."""
        self._child.signal(signal.SIGKILL)
        await self._child.wait()


@dataclass(frozen=True, slots=True)
class Starter:
    """Starts processes on one schema. They, and their sessions, are known by its name."""

    dsn: str
    schema: str
    folder: Path

    async def worker(self, concurrency: int) -> Process:
        """Start a worker."""
        return await self._start("worker", [
            "piecework", "worker", "piecework.cli.bench.work:jobs", "--concurrency", str(concurrency),
            "--log-level", "warning",
        ])  # fmt: skip

    async def spawner(self, task: Task) -> Process:
        """Start a process that spawns; it ends when it is done."""
        return await self._start("spawner", ["piecework.cli.bench.spawner", *task.arguments()])

    async def _start(self, name: str, module: Sequence[str]) -> Process:
        surroundings = {
            variables.SCHEMA: self.schema, variables.FOLDER: str(self.folder),
            DSN_VARIABLE: make_conninfo(self.dsn, application_name=self.schema), LISTEN_VARIABLE: "",
        }  # fmt: skip
        with (self.folder / f"{name}.log").open("ab") as log:
            child = await lifeline.start(
                [sys.executable, "-P", "-m", *module], env=os.environ | surroundings, stderr=log
            )
        return Process(name, child, self.folder)
