"""DBOS: a workflow without steps on a queue that is polled every 50 ms."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

import harness
from dbos import DBOS, DBOSClient
from harness import DSN, TEXT, hit, main

POLL = 0.05  # seconds
OPTIONS = {"workflow_name": "noop", "queue_name": "bench", "app_version": "1"}


@DBOS.workflow(name="noop")
async def noop(number: int, text: str, sent: int | None = None) -> None:
    hit(sent)


def launch(concurrency: int) -> None:
    DBOS(config={
        "name": "bench", "system_database_url": DSN, "log_level": "ERROR", "application_version": "1",
        "sys_db_pool_size": 20, "executor_id": str(harness.SLOT),
    })  # fmt: skip
    DBOS.launch()
    DBOS.register_queue("bench", worker_concurrency=concurrency, polling_interval_sec=POLL)


class Spawner:
    def __init__(self, client: DBOSClient) -> None:
        self._client = client

    async def one(self, number: int, sent: int | None) -> None:
        await self._client.enqueue_async(OPTIONS, number, TEXT, sent)

    async def many(self, numbers: Sequence[int], sent: int | None) -> None:
        raise NotImplementedError


class Peer:
    distribution = "dbos"
    left = (
        "SELECT EXISTS (SELECT FROM dbos.workflow_status "
        "WHERE status IN ('ENQUEUED', 'PENDING') AND queue_name = 'bench')"
    )
    bulk = False

    async def setup(self) -> None:
        await asyncio.to_thread(launch, 1000)

    @contextlib.asynccontextmanager
    async def spawning(self, callers: int) -> AsyncGenerator[Spawner]:
        yield Spawner(await asyncio.to_thread(lambda: DBOSClient(system_database_url=DSN)))

    async def work(self, concurrency: int) -> None:
        await asyncio.to_thread(launch, concurrency)
        await asyncio.Event().wait()


main(Peer())
