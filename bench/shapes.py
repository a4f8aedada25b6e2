"""The measurements: each sets up a fresh database, runs its processes and returns figures."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import cast

import psycopg

from bench.child import Result, make, running
from bench.ours import Ours
from bench.server import Reading, Server
from bench.tally import Tally

SETTLE_DOWN = 2.0  # seconds that an idle worker gets before it is looked at
Figures = dict[str, float | None]


def number(result: Result, name: str) -> float:
    """A number that a process reported."""
    return float(cast("float", result[name]))


def drain(server: Server, system: str, count: int, limit: float) -> Figures:
    """Fill a table, vacuum and analyze it, then let one worker process empty it."""
    name = f"drain_{system}"
    with server.database(name) as dsn:
        asyncio.run(make(system, dsn, Tally(0)).prepare())
        empty = server.read(name)
        with running(dsn, "produce", system, count, limit) as producer:
            filling = producer.result()
        filled = server.read(name)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("VACUUM ANALYZE")
        before = server.read(name)
        with running(dsn, "work", system, count, limit) as worker:
            worker.result()
            working = worker.result()
        cost = server.read(name).since(before)
        _check(dsn, system, count, working)
        done, seconds = number(working, "count"), number(working, "ended") - number(working, "first")
        return {
            "jobs_per_s": done / seconds,
            **_per_job(cost, done, number(working, "cpu")),
            "insert_jobs_per_s": count / (number(filling, "ended") - number(filling, "started")),
            "insert_wal_bytes": filled.since(empty).wal / count,
            "insert_server_cpu_us": filled.since(empty).cpu / count * 1e6,
            "insert_client_cpu_us": number(filling, "cpu") / count * 1e6,
        }


def steady(server: Server, system: str, count: int, limit: float) -> Figures:
    """A producer at full speed and a worker together, from an empty table that was never analyzed."""
    name = f"steady_{system}"
    with server.database(name) as dsn:
        asyncio.run(make(system, dsn, Tally(0)).prepare())
        before = server.read(name)
        with running(dsn, "work", system, count, limit) as worker:
            worker.result()
            with running(dsn, "produce", system, count, limit) as producer:
                producing = producer.result()
            working = worker.result()
        cost = server.read(name).since(before)
        done, started = number(working, "count"), number(producing, "started")
        if working["complete"]:
            _check(dsn, system, count, working)
        pickup = asyncio.run(Ours(dsn, Tally(0)).pickup()) if system == "ours" else (None, None)
        made, ended = number(producing, "made"), number(producing, "ended")
        return {
            "jobs_per_s": done / (number(working, "ended") - started),
            "jobs_per_s_while_producing": _count_at(working, ended) / (ended - started),
            "insert_jobs_per_s": made / (ended - started),
            **_per_job(cost, done, number(working, "cpu")),
            "pickup_p50_s": pickup[0],
            "pickup_p99_s": pickup[1],
            "complete": float(bool(working["complete"])),
        }


def latency(server: Server, count: int) -> Figures:
    """From just before a spawn to the start of its job in an idle worker of another process."""
    with server.database("latency") as dsn:
        asyncio.run(make("ours", dsn, Tally(0)).prepare())
        limit = SETTLE_DOWN + count * 0.1 + 5
        with running(dsn, "answer", "ours", count, limit) as worker:
            worker.result()
            time.sleep(SETTLE_DOWN)
            with running(dsn, "knock", "ours", count, limit) as spawner:
                spawner.result()
            waits = sorted(cast("list[float]", worker.result()["waits"]))
    if len(waits) != count:
        raise RuntimeError(f"{count} jobs were spawned for an idle worker, {len(waits)} were started in {limit:.0f} s")
    cuts = statistics.quantiles(waits, n=100, method="inclusive")
    return {"p50_ms": cuts[49] * 1e3, "p95_ms": cuts[94] * 1e3, "p99_ms": cuts[98] * 1e3, "max_ms": waits[-1] * 1e3}


def spawning(server: Server, singles: int, bulk: int) -> Figures:
    """What one awaited spawn costs beside a one-row insert, and how fast one large `spawn_all` is."""
    figures: Figures = {}
    with server.database("spawning") as dsn:
        for system in ("bare", "ours"):
            asyncio.run(make(system, dsn, Tally(0)).prepare())
        for role, name in (("spawn-singly", "single"), ("spawn-concurrently", "ten")):
            with running(dsn, role, "both", singles, 60) as child:
                each = child.result()
            figures[f"{name}_spawn_us"] = number(each, "ours") * 1e6
            figures[f"{name}_insert_us"] = number(each, "bare") * 1e6
            figures[f"{name}_ratio"] = number(each, "ours") / number(each, "bare")
        with running(dsn, "spawn-at-once", "ours", bulk, 60) as child:
            figures["bulk_jobs_per_s"] = number(child.result(), "rate")
    return figures


def idle(server: Server, seconds: float) -> Figures:
    """What a worker with nothing to do asks of the server."""
    with server.database("idle") as dsn:
        asyncio.run(make("ours", dsn, Tally(0)).prepare())
        # It is killed after the look: what it does at its end is not idling.
        with running(dsn, "work", "ours", 1, 2 * SETTLE_DOWN + seconds) as worker:
            worker.result()
            time.sleep(SETTLE_DOWN)
            before, start = server.read("idle"), time.monotonic()
            time.sleep(seconds)
            cost, took = server.read("idle").since(before), time.monotonic() - start
            worker.kill()
    return {"statements_per_s": cost.statements / took}


def _per_job(cost: Reading, done: float, worker_cpu: float) -> Figures:
    return {
        "statements": cost.statements / done,
        "wal_bytes": cost.wal / done,
        "worker_cpu_us": worker_cpu / done * 1e6,
        "server_cpu_us": cost.cpu / done * 1e6,
    }


def _count_at(working: Result, clock: float) -> float:
    """How many jobs had run at a moment."""
    progress = cast("list[tuple[float, int]]", working["progress"])
    return max((count for at, count in progress if at <= clock), default=0)


def _check(dsn: str, system: str, count: int, working: Result) -> None:
    """A rate counts only if the history has every job, once."""
    rows, different = asyncio.run(make(system, dsn, Tally(0)).finished())
    if not (working["complete"] and rows == different == count):
        raise RuntimeError(
            f"{system}: of {count} jobs {working['count']} ran and {different} are in the history, in {rows} rows"
        )
