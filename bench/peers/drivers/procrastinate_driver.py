"""Procrastinate: `defer_async`, `batch_defer_async`, a worker that listens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

import procrastinate
from harness import DSN, PAUSE, TEXT, hit, main

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=DSN, min_size=4, max_size=10))


@app.task(name="noop", queue="bench")
async def noop(number: int, text: str, sent: int | None = None) -> None:
    hit(sent)
    if PAUSE:
        await asyncio.sleep(PAUSE)


class Procrastinate:
    distribution = "procrastinate"
    left = "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))"
    bulk = True

    async def setup(self) -> None:
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    @contextlib.asynccontextmanager
    async def spawning(self, callers: int) -> AsyncGenerator[Procrastinate]:
        async with app.open_async():
            yield self

    async def one(self, number: int, sent: int | None) -> None:
        await noop.defer_async(number=number, text=TEXT, sent=sent)

    async def many(self, numbers: Sequence[int], sent: int | None) -> None:
        await noop.batch_defer_async(*({"number": number, "text": TEXT, "sent": sent} for number in numbers))

    async def work(self, concurrency: int) -> None:
        async with app.open_async():
            await app.run_worker_async(
                queues=["bench"], concurrency=concurrency, install_signal_handlers=False, listen_notify=True
            )


main(Procrastinate())
