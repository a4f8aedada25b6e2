"""Oban for Python: a pool of ten connections, one queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from harness import DSN, TEXT, hit, main
from oban import Oban, worker
from oban.schema import install


@worker(queue="bench")
class Noop:
    async def process(self, job: Any) -> None:
        hit(job.args["sent"])


async def pool() -> Any:
    return await Oban.create_pool(DSN, min_size=2, max_size=10)


class Spawner:
    def __init__(self, app: Oban) -> None:
        self._app = app

    async def one(self, number: int, sent: int | None) -> None:
        await self._app.enqueue(Noop.new({"number": number, "text": TEXT, "sent": sent}))

    async def many(self, numbers: Sequence[int], sent: int | None) -> None:
        await self._app.enqueue_many([Noop.new({"number": n, "text": TEXT, "sent": sent}) for n in numbers])


class Peer:
    distribution = "oban"
    left = "SELECT EXISTS (SELECT FROM oban_jobs WHERE state IN ('available', 'scheduled', 'executing', 'retryable'))"
    bulk = True

    async def setup(self) -> None:
        await install(await pool())

    @contextlib.asynccontextmanager
    async def spawning(self, callers: int) -> AsyncGenerator[Spawner]:
        yield Spawner(Oban(pool=await pool()))

    async def work(self, concurrency: int) -> None:
        async with Oban(pool=await pool(), queues={"bench": {"limit": concurrency}}):
            await asyncio.Event().wait()


if __name__ == "__main__":
    main(Peer())
