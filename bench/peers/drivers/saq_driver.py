"""SAQ on its PostgreSQL queue."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from harness import DSN, TEXT, hit, main
from saq import Queue, Worker

logging.getLogger("saq").setLevel(logging.ERROR)


async def noop(context: Any, *, number: int, text: str, sent: int | None = None) -> None:
    hit(sent)


@contextlib.asynccontextmanager
async def opened() -> AsyncGenerator[Queue]:
    queue = Queue.from_url(DSN, name="bench", min_size=4, max_size=20)
    await queue.connect()
    try:
        yield queue
    finally:
        await queue.disconnect()


class Spawner:
    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def one(self, number: int, sent: int | None) -> None:
        await self._queue.enqueue("noop", number=number, text=TEXT, sent=sent)

    async def many(self, numbers: Sequence[int], sent: int | None) -> None:
        raise NotImplementedError


class Peer:
    distribution = "saq"
    left = "SELECT EXISTS (SELECT FROM saq_jobs WHERE status IN ('new', 'deferred', 'queued', 'active'))"
    bulk = False

    async def setup(self) -> None:
        async with opened():
            pass

    @contextlib.asynccontextmanager
    async def spawning(self, callers: int) -> AsyncGenerator[Spawner]:
        async with opened() as queue:
            yield Spawner(queue)

    async def work(self, concurrency: int) -> None:
        async with opened() as queue:
            worker = Worker(queue, functions=[noop], concurrency=concurrency)
            worker.SIGNALS = []
            await worker.start()


main(Peer())
