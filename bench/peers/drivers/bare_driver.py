"""The bare loop of `bench.bare`: no peer, but what any of them could reach on psycopg."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

import msgspec
import psycopg
from harness import DSN, TEXT, hit, main

from bench import bare
from bench.tally import Tally


class Loop(bare.Loop):
    async def _noop(self, payload: dict[str, object]) -> None:
        sent = payload["sent"]
        hit(sent if isinstance(sent, int) else None)


class Spawner:
    def __init__(self, conns: list[psycopg.AsyncConnection[tuple[object, ...]]]) -> None:
        self._free = conns

    async def one(self, number: int, sent: int | None) -> None:
        mine = self._free.pop()
        try:
            await mine.execute(bare.INSERT_ONE.encode(), [self._payload(number, sent)])
        finally:
            self._free.append(mine)

    async def many(self, numbers: Sequence[int], sent: int | None) -> None:
        payloads = [self._payload(number, sent) for number in numbers]
        await self._free[0].execute(bare.INSERT_MANY.encode(), [payloads])

    def _payload(self, number: int, sent: int | None) -> str:
        return msgspec.json.encode({"number": number, "text": TEXT, "sent": sent}).decode()


class Peer:
    distribution = "psycopg"
    left = "SELECT EXISTS (SELECT FROM hot)"
    finished = "SELECT count(*), count(DISTINCT id) FROM history"
    bulk = True

    async def setup(self) -> None:
        await bare.Bare(DSN, Tally(0)).prepare()

    @contextlib.asynccontextmanager
    async def spawning(self, callers: int) -> AsyncGenerator[Spawner]:
        async with contextlib.AsyncExitStack() as stack:
            yield Spawner([await stack.enter_async_context(await bare.connect(DSN)) for _ in range(callers)])

    async def work(self, concurrency: int) -> None:
        loop = Loop(DSN, Tally(0))
        async with asyncio.TaskGroup() as group:
            group.create_task(loop.claim())
            group.create_task(loop.complete())


main(Peer())
