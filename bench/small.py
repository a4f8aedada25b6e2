"""Figures beside the two rates: how soon an idle worker starts a job, and what a spawn costs who awaits it."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import psycopg

from bench.bare import INSERT_ONE, connect
from bench.system import CONCURRENCY, TEXT
from piecework import Jobs, WorkerSettings

Call = Callable[[int], Awaitable[object]]
BLOCK = 100
"""Spawns in a row before it is the other side's turn."""


def _stamped(dsn: str, stamp: Callable[[int], object]) -> tuple[Jobs, Call]:
    jobs = Jobs(dsn)

    @jobs.job("stamp")
    async def carry(sent_ns: int) -> None:
        stamp(sent_ns)

    return jobs, carry.spawn


async def answer(dsn: str, count: int, seconds: float, ready: Callable[[], None]) -> list[float]:
    """Work, and return for each job the seconds from just before its spawn, in another process, to its start."""
    waits: list[float] = []
    complete = asyncio.Event()

    def stamp(sent_ns: int) -> None:
        waits.append((time.monotonic_ns() - sent_ns) / 1e9)
        if len(waits) == count:
            complete.set()

    jobs, _ = _stamped(dsn, stamp)
    async with jobs, jobs.worker(WorkerSettings(concurrency=CONCURRENCY)):
        ready()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await complete.wait()
    return waits


async def knock(dsn: str, count: int, gap: float) -> None:
    """Spawn one job after the other, `gap` seconds apart; the first ones warm up what is needed once."""
    jobs, spawn = _stamped(dsn, int)
    async with jobs:
        for _ in range(count):
            await asyncio.sleep(gap)
            await spawn(time.monotonic_ns())


async def spawn_singly(dsn: str, count: int, spawners: int) -> tuple[float, float]:
    """Seconds per awaited spawn and per awaited one-row insert, by so many concurrent callers: medians of blocks.

    Blocks of both take turns. Both commit each row, and both stand on connections that are warm.
    """
    jobs = Jobs(dsn, max_connections=spawners)

    @jobs.job
    async def noop(number: int, text: str) -> None:
        pass

    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(jobs)
        conns = [await stack.enter_async_context(await connect(dsn)) for _ in range(spawners)]

        def inserting(conn: psycopg.AsyncConnection[tuple[object, ...]]) -> Call:
            async def insert(number: int) -> None:
                payload = msgspec.json.encode({"number": number, "text": TEXT}).decode()
                await conn.execute(INSERT_ONE.encode(), [payload])

            return insert

        spawning: list[Call] = [lambda number: noop.spawn(number, TEXT)] * spawners
        sides = spawning, [inserting(conn) for conn in conns]
        blocks: tuple[list[float], list[float]] = ([], [])
        for turn in range(2 * max(count // BLOCK, 3) + 2):
            seconds = await _timed(sides[turn % 2])
            if turn >= 2:
                blocks[turn % 2].append(seconds)
    return statistics.median(blocks[0]), statistics.median(blocks[1])


async def _timed(callers: Sequence[Call]) -> float:
    """Seconds per call of a block that these callers share."""

    async def call_all(call: Call) -> None:
        for number in range(BLOCK // len(callers)):
            await call(number)

    start = time.perf_counter()
    await asyncio.gather(*map(call_all, callers))
    return (time.perf_counter() - start) / BLOCK


async def spawn_at_once(dsn: str, count: int) -> float:
    """Jobs per second of one `spawn_all`: making the specs, the call, and the typed handles."""
    jobs = Jobs(dsn)

    @jobs.job
    async def noop(number: int, text: str) -> None:
        pass

    async with jobs:
        await noop.spawn(0, TEXT)
        start = time.perf_counter()
        handles = await jobs.spawn_all([noop.spec(number, TEXT) for number in range(count)])
        return len(handles) / (time.perf_counter() - start)
