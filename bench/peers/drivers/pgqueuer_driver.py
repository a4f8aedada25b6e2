"""PgQueuer: the asyncpg pool driver, its autovacuum settings, claims and log writes in batches."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta

import asyncpg
from harness import DSN, PAUSE, TEXT, hit, main
from pgqueuer import Job, PgQueuer
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.queries import Queries


def payload(number: int, sent: int | None) -> bytes:
    return json.dumps({"number": number, "text": TEXT, "sent": sent}).encode()


class Spawner:
    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def one(self, number: int, sent: int | None) -> None:
        await self._queries.enqueue("noop", payload(number, sent), 0)

    async def many(self, numbers: Sequence[int], sent: int | None) -> None:
        count = len(numbers)
        await self._queries.enqueue(["noop"] * count, [payload(number, sent) for number in numbers], [0] * count)


class Pgqueuer:
    distribution = "pgqueuer"
    left = "SELECT EXISTS (SELECT FROM pgqueuer)"
    bulk = True

    async def setup(self) -> None:
        conn = await asyncpg.connect(DSN)
        await Queries(AsyncpgDriver(conn)).install()
        # The same as its command `pgq autovac`.
        await conn.execute(QueryBuilderEnvironment().build_optimize_autovacuum_query())
        await conn.close()

    @contextlib.asynccontextmanager
    async def spawning(self, callers: int) -> AsyncGenerator[Spawner]:
        if callers == 1:
            yield Spawner(Queries(AsyncpgDriver(await asyncpg.connect(DSN))))
        else:
            async with asyncpg.create_pool(DSN, min_size=callers, max_size=callers) as pool:
                yield Spawner(Queries(AsyncpgPoolDriver(pool)))

    async def work(self, concurrency: int) -> None:
        """`concurrency` is its batch size: jobs that an entrypoint runs at once are not limited."""
        async with asyncpg.create_pool(DSN, min_size=5, max_size=10) as pool:
            queue = PgQueuer(AsyncpgPoolDriver(pool))

            @queue.entrypoint("noop")
            async def noop(job: Job) -> None:
                assert job.payload is not None
                hit(json.loads(job.payload)["sent"])
                if PAUSE:
                    await asyncio.sleep(PAUSE)

            await queue.run(batch_size=concurrency, dequeue_timeout=timedelta(seconds=30))


main(Pgqueuer())
