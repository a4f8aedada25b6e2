"""One measurement of growth: workers meet a table that was filled before, all at the same moment."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg

from bench.growth.sampling import KINDS, Sampler, Seen
from bench.peers.contestants import Contestant
from bench.peers.measure import Ring
from bench.peers.process import MeasureError, Process
from bench.server import Reading
from bench.shapes import Figures
from bench.stress.measure import clock_of, end

LOOK = 0.002  # seconds
READY_WITHIN = 60.0  # seconds
LIMIT = 120.0  # seconds for one measurement
STATEMENTS = ("claim", "settle")
FLUSHES, FLUSHED = 100, b"x" * 8192
WAIT = "waiting: "
"""Begins the keys of what sessions waited for."""


class Point(NamedTuple):
    """How a run stood at a moment."""

    count: int
    server: Reading
    processes: Mapping[int, float]
    worker_cpu: float
    buffers: Mapping[str, int]

    @classmethod
    def now(cls, ring: Ring, database: str, workers: Sequence[Process]) -> Point:
        """Read everything."""
        return cls(
            ring.tallies.count(), ring.server.read(database), ring.server.processes(),
            sum(worker.cpu() for worker in workers),
            {word: ring.server.buffers(database, f".{word}") for word in STATEMENTS},
        )  # fmt: skip


def run(
    ring: Ring, who: Contestant, dsn: str, database: str, count: int, processes: int = 1, *, limit: float = LIMIT,
    empty: bool = True,
) -> Figures:  # fmt: skip
    """Let workers run so many of the jobs that are there, or what they can until time is up.

    Args:
        empty: whether these are all that there are: then it is timed until the database says that none is left.
    """
    began, flushes = clock_of(dsn), ring.server.flushes()
    ring.tallies.clear()
    with ring.working(who, dsn, processes) as workers:
        sampler = Sampler(dsn)
        with held_back(dsn, began, workers):
            before = Point.now(ring, database, workers)
        sampler.start()
        whole = _follow(ring, workers, count, limit)
        asked, ended = 0, time.monotonic()
        if whole and empty:
            with psycopg.connect(dsn, autocommit=True) as conn:
                ended, asked = ring.wait_for_nothing_left(who, conn, ended + limit)
        after = Point.now(ring, database, workers)
        seen = sampler.stop()
        first = min((slot.first for slot in ring.tallies.slots()), default=ended)
        end(ring, who, dsn, workers, began)
    if not after.count:
        raise MeasureError(f"no job had run after {limit:.0f} s")
    return {
        "jobs_per_s": after.count / (ended - first),
        "executed": float(after.count),
        "complete": float(whole),
        **_costs(before, after, seen, asked),
        "flushes": (ring.server.flushes() - flushes) / after.count,
        "seconds": ended - first,
        "samples": float(seen.samples),
        "runnable": seen.runnable,
        **{f"{WAIT}{what}": number for what, number in sorted(seen.waiting.items())},
    }


@contextmanager
def held_back(dsn: str, began: object, workers: Sequence[Process]) -> Generator[None]:
    """Lock the jobs until all workers have come up, so that none has begun while another still starts."""
    with psycopg.connect(dsn, autocommit=True) as looking, psycopg.connect(dsn) as holding:
        holding.execute("LOCK TABLE piecework.jobs IN ACCESS EXCLUSIVE MODE")
        until = time.monotonic() + READY_WITHIN
        up = b"SELECT count(*) FROM piecework.workers WHERE started_at >= %s"
        while looking.execute(up, [began]).fetchone() != (len(workers),):
            if time.monotonic() > until:
                raise MeasureError(f"{len(workers)} workers had not come up after {READY_WITHIN:.0f} s")
            for worker in workers:
                worker.must_live()
            time.sleep(LOOK)
        time.sleep(0.2)
        yield


def _follow(ring: Ring, workers: Sequence[Process], count: int, limit: float) -> bool:
    """Wait for so many executions; False when time is up."""
    until = time.monotonic() + limit
    while ring.tallies.count() < count:
        if time.monotonic() > until:
            return False
        for worker in workers:
            worker.must_live()
        time.sleep(LOOK)
    return True


def _costs(before: Point, after: Point, seen: Seen, asked: int) -> Figures:
    """What a job cost, without the questions of the measurement."""
    count, cost = after.count, after.server.since(before.server)
    by_kind = dict.fromkeys(KINDS, 0.0)
    for pid, cpu in after.processes.items():
        by_kind[seen.kinds.get(pid, "other sessions")] += cpu - before.processes.get(pid, 0.0)
    return {
        "worker_cpu_us": (after.worker_cpu - before.worker_cpu) / count * 1e6,
        "server_cpu_us": cost.cpu / count * 1e6,
        **{f"{kind} cpu_us": cpu / count * 1e6 for kind, cpu in by_kind.items()},
        "wal_bytes": cost.wal / count,
        "statements": (cost.statements - asked) / count,
        **{f"{word} buffers": (after.buffers[word] - before.buffers[word]) / count for word in STATEMENTS},
    }


def flush_seconds(folder: Path) -> float:
    """How long the disk takes to keep a page: the median of some, written one after the other."""
    path = folder / "flushes"
    found: list[float] = []
    with open(path, "wb", buffering=0) as file:
        file.write(FLUSHED * FLUSHES)
        os.fsync(file.fileno())
        for number in range(FLUSHES):
            file.seek(number * len(FLUSHED))
            start = time.perf_counter()
            file.write(FLUSHED)
            os.fdatasync(file.fileno())
            found.append(time.perf_counter() - start)
    path.unlink()
    return statistics.median(found)
