"""A timeout, a cancel and a shutdown that meet an open block, or come after it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from completing.effects import PAY, Effects
from engine.helpers import SOON, count, until, value

from piecework import CurrentJob, JobCancelled, JobErrored, Jobs, RetrySettings, WorkerSettings

QUICK = RetrySettings(min_backoff=timedelta(milliseconds=10))
ONCE = RetrySettings(n_attempts=1)
A_MOMENT = timedelta(milliseconds=100)
AT_ONCE = WorkerSettings(shutdown_grace=timedelta(milliseconds=1))
Warnings = Callable[[], list[str]]


async def test_a_timeout_in_the_block_rolls_it_back_and_the_attempt_has_failed(jobs: Jobs, effects: Effects) -> None:
    @jobs.job(retry=ONCE, timeout=A_MOMENT)
    async def pay(job: CurrentJob) -> None:
        async with job.completing() as conn:
            await conn.execute(PAY)
            await asyncio.Event().wait()

    async with jobs.worker():
        with pytest.raises(JobErrored, match="TimeoutError"):
            await (await pay.spawn()).result(timeout=SOON)
        await until(lambda: effects.open_transactions == 0)
    assert (effects.all, effects.guards) == ([], 0)


async def test_a_timeout_in_a_statement_of_the_block_rolls_it_back(jobs: Jobs, effects: Effects) -> None:
    @jobs.job(retry=ONCE, timeout=A_MOMENT)
    async def pay(job: CurrentJob) -> None:
        async with job.completing() as conn:
            await conn.execute(PAY)
            await conn.execute("SELECT pg_sleep(30)")

    async with jobs.worker():
        with pytest.raises(JobErrored, match="TimeoutError"):
            await (await pay.spawn()).result(timeout=SOON)
    assert effects.all == []


async def test_a_cancel_in_the_block_rolls_it_back_and_the_job_is_cancelled(jobs: Jobs, effects: Effects) -> None:
    inside = asyncio.Event()

    @jobs.job
    async def pay(job: CurrentJob) -> None:
        async with job.completing() as conn:
            await conn.execute(PAY)
            inside.set()
            await asyncio.Event().wait()

    async with jobs.worker():
        handle = await pay.spawn()
        await inside.wait()
        assert await handle.cancel()
        with pytest.raises(JobCancelled):
            await handle.result(timeout=SOON)
    assert effects.all == []


async def test_a_shutdown_in_the_block_rolls_it_back_and_the_job_runs_again_with_the_next_worker(
    jobs: Jobs, effects: Effects
) -> None:
    inside = asyncio.Event()

    @jobs.job
    async def pay(job: CurrentJob) -> int | None:
        async with job.completing() as conn:
            await conn.execute(PAY)
            await job.set_result(job.attempt, conn=conn)
            if not inside.is_set():
                inside.set()
                await asyncio.Event().wait()

    async with jobs.worker(AT_ONCE):
        handle = await pay.spawn()
        await inside.wait()
    assert (effects.all, effects.moves(handle)) == ([], ["release"])
    async with jobs.worker():
        assert await handle.result(timeout=SOON) == 1
    assert effects.all == ["paid"]


async def test_a_shutdown_lets_a_block_in_a_thread_come_to_its_end(jobs: Jobs, effects: Effects) -> None:
    inside = asyncio.Event()
    loop = asyncio.get_running_loop()

    @jobs.job
    def pay(job: CurrentJob) -> None:
        with job.completing() as conn:
            conn.execute(PAY)
            loop.call_soon_threadsafe(inside.set)
            assert job.wait_for_shutdown_sync(SOON)

    async with jobs.worker(AT_ONCE):
        handle = await pay.spawn()
        await inside.wait()
    assert (effects.all, effects.moves(handle), (await handle.load()).status) == (["paid"], [], "completed")


@pytest.mark.parametrize("stop", ["cancel", "timeout", "shutdown"])
async def test_what_stops_a_run_after_its_block_changes_nothing(
    jobs: Jobs, effects: Effects, warnings: Warnings, stop: str
) -> None:
    after = asyncio.Event()
    timeout = timedelta(seconds=1) if stop == "timeout" else SOON

    @jobs.job(timeout=timeout)
    async def pay(job: CurrentJob) -> None:
        async with job.completing() as conn:
            await conn.execute(PAY)
        after.set()
        await asyncio.Event().wait()

    async with jobs.worker(AT_ONCE):
        handle = await pay.spawn()
        await after.wait()
        if stop == "cancel":
            assert not await handle.cancel(), "it has ended"
            return
        if stop == "timeout":
            await until(lambda: count(effects.dsn, "guards") == 0)
            await handle.result(timeout=SOON)
            await asyncio.sleep(1.2)  # its timeout
    assert (effects.all, effects.moves(handle), warnings()) == (["paid"], [], [])
    assert (await handle.load()).status == "completed"


@pytest.mark.parametrize("stop", ["cancel", "timeout"])
async def test_a_block_in_a_thread_that_comes_to_its_end_completes_the_job_whatever_was_asked_meanwhile(
    jobs: Jobs, effects: Effects, warnings: Warnings, stop: str
) -> None:
    inside = asyncio.Event()
    loop = asyncio.get_running_loop()
    asked = threading.Event()

    @jobs.job(timeout=timedelta(milliseconds=200) if stop == "timeout" else SOON)
    def pay(job: CurrentJob) -> None:
        with job.completing() as conn:
            conn.execute(PAY)
            loop.call_soon_threadsafe(inside.set)
            while not job.cancel_requested:
                asked.wait(0.01)

    async with jobs.worker():
        handle = await pay.spawn()
        await inside.wait()
        if stop == "cancel":
            assert await handle.cancel()
        await handle.result(timeout=SOON)
    assert (effects.all, effects.moves(handle), warnings()) == (["paid"], [], [])
    assert count(effects.dsn, "cancel_requests") == 0


async def test_a_cancel_does_not_wait_for_an_open_completion(jobs: Jobs, effects: Effects) -> None:
    completed, go_on = asyncio.Event(), asyncio.Event()

    @jobs.job
    def pay(job: CurrentJob) -> None:
        with job.completing() as conn:
            conn.execute(PAY)
            job.complete_in_sync(conn)
            loop.call_soon_threadsafe(completed.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()

    loop = asyncio.get_running_loop()
    async with jobs.worker():
        handle = await pay.spawn()
        await completed.wait()
        assert await handle.cancel()
        go_on.set()
        await handle.result(timeout=SOON)
    assert (effects.all, (await handle.load()).status) == (["paid"], "completed")


async def test_a_session_that_dies_in_the_block_is_a_failed_attempt_and_the_next_gets_a_new_one(
    jobs: Jobs, effects: Effects
) -> None:
    @jobs.job(retry=QUICK)
    async def pay(job: CurrentJob) -> None:
        async with job.completing() as conn:
            await conn.execute(PAY)
            if job.attempt == 1:
                value(effects.dsn, f"SELECT pg_terminate_backend({conn.info.backend_pid})")

    async with jobs.worker():
        handle = await pay.spawn()
        await handle.result(timeout=SOON)
    assert (effects.all, effects.moves(handle)) == (["paid"], ["retry"])


@pytest.mark.parametrize("in_thread", [False, True])
async def test_an_idle_connection_that_died_is_replaced_before_the_block(
    jobs: Jobs, effects: Effects, in_thread: bool
) -> None:
    def pay_in_thread(job: CurrentJob) -> None:
        with job.completing() as conn:
            conn.execute(PAY)

    async def pay_in_loop(job: CurrentJob) -> None:
        async with job.completing() as conn:
            await conn.execute(PAY)

    settings = jobs.job("pay", retry=ONCE)
    pay = settings(pay_in_thread) if in_thread else settings(pay_in_loop)
    async with jobs.worker():
        await (await pay.spawn()).result(timeout=SOON)
        value(
            effects.dsn,
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() "
            "AND query = 'COMMIT' AND application_name = 'piecework'",
        )
        await (await pay.spawn()).result(timeout=SOON)
    assert effects.all == ["paid"] * 2


async def test_connections_of_blocks_are_kept_and_end_a_transaction_that_is_left_idle(
    jobs: Jobs, effects: Effects
) -> None:
    seen: list[tuple[object, ...]] = []

    @jobs.job
    async def look(job: CurrentJob) -> None:
        async with job.completing() as conn:
            cursor = await conn.execute(
                "SELECT pg_backend_pid(), current_setting('idle_in_transaction_session_timeout'), "
                "current_setting('transaction_isolation'), %s::int", [7],
            )  # fmt: skip
            seen.extend(await cursor.fetchall())
            conn.row_factory = None  # type: ignore[assignment]  # what a job does to it, the next does not see

    async with jobs.worker():
        for _ in range(2):
            await (await look.spawn()).result(timeout=SOON)
    assert seen[0][1:] == ("5min", "read committed", 7)
    assert seen[0] == seen[1]


async def test_many_blocks_share_a_few_connections_and_may_spawn_inside(dsn: str, effects: Effects) -> None:
    most: list[int] = []
    async with Jobs(dsn, max_connections=2) as jobs:

        @jobs.job
        async def receipt() -> None: ...

        @jobs.job
        async def pay(job: CurrentJob) -> None:
            async with job.completing() as conn:
                await conn.execute(PAY)
                await receipt.spawn()
                most.append(effects.open_transactions)

        async with jobs.worker():
            await (await jobs.spawn_all([pay.spec() for _ in range(20)])).results(timeout=SOON)
    assert (len(effects.all), max(most) <= 2) == (20, True)
