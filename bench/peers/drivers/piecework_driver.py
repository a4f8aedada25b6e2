"""piecework, by its public names."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from harness import DSN, TEXT, hit, main

from piecework import Jobs, WorkerSettings


class Peer:
    distribution = "piecework"
    left = "SELECT EXISTS (SELECT FROM piecework.jobs)"
    finished = "SELECT count(*), count(DISTINCT id) FROM piecework.finished_jobs WHERE status = 'completed'"
    bulk = True

    def __init__(self, connections: int = 10) -> None:
        self._jobs = jobs = Jobs(DSN, max_connections=connections)

        @jobs.job
        async def noop(number: int, text: str, sent: int | None) -> None:
            hit(sent)

        self._noop = noop

    async def setup(self) -> None:
        async with self._jobs:
            pass

    @contextlib.asynccontextmanager
    async def spawning(self, callers: int) -> AsyncGenerator[Peer]:
        async with self._jobs:
            yield self

    async def one(self, number: int, sent: int | None) -> None:
        await self._noop.spawn(number, TEXT, sent)

    async def many(self, numbers: Sequence[int], sent: int | None) -> None:
        await self._jobs.spawn_all([self._noop.spec(number, TEXT, sent) for number in numbers])

    async def work(self, concurrency: int) -> None:
        async with self._jobs as jobs, jobs.worker(WorkerSettings(concurrency=concurrency)):
            await asyncio.Event().wait()


main(Peer())
