"""One run of growth: all sizes in turns, round by round; what fails is named, and the rest goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import NamedTuple, NotRequired, TypedDict

from bench.child import ROOT
from bench.growth.measure import flush_seconds, run
from bench.peers.measure import Ring, spawn
from bench.peers.process import MeasureError
from bench.peers.run import in_turn
from bench.place import machine
from bench.server import Server
from bench.shapes import Figures
from bench.stress.contestants import CONTESTED
from bench.stress.measure import OURS
from bench.stress.tables import Filling, fill, vacuum

BYTES_OF_JOB = 1_200
"""Disk that a waiting job takes while it is made: its row, its index entries, and as much log."""
SPARE = 3e9  # bytes of disk that stay free
SPAWN = "spawn"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured. The default takes about six minutes on two quiet cores."""

    rounds: int = 3
    scale: float = 1.0
    """Of the jobs and of the backlog."""
    processes: Sequence[int] = (1, 2, 4, 8)
    process_jobs: int = 100_000
    backlogs: Sequence[int] = (0, 10_000, 100_000, 1_000_000, 10_000_000)
    """Jobs that go on waiting behind those that are measured."""
    backlog_jobs: int = 50_000
    keys: Sequence[int] = (0, 1, 50, 1_000, 15_000)
    """Concurrency keys that the jobs have; 0: jobs without one."""
    key_jobs: int = 50_000
    key_seconds: float = 5
    """Then a run with keys is over: jobs of one key run one after the other."""

    def scaled(self, count: int) -> int:
        """A number of jobs."""
        return int(count * self.scale)


class Result(TypedDict):
    """All that a run found out, as it is kept in the JSON file."""

    machine: dict[str, object]
    plan: dict[str, object]
    flush_seconds: float
    figures: dict[str, list[Figures]]
    """By `processes N`, `backlog N`, `keys N` and `spawn`, once per round; none where it failed."""
    failures: list[str]
    run: NotRequired[str]


class Size(NamedTuple):
    """A size of a shape."""

    name: str
    measure: Callable[[], Figures]


class Growth:
    """The figures so far."""

    def __init__(self, server: Server, plan: Plan, keep: Callable[[Result], None] = lambda _: None) -> None:
        """`keep` is called with all that is known after each measurement."""
        self.result: Result = {
            "machine": machine(server), "plan": asdict(plan), "flush_seconds": flush_seconds(ROOT / ".cache"),
            "figures": {}, "failures": [],
        }  # fmt: skip
        self._plan = plan
        self._keep = keep
        self._who = next(who for who in CONTESTED if who.name == OURS)
        self._ring = Ring(server)
        self._open = contextlib.ExitStack()
        self._backlogs: dict[int, str] = {}
        """The databases that have a backlog, from their first round on."""
        self._start = time.monotonic()

    def measure(self, only: Sequence[str] = ()) -> Result:
        """Go through all rounds; `only` names the shapes: processes, backlog, keys, spawn."""
        try:
            self._ring.enter(self._who)
            for turn in range(self._plan.rounds):
                print(f"round {turn + 1} of {self._plan.rounds}")
                for name, sizes in self._shapes().items():
                    for size in in_turn(sizes, turn, self._plan.rounds) if not only or name in only else ():
                        self._add(size, turn)
        finally:
            self._open.close()
            self._ring.close()
        self.result["machine"]["load_after"] = round(os.getloadavg()[0], 1)
        self._keep(self.result)
        return self.result

    def _shapes(self) -> dict[str, list[Size]]:
        plan = self._plan
        return {
            "spawn": [Size(SPAWN, self._spawn)],
            "processes": [Size(f"processes {count}", partial(self._processes, count)) for count in plan.processes],
            "keys": [Size(f"keys {count}", partial(self._keys, count)) for count in plan.keys],
            "backlog": [
                Size(f"backlog {plan.scaled(count)}", partial(self._backlog, plan.scaled(count)))
                for count in plan.backlogs
            ],
        }

    def _add(self, size: Size, turn: int) -> None:
        figures: Figures = {}
        try:
            figures = size.measure()
        except Exception as error:  # whatever it is, the others go on
            said = f"{size.name}, round {turn + 1}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            self.result["failures"].append(said)
            shown = f"FAILED: {said}"
        else:
            shown = ", ".join(f"{key} {value:,.4g}" for key, value in list(figures.items())[:9] if value is not None)
        self.result["figures"].setdefault(size.name, []).append(figures)
        print(f"  {time.monotonic() - self._start:5.0f} s  {size.name:18} {shown}", flush=True)
        self._keep(self.result)

    def _spawn(self) -> Figures:
        return spawn(self._ring, self._who, "bulk", self._plan.scaled(self._plan.backlog_jobs))

    def _processes(self, count: int) -> Figures:
        jobs = self._plan.scaled(self._plan.process_jobs)
        with self._ring.database(self._who, "growth") as dsn:
            fill(OURS, dsn, jobs)
            vacuum(dsn)
            return run(self._ring, self._who, dsn, "growth", jobs, count)

    def _keys(self, count: int) -> Figures:
        jobs = self._plan.scaled(self._plan.key_jobs)
        with self._ring.database(self._who, "growth") as dsn:
            fill(OURS, dsn, jobs, Filling(keys=count or None))
            vacuum(dsn)
            return run(self._ring, self._who, dsn, "growth", jobs, limit=self._plan.key_seconds, empty=False)

    def _backlog(self, waiting: int) -> Figures:
        """Before each round as many jobs are put at the end as it takes from the front: the backlog stays as it is."""
        jobs, name = self._plan.scaled(self._plan.backlog_jobs), f"backlog_{waiting}"
        if waiting not in self._backlogs:
            self._backlogs[waiting] = self._open.enter_context(self._waiting(waiting, name))
        dsn = self._backlogs[waiting]
        fill(OURS, dsn, jobs)
        vacuum(dsn)
        return run(self._ring, self._who, dsn, name, jobs, empty=False)

    @contextlib.contextmanager
    def _waiting(self, waiting: int, name: str) -> Iterator[str]:
        need, free = waiting * BYTES_OF_JOB + SPARE, shutil.disk_usage(ROOT).free
        if free < need:
            raise MeasureError(f"{waiting:,} jobs want {need / 1e9:.0f} GB of disk, {free / 1e9:.0f} GB are free")
        with self._ring.database(self._who, name) as dsn:
            began = time.monotonic()
            fill(OURS, dsn, waiting)
            print(f"         {waiting:,} waiting jobs made in {time.monotonic() - began:.0f} s", flush=True)
            yield dsn
