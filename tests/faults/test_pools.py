"""An application holds connections of its own while it spawns and waits: nobody waits for anybody for ever."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from engine.app import settings
from engine.helpers import SOON, count

from piecework import CurrentJob, Jobs

PARENTS = 20


@pytest.mark.parametrize("max_connections", [1, 4])
async def test_jobs_that_hold_the_applications_connections_spawn_and_wait(dsn: str, max_connections: int) -> None:
    pool: asyncio.Queue[psycopg.AsyncConnection] = asyncio.Queue()
    async with Jobs(dsn, max_connections=max_connections) as jobs:

        @jobs.job
        async def child(job: CurrentJob, number: int) -> int:
            return number

        @jobs.job
        async def parent(job: CurrentJob, number: int) -> int | None:
            connection = await pool.get()
            try:
                async with connection.transaction():
                    await connection.execute("SELECT FROM piecework.workers")
                    handles = await jobs.spawn_all(child.spec(number) for _ in range(3))
                    await handles.results(timeout=SOON)
                    return await (await child.spawn(number)).result(timeout=SOON)
            finally:
                pool.put_nowait(connection)

        connections = [await psycopg.AsyncConnection.connect(dsn) for _ in range(2)]
        for connection in connections:
            pool.put_nowait(connection)
        async with jobs.worker(settings(concurrency=2 * PARENTS)):
            parents = await jobs.spawn_all(parent.spec(number) for number in range(PARENTS))
            assert await parents.results(timeout=SOON) == list(range(PARENTS))
        for connection in connections:
            await connection.close()
    assert count(dsn, "jobs") == 0
    assert count(dsn, "attempts") == 0
    assert count(dsn, "finished_jobs WHERE status = 'completed'") == 5 * PARENTS
