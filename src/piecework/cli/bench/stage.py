"""A schema of one shape, and the processes on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import click

from piecework.cli.bench.plan import Plan
from piecework.cli.bench.processes import Process, Starter
from piecework.cli.bench.progress import Progress
from piecework.cli.bench.server_cpu import ServerCpu, machine_seconds
from piecework.cli.bench.task import Task
from piecework.store.measuring import Counters, Gauge
from piecework.store.overview import list_workers
from piecework.store.store import Store

T = TypeVar("T", int, float)

_LOOK = 0.01
_STARTS_WITHIN = 60.0
_GONE_WITHIN = 5.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What the server counted and used in a while; None: not known here."""

    commits: int
    dead_rows: int
    """Those that are left."""
    wal_bytes: int | None
    statements: int | None
    cpu: float | None
    busy: float | None
    """Cores of this machine that were busy meanwhile, with whatever."""


@dataclass(frozen=True, slots=True)
class Before:
    """How everything stood before."""

    at: float
    counters: Counters
    cpu: float | None
    busy: float | None


@dataclass
class Stage:
    """Where one shape is measured. Close it, whatever happens."""

    store: Store
    gauge: Gauge
    starter: Starter
    cpu: ServerCpu | None
    plan: Plan
    progress: Progress
    workers: list[Process] = field(default_factory=list[Process])
    _started: list[Process] = field(default_factory=list[Process])

    async def start_workers(self, *, ready: bool) -> None:
        """Start the workers.

        Args:
            ready: whether to wait until all of them claim jobs.
        """
        for _ in range(self.plan.processes):
            self.workers.append(await self.starter.worker(self.plan.concurrency))
            self._started.append(self.workers[-1])
        deadline = time.monotonic() + _STARTS_WITHIN
        while ready and len(await list_workers(self.store)) < self.plan.processes:
            self._look_after(self.workers)
            if time.monotonic() > deadline:
                raise click.ClickException(f"the workers did not begin within {_STARTS_WITHIN:.0f} s")
            self.progress.show("the workers start")
            await asyncio.sleep(_LOOK * 5)

    async def spawn(self, task: Task) -> Process:
        """Have a process spawn, and wait for its end."""
        spawner = await self.starter.spawner(task)
        self._started.append(spawner)
        while not spawner.ended:
            self._look_after(self.workers)
            self.progress.show(f"{spawner.read().count:,} jobs spawned{self._ran_too()}")
            await asyncio.sleep(_LOOK)
        self._look_after([spawner])
        return spawner

    async def until_drained(self, spawned: int, patience: float) -> bool:
        """Wait until the jobs have ended; False: they have not within so many seconds from the first start on."""
        deadline, began = time.monotonic() + _STARTS_WITHIN, False
        while time.monotonic() < deadline:
            if not began and self.ran:
                deadline, began = time.monotonic() + patience, True
            self._look_after(self.workers)
            self.progress.show(f"{spawned:,} jobs spawned{self._ran_too()}")
            if self.ran >= spawned and await self.gauge.drained():
                return True
            await asyncio.sleep(_LOOK)
        return False

    async def stop_workers(self) -> None:
        """Let the workers drain and end."""
        await asyncio.gather(*(worker.stop() for worker in self.workers))

    @property
    def ran(self) -> int:
        """How many times a job was executed."""
        return sum(worker.read().count for worker in self.workers)

    async def before(self) -> Before:
        """Read how everything stands."""
        await self._until_alone()
        counters = await self.gauge.counters()
        return Before(time.monotonic(), counters, None if self.cpu is None else self.cpu.seconds(), machine_seconds())

    async def cost(self, before: Before) -> Cost:
        """Return what has come to what was read before."""
        now, old = await self.before(), before.counters
        new, busy = now.counters, _more(before.busy, now.busy)
        return Cost(
            commits=new.commits - old.commits, dead_rows=new.dead_rows, wal_bytes=_more(old.wal_bytes, new.wal_bytes),
            statements=_more(old.statements, new.statements), cpu=_more(before.cpu, now.cpu),
            busy=None if busy is None else busy / (now.at - before.at),
        )  # fmt: skip

    async def close(self) -> None:
        """End what still runs."""
        await asyncio.gather(*(process.kill() for process in self._started))

    async def _until_alone(self) -> None:
        """Wait until the sessions of processes that ended are gone: then all that they did is counted."""
        deadline = time.monotonic() + _GONE_WITHIN
        while await self.gauge.sessions() and time.monotonic() < deadline:  # noqa: ASYNC110 - only the server knows
            await asyncio.sleep(_LOOK * 2)

    def _look_after(self, processes: Sequence[Process]) -> None:
        for process in processes:
            process.must_be_well()

    def _ran_too(self) -> str:
        return f", {self.ran:,} done" if self.workers else ""


def _more(old: T | None, new: T | None) -> T | None:
    return None if old is None or new is None else new - old
