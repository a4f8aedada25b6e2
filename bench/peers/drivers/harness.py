"""What all Python drivers share: `DRIVER.py ROLE …` plays one role and prints one JSON line.

It runs in the environment of a peer, so it needs nothing but the standard library. The runner starts the processes:

    setup                             make the tables in the empty database BENCH_DSN
    info                              version, what tells that jobs are left, whether there is a bulk call
    enqueue --n --mode                spawn jobs one by one (serial), by ten concurrent callers (c10), in batches (bulk)
    latency --n --gap                 spawn stamped jobs one by one, with a pause in between
    steady --n --rate                 spawn stamped jobs in batches, at full speed or so many per second
    work --concurrency                run jobs until killed

A stamped job carries the monotonic clock in nanoseconds, read just before the call that spawned it. Executions are
counted in the file BENCH_TALLY, which all processes map: the runner reads it while they run.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import mmap
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Any, Protocol

DSN = os.environ["BENCH_DSN"]
SLOT = int(os.environ.get("BENCH_SLOT", "0"))
SAMPLES, HEADER = 1 << 18, 8
"""A worker process has a slot of the tally: the waits that it holds, and the numbers before them."""
COUNT, FIRST, LAST, CPU, WAITS = range(5)
BATCH = 1000
TICK = 0.01
PAUSE = float(os.environ.get("BENCH_PAUSE", "0"))
"""Seconds that a job sleeps once it has been counted."""
TEXT = "x" * 72
"""Makes a payload of about 100 bytes."""


class Spawner(Protocol):
    """An open connection of a producer to its queue."""

    async def one(self, number: int, sent: int | None) -> object:
        """Spawn a job by the call that an application would await."""

    async def many(self, numbers: Sequence[int], sent: int | None) -> object:
        """Spawn jobs by the bulk call; a queue that has none says `bulk = False` and leaves this out."""


class Queue(Protocol):
    """A peer."""

    distribution: str
    left: str
    """A query that is true while a job is not durably finished."""
    bulk: bool
    finished: str
    """Only of those that are ours: a query for the rows of the history, and how many different jobs they are."""

    async def setup(self) -> None: ...

    def spawning(self, callers: int) -> AbstractAsyncContextManager[Spawner]: ...

    async def work(self, concurrency: int) -> None: ...


def _tally() -> memoryview:
    size = (SLOT + 1) * (HEADER + SAMPLES) * 8
    with open(os.environ["BENCH_TALLY"], "r+b") as file:
        whole = memoryview(mmap.mmap(file.fileno(), size)).cast("Q")
    return whole[SLOT * (HEADER + SAMPLES) :]


_slot = _tally()
_now = time.monotonic_ns
_count = _waits = 0


def hit(sent: int | None = None) -> None:
    """Count an execution, and the wait of a stamped job."""
    global _count, _waits
    now = _now()
    if _count == 0:
        _slot[CPU] = time.process_time_ns()
        _slot[FIRST] = now
    if sent:
        _slot[HEADER + _waits % SAMPLES] = max(now - sent, 0)
        _waits += 1
        _slot[WAITS] = _waits
    _count += 1
    _slot[LAST] = now
    _slot[COUNT] = _count


async def _shared(count: int, callers: int, call: Callable[[int], Coroutine[Any, Any, object]]) -> None:
    """Have so many concurrent callers make the calls."""
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await call(number)

    await asyncio.gather(*(some() for _ in range(callers)))


async def _enqueue(queue: Queue, count: int, mode: str) -> dict[str, object]:
    callers = 1 if mode in ("serial", "bulk") else 10
    async with queue.spawning(callers) as spawner:
        # The first call opens connections and prepares; it spawns one of the jobs, but is not timed.
        await spawner.one(0, None)
        cpu, start = time.process_time(), time.perf_counter()
        if mode == "bulk":
            for first in range(1, count, BATCH):
                await spawner.many(range(first, min(first + BATCH, count)), None)
        else:
            await _shared(count - 1, callers, lambda number: spawner.one(number, None))
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "count": count - 1, "cpu": time.process_time() - cpu}


async def _latency(queue: Queue, count: int, gap: float) -> dict[str, object]:
    async with queue.spawning(1) as spawner:
        await spawner.one(0, None)
        for number in range(count):
            await asyncio.sleep(gap)
            await spawner.one(number, _now())
        await asyncio.sleep(1)
    return {"count": count}


async def _steady(queue: Queue, count: int, rate: float) -> dict[str, object]:
    """At a rate, a batch is what is due every hundredth of a second."""
    callers = 1 if queue.bulk else 10
    size = min(max(int(rate * TICK), 1), BATCH) if rate else BATCH
    async with queue.spawning(callers) as spawner:
        started = time.monotonic()
        for first in range(0, count, size):
            if rate and (early := started + first / rate - time.monotonic()) > 0:
                await asyncio.sleep(early)
            numbers = range(first, min(first + size, count))
            if queue.bulk:
                await spawner.many(numbers, _now())
            else:
                await _shared(len(numbers), callers, lambda number: spawner.one(number, _now()))
        return {"started": started, "ended": time.monotonic(), "count": count}


async def _play(queue: Queue, given: argparse.Namespace) -> dict[str, object]:
    match given.role:
        case "setup":
            await queue.setup()
            return {}
        case "enqueue":
            return await _enqueue(queue, given.n, given.mode)
        case "latency":
            return await _latency(queue, given.n, given.gap)
        case "steady":
            return await _steady(queue, given.n, given.rate)
        case _:
            _spare_what_stays()
            await queue.work(given.concurrency)
            raise RuntimeError("the worker ended by itself")


def _spare_what_stays() -> None:
    """What piecework's `run_worker` does to the garbage collector of its process is done for every worker in Python."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def main(queue: Queue) -> None:
    """Play the role that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["info", "setup", "enqueue", "latency", "steady", "work"])
    parser.add_argument("--n", type=int, default=0)
    parser.add_argument("--mode", choices=["serial", "c10", "bulk"])
    parser.add_argument("--gap", type=float, default=0.02)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--concurrency", type=int, default=0)
    given = parser.parse_args()
    if given.role == "info":
        say = {
            "version": version(queue.distribution), "left": queue.left, "bulk": queue.bulk,
            "finished": getattr(queue, "finished", None),
        }  # fmt: skip
    else:
        say = _runner()(_play(queue, given))
    # What a peer leaves running, threads and all, ends here.
    print(json.dumps(say), flush=True)
    os._exit(0)


def _runner() -> Callable[[Coroutine[Any, Any, dict[str, object]]], dict[str, object]]:
    if os.environ.get("BENCH_UVLOOP") == "no":
        return asyncio.run
    import uvloop

    return uvloop.run
