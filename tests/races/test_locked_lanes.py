"""Jobs whose rows an open transaction of the application's holds: they stand in nobody's way."""

from __future__ import annotations

import psycopg
import pytest
from engine.helpers import SOON

from piecework import Jobs, WorkerSettings


@pytest.mark.postgres(18, 15)
@pytest.mark.parametrize("key", [None, "account:{n}"])
async def test_jobs_that_are_being_cancelled_in_an_open_transaction_hold_up_none_behind_them(
    dsn: str, jobs: Jobs, key: str | None
) -> None:
    settings = {} if key is None else {"concurrency_key": key}

    @jobs.job(**settings)
    async def work(n: int) -> int:
        return n

    front = await jobs.spawn_all(work.spec(n) for n in range(40))
    behind = await jobs.spawn_all(work.spec(n) for n in range(40, 50))
    async with await psycopg.AsyncConnection.connect(dsn) as user:
        await front.cancel(conn=user)
        async with jobs.worker(WorkerSettings(concurrency=1, prefetch=0)):
            assert await behind.results(timeout=SOON) == [*range(40, 50)]
            await user.rollback()
            assert await front.results(timeout=SOON) == [*range(40)]
