"""Absurd: a task without steps; a connection per caller, since a client has one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from absurd_sdk import AsyncAbsurd
from harness import DSN, TEXT, hit, main


def client() -> AsyncAbsurd:
    app = AsyncAbsurd(DSN, queue_name="bench")

    @app.register_task(name="noop")
    async def noop(params: Any, context: Any) -> None:
        hit(params["sent"])

    return app


class Spawner:
    def __init__(self, clients: list[AsyncAbsurd]) -> None:
        self._free = clients

    async def one(self, number: int, sent: int | None) -> None:
        mine = self._free.pop()
        try:
            await mine.spawn("noop", {"number": number, "text": TEXT, "sent": sent})
        finally:
            self._free.append(mine)

    async def many(self, numbers: Sequence[int], sent: int | None) -> None:
        raise NotImplementedError


class Peer:
    distribution = "absurd-sdk"
    left = "SELECT EXISTS (SELECT FROM absurd.t_bench WHERE state NOT IN ('completed', 'failed', 'cancelled'))"
    bulk = False

    async def setup(self) -> None:
        program = str(Path(sys.executable).with_name("absurdctl"))
        subprocess.run([program, "init"], env={**os.environ, "ABSURD_DATABASE_URL": DSN}, check=True, stdout=2)
        app = client()
        await app.create_queue("bench")
        await app.close()

    @contextlib.asynccontextmanager
    async def spawning(self, callers: int) -> AsyncGenerator[Spawner]:
        yield Spawner([client() for _ in range(callers)])

    async def work(self, concurrency: int) -> None:
        await client().start_worker(concurrency=concurrency, batch_size=concurrency, poll_interval=0.25)
        await asyncio.Event().wait()


main(Peer())
