"""The measurements of one contestant, through its driver's processes. Each has a fresh database."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from bench.peers.contestants import Contestant
from bench.peers.process import LIMIT, MeasureError, Process
from bench.peers.tally import Tallies
from bench.server import Reading, Server
from bench.shapes import Figures

LOOK = 0.005
START_LIMIT = 30.0  # seconds until a worker runs its first job
KNOCK_AGAIN = 3.0
SETTLE_DOWN = 1.0
TOLD = 11.0
"""Seconds after which a session that rests has told the server how many transactions it had."""


class HistoryError(MeasureError):
    """A queue of ours that did not finish each job once."""


class Ring:
    """Where the contestants meet: the server, the tally, and a template database for each."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.tallies = Tallies()
        self._info: dict[str, dict[str, Any]] = {}

    def close(self) -> None:
        """Remove the tally; the databases go with the server."""
        self.tallies.close()

    def enter(self, contestant: Contestant) -> str:
        """Make a contestant's tables once, in a database that the measurements copy; return its version."""
        with self.server.database("setup") as dsn:
            self.run(contestant, dsn, "setup")
            # A database that nobody connects to is none that autovacuum looks into.
            self.server.create(_template(contestant), template="setup")
            self._info[contestant.name] = info = self.run(contestant, dsn, "info")
        return str(info["version"])

    def info(self, contestant: Contestant) -> dict[str, Any]:
        """What its driver says about it."""
        return self._info[contestant.name]

    @contextmanager
    def database(self, contestant: Contestant, name: str = "bench") -> Generator[str]:
        """A fresh copy of the contestant's empty tables, never analyzed, and a tally at nought."""
        with self.server.database(name, template=_template(contestant)) as dsn:
            self.tallies.clear()
            yield dsn

    def start(self, contestant: Contestant, dsn: str, role: str, slot: int = 0, **options: object) -> Process:
        """Start a process of a driver."""
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        environ = contestant.environ() | {
            "BENCH_DSN": _url(dsn), "BENCH_TALLY": str(self.tallies.path), "BENCH_SLOT": str(slot)
        }  # fmt: skip
        return Process(f"{contestant.name}, {role}", [*contestant.command(), role, *words], environ)

    def run(self, contestant: Contestant, dsn: str, role: str, **options: object) -> dict[str, Any]:
        """Let a driver's process play a role to its end, and return what it says."""
        process = self.start(contestant, dsn, role, **options)
        try:
            return process.result()
        finally:
            process.kill()

    @contextmanager
    def working(self, contestant: Contestant, dsn: str, processes: int = 1) -> Generator[list[Process]]:
        """Run workers; they are killed in the end, so that nothing of their shutdown is measured."""
        with contextlib.ExitStack() as stack:
            workers: list[Process] = []
            for slot in range(processes):
                worker = self.start(contestant, dsn, "work", slot, concurrency=contestant.concurrency)
                stack.callback(worker.kill)
                workers.append(worker)
            yield workers

    def warm(self, contestant: Contestant, dsn: str, workers: list[Process]) -> int:
        """Wait until the worker has run a first job, then let it come to rest; return how many it took."""
        until, spawned = time.monotonic() + START_LIMIT, 0
        while not self.tallies.count():
            # One that comes before the worker listens may lie until its next poll, which can be a minute away.
            self.run(contestant, dsn, "enqueue", n=1, mode="serial")
            spawned += 1
            with contextlib.suppress(MeasureError):
                self.wait(1, workers, min(time.monotonic() + KNOCK_AGAIN, until))
            if time.monotonic() > until:
                raise MeasureError(f"the worker did not run a job within {START_LIMIT:.0f} s")
        time.sleep(SETTLE_DOWN)
        return spawned

    def wait(self, count: int, workers: list[Process], until: float) -> None:
        """Wait for so many executions."""
        while (done := self.tallies.count()) < count:
            if time.monotonic() > until:
                raise MeasureError(f"{done} of {count} jobs had run when time was up")
            for worker in workers:
                worker.must_live()
            time.sleep(LOOK)

    def wait_for_nothing_left(
        self, contestant: Contestant, conn: psycopg.Connection, until: float
    ) -> tuple[float, int]:
        """Wait until the database says that no job is left; return the clock, and how often it was asked."""
        query = str(self.info(contestant)["left"]).encode()
        for asked in itertools.count(1):
            if conn.execute(query).fetchone() == (False,):
                return time.monotonic(), asked
            if time.monotonic() > until:
                break
            time.sleep(LOOK)
        raise MeasureError("jobs were still left in the database when time was up")

    def check(self, contestant: Contestant, dsn: str, count: int) -> None:
        """See that the history of a queue of ours has each job once; the others are believed."""
        query = self.info(contestant).get("finished")
        if query is None:
            return
        with psycopg.connect(dsn, autocommit=True) as conn:
            self.wait_for_nothing_left(contestant, conn, time.monotonic() + START_LIMIT)
            found = conn.execute(str(query).encode()).fetchone()
        if found != (count, count):
            rows, different = found or (0, 0)
            raise HistoryError(f"{count} jobs were spawned, the history has {rows} rows of {different} different ones")


