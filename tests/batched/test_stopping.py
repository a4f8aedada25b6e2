"""Batches that are stopped: by a cancellation, a timeout, the end of the worker, or its loss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import psycopg
import pytest
from batched.helpers import ONCE, QUICK, Doc, loaded, statuses
from engine.helpers import SOON, count, moves, query, until

from piecework import BatchOutcomes, CurrentBatch, Fail, Jobs, Reschedule, WorkerSettings

SHORT = timedelta(milliseconds=200)


async def test_a_cancelled_job_of_a_batch_is_told_and_the_others_go_on(jobs: Jobs, dsn: str) -> None:
    started = asyncio.Event()

    @jobs.batched(retry=ONCE)
    async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes[int]:
        started.set()
        await until(lambda: batch.items[1].cancel_requested)
        assert [item.cancel_requested for item in batch.items] == [False, True, False]
        return batch.outcomes(lambda item: Fail("stopped") if item.cancel_requested else item.config.number)

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(3))
    async with jobs.worker():
        await started.wait()
        assert await handles[1].cancel()
        await handles.wait(timeout=SOON)
    assert await statuses(handles) == ["completed", "cancelled", "completed"]
    assert moves(dsn, handles[1].id) == ["cancel"]
    assert count(dsn, "cancel_requests") == 0


async def test_a_cancelled_job_that_completes_with_its_batch_is_completed(jobs: Jobs) -> None:
    started = asyncio.Event()

    @jobs.batched
    async def index(batch: CurrentBatch[Doc]) -> None:
        started.set()
        await until(lambda: batch.items[0].cancel_requested)

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(2))
    async with jobs.worker():
        await started.wait()
        await handles[0].cancel()
        await handles.wait(timeout=SOON)
    assert await statuses(handles) == ["completed", "completed"]


async def test_when_the_batch_raises_its_cancelled_jobs_are_cancelled_and_the_others_run_again(
    jobs: Jobs, dsn: str
) -> None:
    started = asyncio.Event()

    @jobs.batched(retry=QUICK)
    async def index(batch: CurrentBatch[Doc]) -> None:
        if batch.items[0].attempt == 1:
            started.set()
            await until(lambda: batch.items[0].cancel_requested)
            raise ConnectionError

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(2))
    async with jobs.worker():
        await started.wait()
        await handles[0].cancel()
        await handles.wait(timeout=SOON)
    assert await statuses(handles) == ["cancelled", "completed"]


async def test_a_batch_whose_jobs_are_all_cancelled_is_stopped(jobs: Jobs) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    @jobs.batched
    async def endless(batch: CurrentBatch[Doc]) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    handles = await jobs.spawn_all(endless.spec(Doc(number)) for number in range(3))
    async with jobs.worker():
        await started.wait()
        for handle in handles:
            assert not stopped.is_set()
            await handle.cancel()
        await handles.wait(timeout=SOON)
    assert await statuses(handles) == ["cancelled"] * 3


async def test_a_timeout_is_a_failed_attempt_of_every_job_of_the_batch(jobs: Jobs, dsn: str) -> None:
    sizes: list[int] = []

    @jobs.batched(timeout=SHORT, retry=QUICK)
    async def slow(batch: CurrentBatch[Doc]) -> None:
        sizes.append(len(batch.items))
        if batch.items[0].attempt == 1:
            await asyncio.Event().wait()

    handles = await jobs.spawn_all(slow.spec(Doc(number)) for number in range(3))
    async with jobs.worker():
        await handles.wait(timeout=SOON)
    assert await statuses(handles) == ["completed"] * 3
    assert sizes == [3, 1, 1, 1]
    found = query(dsn, "SELECT move, error->>'type', count(*) FROM piecework.attempts GROUP BY 1, 2")
    assert found == [("retry", "TimeoutError", 3)]


async def test_a_batch_within_the_grace_ends_in_order_when_the_worker_stops(jobs: Jobs, dsn: str) -> None:
    started = asyncio.Event()

    @jobs.batched
    async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes:
        started.set()
        await batch.wait_for_shutdown()
        assert batch.shutdown_requested
        return batch.outcomes(lambda item: Reschedule.now() if item.config.number else None)

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(3))
    async with jobs.worker():
        await started.wait()
    assert await statuses(handles) == ["completed", "pending", "pending"]
    assert count(dsn, "jobs WHERE worker_id IS NOT NULL") == 0


async def test_a_batch_beyond_the_grace_is_stopped_and_its_jobs_are_handed_back_as_they_were(
    jobs: Jobs, dsn: str
) -> None:
    started = asyncio.Event()

    @jobs.batched
    async def endless(batch: CurrentBatch[Doc]) -> None:
        started.set()
        await asyncio.Event().wait()

    handles = await jobs.spawn_all(endless.spec(Doc(number)) for number in range(3))
    async with jobs.worker(WorkerSettings(shutdown_grace=timedelta(milliseconds=100))):
        await started.wait()
    assert [(each.status, each.attempt, each.failures) for each in await loaded(handles)] == [("pending", 1, 0)] * 3
    assert [moves(dsn, handle.id) for handle in handles] == [["release"]] * 3


@pytest.fixture
async def table(dsn: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute("CREATE TABLE written (number int PRIMARY KEY)")
        yield conn


async def test_a_stopped_batch_leaves_nothing_of_its_transaction(
    jobs: Jobs, dsn: str, table: psycopg.AsyncConnection
) -> None:
    started = asyncio.Event()

    @jobs.batched
    async def writes(batch: CurrentBatch[Doc]) -> BatchOutcomes:
        async def each(item: object, conn: psycopg.AsyncConnection) -> None:
            await conn.execute("INSERT INTO written VALUES (1)")
            started.set()
            await asyncio.Event().wait()

        return await batch.run_isolated(each)

    handles = await jobs.spawn_all(writes.spec(Doc(number)) for number in range(3))
    async with jobs.worker(WorkerSettings(shutdown_grace=timedelta(milliseconds=100))):
        await started.wait()
    assert await statuses(handles) == ["pending"] * 3
    assert count(dsn, "jobs WHERE worker_id IS NOT NULL") == 0
    assert await (await table.execute("SELECT * FROM written")).fetchall() == []
