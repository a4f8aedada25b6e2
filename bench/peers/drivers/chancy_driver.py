"""Chancy: the asyncio executor, eager polling, updates written every 0.1 s instead of every second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence

from chancy import Chancy, Job, Queue, Worker
from chancy_task import noop
from harness import DSN, TEXT, main

log = logging.getLogger("chancy")
log.setLevel(logging.ERROR)
job = Job.from_func(noop, queue="bench")


def settings(concurrency: int) -> Queue:
    return Queue(
        "bench", concurrency=concurrency, executor="chancy.executors.asyncex.AsyncExecutor", polling_interval=1,
        eager_polling=True,
    )  # fmt: skip


class Spawner:
    def __init__(self, app: Chancy) -> None:
        self._app = app

    async def one(self, number: int, sent: int | None) -> None:
        await self._app.push(job.with_kwargs(number=number, text=TEXT, sent=sent))

    async def many(self, numbers: Sequence[int], sent: int | None) -> None:
        jobs = [job.with_kwargs(number=number, text=TEXT, sent=sent) for number in numbers]
        async for _ in self._app.push_many(jobs, batch_size=1000):
            pass


class Peer:
    distribution = "chancy"
    left = "SELECT EXISTS (SELECT FROM chancy_jobs WHERE state IN ('pending', 'running', 'retrying'))"
    bulk = True

    async def setup(self) -> None:
        async with Chancy(DSN, log=log) as app:
            await app.migrate()
            await app.declare(settings(1000), upsert=True)

    @contextlib.asynccontextmanager
    async def spawning(self, callers: int) -> AsyncGenerator[Spawner]:
        async with Chancy(DSN, log=log) as app:
            yield Spawner(app)

    async def work(self, concurrency: int) -> None:
        async with Chancy(DSN, log=log) as app:
            await app.declare(settings(concurrency), upsert=True)
            worker = Worker(app, register_signal_handlers=False)
            worker.send_outgoing_interval = 0.1
            async with worker:
                await asyncio.Event().wait()


if __name__ == "__main__":
    main(Peer())