def drain(ring: Ring, contestant: Contestant, processes: int) -> Figures:
    """Fill a table in bulk, vacuum and analyze it, then empty it; both halves are measured."""
    count = contestant.jobs
    with ring.database(contestant) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        empty = ring.server.read("bench")
        bulk = bool(ring.info(contestant)["bulk"])
        filling = ring.run(contestant, dsn, "enqueue", n=count, mode="bulk" if bulk else "c10")
        filled = ring.server.read("bench").since(empty)
        conn.execute("VACUUM ANALYZE")
        before, until = ring.server.read("bench"), time.monotonic() + LIMIT
        with ring.working(contestant, dsn, processes) as workers:
            ring.wait(count, workers, until)
            ended, asked = ring.wait_for_nothing_left(contestant, conn, until)
            cost = ring.server.read("bench").since(before)
            slots = ring.tallies.slots()
            cpu = sum(worker.cpu() for worker in workers) - sum(slot.cpu for slot in slots)
        done = ring.tallies.count()
        ring.check(contestant, dsn, count)
    return {
        "jobs_per_s": count / (ended - min(slot.first for slot in slots)),
        "executed": float(done),
        **_per_job(cost, count, cpu, asked),
        **(_spawned("bulk", filling, filled, count) if bulk else {}),
    }


def spawn(ring: Ring, contestant: Contestant, mode: str, count: int) -> Figures:
    """Awaited spawns one by one (serial), or by ten concurrent callers (c10)."""
    with ring.database(contestant) as dsn:
        before = ring.server.read("bench")
        spawning = ring.run(contestant, dsn, "enqueue", n=count, mode=mode)
        return _spawned(mode, spawning, ring.server.read("bench").since(before), count)


def latency(ring: Ring, contestant: Contestant, count: int) -> Figures:
    """From just before a spawn to the start of its job in an idle worker of another process."""
    with ring.database(contestant) as dsn, ring.working(contestant, dsn) as workers:
        warming = ring.warm(contestant, dsn, workers)
        ring.run(contestant, dsn, "latency", n=count, gap=0.02)
        waits = ring.tallies.slots()[0].waits
        if len(waits) < count:
            raise MeasureError(f"only {len(waits)} of {count} jobs were started within a second")
        # The first spawn, which is not timed, is a job too.
        ring.check(contestant, dsn, warming + 1 + count)
    return {f"{name}_ms": value * 1e3 for name, value in _percentiles(waits).items()}


def steady(ring: Ring, contestant: Contestant, rate: float, seconds: float) -> Figures:
    """A producer and a worker together, from an empty table that was never analyzed; at rate 0 at full speed."""
    count = int(rate * seconds) if rate else contestant.jobs
    with (
        ring.database(contestant) as dsn,
        psycopg.connect(dsn, autocommit=True) as conn,
        ring.working(contestant, dsn) as workers,
    ):
        warming = ring.warm(contestant, dsn, workers)
        before, cpu, ran = ring.server.read("bench"), workers[0].cpu(), ring.tallies.count()
        until = time.monotonic() + LIMIT
        producing = ring.run(contestant, dsn, "steady", n=count, rate=rate)
        ring.wait(ran + count, workers, until)
        ended, asked = ring.wait_for_nothing_left(contestant, conn, until)
        cost, cpu = ring.server.read("bench").since(before), workers[0].cpu() - cpu
        waits = ring.tallies.slots()[0].waits
        ring.check(contestant, dsn, warming + count)
    return {
        "jobs_per_s": count / (ended - producing["started"]),
        "producer_per_s": count / (producing["ended"] - producing["started"]),
        **_per_job(cost, count, cpu, asked),
        **{f"{name}_ms": value * 1e3 for name, value in _percentiles(waits).items()},
    }


def idle(ring: Ring, contestant: Contestant, seconds: float) -> Figures:
    """What a worker with nothing to do asks of the server."""
    with ring.database(contestant) as dsn, ring.working(contestant, dsn) as workers:
        ring.warm(contestant, dsn, workers)
        with ring.server.without_autovacuum():
            time.sleep(TOLD)
            before, cpu, start = ring.server.read("bench"), workers[0].cpu(), time.monotonic()
            transactions = ring.server.transactions("bench")
            time.sleep(seconds)
            cost, took = ring.server.read("bench").since(before), time.monotonic() - start
            transactions = ring.server.transactions("bench") - transactions
            cpu = workers[0].cpu() - cpu
    return {
        "statements_per_s": cost.statements / took,
        "transactions_per_s": transactions / took,
        "worker_cpu_ms_per_s": cpu / took * 1e3,
    }


def _percentiles(waits: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(waits, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(waits)}


def _per_job(cost: Reading, count: int, worker_cpu: float, asked: int) -> Figures:
    """What a job cost, without the questions that the measurement itself put to the contestant's database."""
    return {
        "statements": (cost.statements - asked) / count,
        "wal_bytes": cost.wal / count,
        "worker_cpu_us": worker_cpu / count * 1e6,
        "server_cpu_us": cost.cpu / count * 1e6,
    }


def _spawned(mode: str, spawning: dict[str, Any], cost: Reading, count: int) -> Figures:
    return {
        f"{mode}_per_s": spawning["count"] / spawning["seconds"],
        f"{mode}_statements": cost.statements / count,
        f"{mode}_wal_bytes": cost.wal / count,
        f"{mode}_client_cpu_us": spawning["cpu"] / spawning["count"] * 1e6,
        f"{mode}_server_cpu_us": cost.cpu / count * 1e6,
    }


def _template(contestant: Contestant) -> str:
    return "template_" + "".join(letter if letter.isalnum() else "_" for letter in contestant.name.lower())


def _url(dsn: str) -> str:
    """The DSN as a URL that every driver of every language understands: all but the database as parameters."""
    parts = conninfo_to_dict(dsn)
    given = "&".join(f"{name}={quote(str(parts[name]), safe='/')}" for name in ("host", "port", "user"))
    return f"postgresql:///{parts['dbname']}?{given}"
