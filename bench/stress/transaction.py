"""A user's transaction that is left open for a second: what the spawns, claims and settles of others wait for then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import psycopg

from piecework import CurrentJob, Jobs, WorkerSettings

OPEN = 1.0  # seconds
GAP = 0.01  # seconds between two spawns of the others
LOOK = 0.005
END = 20.0  # seconds until all jobs have ended
TURNS = ("none", "spawn", "completion", "key")
OLDEST = """
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float
FROM piecework.jobs WHERE job_type = 'tick'
"""
LIVE = "SELECT EXISTS (SELECT FROM piecework.jobs)"

Conn = psycopg.AsyncConnection[tuple[object, ...]]


class Scene:
    """One process with a worker, others who spawn, and a transaction of somebody's that is left open meanwhile."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._jobs = jobs = Jobs(dsn, max_connections=10)
        self._starts: list[float] = []
        self._completed = asyncio.Event()
        self._number = 0

        @jobs.job
        async def tick(sent: float) -> None:
            self._starts.append(time.monotonic() - sent)

        @jobs.job
        async def closing(job: CurrentJob) -> None:
            async with await self._connect(autocommit=False) as conn:
                await job.complete_in(conn)
                self._completed.set()
                await asyncio.sleep(OPEN)

        self._tick, self._closing = tick, closing

    async def play(self, rounds: int) -> dict[str, list[Mapping[str, float]]]:
        """Go through all turns so often; return what was the worst in each, in milliseconds."""
        found: dict[str, list[Mapping[str, float]]] = {turn: [] for turn in TURNS}
        async with self._jobs as jobs, jobs.worker(WorkerSettings()):
            await self._others(0.5)
            for _ in range(rounds):
                for turn in TURNS:
                    async with self._open(turn):
                        found[turn].append(await self._others(OPEN * 0.9))
                    await self._all_ended()
        return found

    @asynccontextmanager
    async def _open(self, turn: str) -> AsyncGenerator[None]:
        """A transaction with something in it; that of a completion is its job's, and closes by itself."""
        if turn == "none":
            yield
        elif turn == "completion":
            self._completed.clear()
            await self._closing.spawn()
            async with asyncio.timeout(END):
                await self._completed.wait()
            yield
        else:
            async with await self._connect(autocommit=False) as conn:
                options = {"key": "mine", "concurrency_key": "shared"} if turn == "key" else {}
                await self._tick.options(conn=conn, **options).spawn(time.monotonic())
                yield

    async def _others(self, seconds: float) -> Mapping[str, float]:
        """By turns plain jobs, jobs with keys of their own, and jobs with the concurrency key of the transaction."""
        self._starts.clear()
        spawns: list[float] = []
        oldest = asyncio.create_task(self._oldest(seconds + GAP))
        until = time.monotonic() + seconds
        while (sent := time.monotonic()) < until:
            self._number += 1
            options = ({}, {"key": f"key-{self._number}"}, {"concurrency_key": "shared"})[self._number % 3]
            await self._tick.options(**options).spawn(sent)
            spawns.append(time.monotonic() - sent)
            await asyncio.sleep(GAP)
        return {
            "spawn_ms": max(spawns) * 1e3,
            "life_ms": await oldest * 1e3,
            "start_ms": max(self._starts, default=seconds) * 1e3,
            "spawned": float(len(spawns)),
        }

    async def _oldest(self, seconds: float) -> float:
        """The greatest age of a job of the others that had not ended: what spawn, claim and settle took at most."""
        worst, until = 0.0, time.monotonic() + seconds
        async with await self._connect(autocommit=True) as conn:
            while time.monotonic() < until:
                row = await (await conn.execute(OLDEST.encode())).fetchone()
                worst = max(worst, float(str(row[0] if row else 0)))
                await asyncio.sleep(LOOK)
        return worst

    async def _all_ended(self) -> None:
        async with asyncio.timeout(END), await self._connect(autocommit=True) as conn:
            while await (await conn.execute(LIVE.encode())).fetchone() == (True,):  # noqa: ASYNC110
                await asyncio.sleep(LOOK)

    async def _connect(self, *, autocommit: bool) -> Conn:
        return await psycopg.AsyncConnection.connect(self._dsn, autocommit=autocommit)
