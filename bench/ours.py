"""piecework as a system: what an application would write, and nothing beside its public names."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

import psycopg

from bench.system import CONCURRENCY, TEXT, batches
from bench.tally import Tally
from piecework import Jobs, WorkerSettings


class Ours:
    """A `Jobs` with one no-op job."""

    def __init__(self, dsn: str, tally: Tally) -> None:
        self._dsn = dsn
        self._jobs = jobs = Jobs(dsn)

        @jobs.job
        async def noop(number: int, text: str) -> None:
            tally.hit()

        self._noop = noop

    async def prepare(self) -> None:
        """Migrate: an open `Jobs` has its tables."""
        async with self._jobs:
            pass

    async def produce(self, count: int, until: float) -> int:
        """Spawn jobs, each batch by one `spawn_all`."""
        made = 0
        async with self._jobs as jobs:
            for numbers in batches(count, until):
                made += len(await jobs.spawn_all([self._noop.spec(number, TEXT) for number in numbers]))
        return made

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncGenerator[None]:
        """Run a worker."""
        async with self._jobs as jobs, jobs.worker(WorkerSettings(concurrency=CONCURRENCY)):
            yield

    async def drained(self) -> bool:
        """Whether no job is live."""
        return not await self._value("SELECT EXISTS (SELECT FROM piecework.jobs)")

    async def finished(self) -> tuple[int, int]:
        """Jobs that completed, and how many different ones."""
        completed = "FROM piecework.finished_jobs WHERE status = 'completed'"
        return (
            int(str(await self._value(f"SELECT count(*) {completed}"))),
            int(str(await self._value(f"SELECT count(DISTINCT id) {completed}"))),
        )

    async def pickup(self) -> tuple[float, float]:
        """Seconds from a job's insert to its start: the median and the 99th percentile."""
        return await self._pickup(0.5), await self._pickup(0.99)

    async def _pickup(self, part: float) -> float:
        seconds = "date_part('epoch', started_at - created_at)"
        query = f"SELECT percentile_disc({part}) WITHIN GROUP (ORDER BY {seconds}) FROM piecework.finished_jobs"
        return float(str(await self._value(query)))

    async def _value(self, query: str) -> object:
        async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as conn:
            row = await (await conn.execute(query.encode())).fetchone()
            assert row is not None
            return row[0]
