"""Behaviours that the crate's tests pin, where no other test here shows them. docs/seed.md lists all of them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from engine.helpers import SOON, count, moves, query, until

from piecework import (
    CurrentJob,
    JobNotFinished,
    JobOutcome,
    Jobs,
    RegistrationError,
    Reschedule,
    RetrySettings,
    WorkerSettings,
)

NOT_LONG = timedelta(milliseconds=100)
ONCE = RetrySettings.never()


@pytest.mark.parametrize("workers", [1, 2])
async def test_jobs_of_one_concurrency_key_run_one_after_the_other_in_the_order_of_their_spawns(
    jobs: Jobs, dsn: str, workers: int
) -> None:
    running: list[int] = []
    began: list[int] = []
    most: list[int] = []

    async def step(number: int) -> None:
        running.append(number)
        began.append(number)
        most.append(len(running))
        await asyncio.sleep(0.005)
        running.remove(number)

    async with Jobs(dsn) as others, AsyncExitStack() as stack:
        steps = jobs.job("step", concurrency_key="line")(step)
        others.job("step", concurrency_key="line")(step)
        handles = [await steps.spawn(number) for number in range(20)]
        for each in (jobs, others)[:workers]:
            await stack.enter_async_context(each.worker())
        await steps.handles(handle.id for handle in handles).wait(timeout=SOON)
    assert began == list(range(20))
    assert set(most) == {1}


async def test_jobs_of_different_concurrency_keys_and_jobs_without_one_run_beside_each_other(jobs: Jobs) -> None:
    all_of_them = asyncio.Barrier(4)

    @jobs.job
    async def meet() -> None:
        await all_of_them.wait()

    keyed = [meet.options(concurrency_key=key).spec() for key in ("a", "b")]
    async with jobs.worker():
        handles = await jobs.spawn_all([*keyed, meet.spec(), meet.spec()])
        await handles.results(timeout=SOON)


async def test_a_wait_for_a_job_that_has_ended_returns_at_once(jobs: Jobs) -> None:
    @jobs.job
    async def work() -> int:
        return 7

    async with jobs.worker():
        handle = await work.spawn()
        await handle.wait(timeout=SOON)
    assert await handle.result(timeout=timedelta(0)) == 7, "also where no worker is left to tell of it"


async def test_a_wait_that_timed_out_leaves_nothing_and_the_next_one_is_answered(jobs: Jobs) -> None:
    gate = asyncio.Event()

    @jobs.job
    async def work(number: int) -> int:
        if number == 1:
            await gate.wait()
        return number

    async with jobs.worker():
        handles = await jobs.spawn_all(work.spec(number) for number in range(3))
        with pytest.raises(JobNotFinished, match=str(handles[1].id)):
            await handles.results(timeout=NOT_LONG)
        waits = asyncio.create_task(handles.results(timeout=SOON), name="another wait")
        gate.set()
        assert await waits == [0, 1, 2]


async def test_a_cancelled_wait_takes_nothing_from_the_others(jobs: Jobs) -> None:
    gate = asyncio.Event()

    @jobs.job
    async def work() -> str:
        await gate.wait()
        return "done"

    async with jobs.worker():
        handle = await work.spawn()
        waits = [asyncio.create_task(handle.result(timeout=SOON), name=f"wait {number}") for number in range(3)]
        await asyncio.sleep(0.05)  # they have begun
        waits[0].cancel()
        gate.set()
        assert await asyncio.gather(*waits[1:]) == ["done", "done"]
        with pytest.raises(asyncio.CancelledError):
            await waits[0]


async def test_outcomes_of_many_jobs_can_be_counted(jobs: Jobs) -> None:
    @jobs.job(retry=ONCE)
    async def work(number: int) -> int:
        return 10 // number

    async with jobs.worker():
        handles = await jobs.spawn_all(work.spec(number) for number in range(4))
        outcomes: list[JobOutcome[int]] = await handles.wait(timeout=SOON)
    assert sum(outcome.status != "completed" for outcome in outcomes) == 1
    assert [outcome.result for outcome in outcomes] == [None, 10, 5, 3]


async def test_a_job_reschedules_itself_in_an_open_transaction_of_its_own_now_in_and_at(jobs: Jobs, dsn: str) -> None:
    query(dsn, "CREATE TABLE writes (step integer)")

    @jobs.job
    async def steps(job: CurrentJob) -> None:
        step = job.execution_state(int) or 0
        again = [Reschedule.now(), Reschedule.after(timedelta(milliseconds=20)), Reschedule.at(datetime.now(UTC)), None]
        async with await psycopg.AsyncConnection.connect(dsn) as conn:
            await conn.execute("INSERT INTO writes VALUES (%s)", (step,))
            await job.save_state(step + 1, conn=conn)
            await job.complete_in(conn, again[step])

    async with jobs.worker():
        handle = await steps.spawn()
        await handle.wait(timeout=SOON)
    assert query(dsn, "SELECT step FROM writes ORDER BY step") == [(0,), (1,), (2,), (3,)]
    assert [move for move in moves(dsn, handle.id) if move != "release"] == ["reschedule"] * 3


async def test_the_state_of_a_job_that_errors_goes_with_it(jobs: Jobs, dsn: str) -> None:
    @jobs.job(retry=ONCE)
    async def work(job: CurrentJob) -> None:
        await job.save_state("so far")
        assert count(dsn, "execution_states") == 1
        raise LookupError

    async with jobs.worker():
        handle = await work.spawn()
        assert (await handle.wait(timeout=SOON)).status == "errored"
    assert count(dsn, "execution_states") == 0
    assert await handle.execution_state(str) is None


async def test_a_finished_job_still_tells_its_concurrency_key(jobs: Jobs) -> None:
    @jobs.job(retry=ONCE)
    async def work(number: int) -> int:
        return 10 // number

    async with jobs.worker():
        handles = await jobs.spawn_all(work.options(concurrency_key="line").spec(number) for number in (0, 1))
        await handles.wait(timeout=SOON)
    told = [(each.status, each.concurrency_key) for each in await handles.load()]
    assert told == [("errored", "line"), ("completed", "line")]


async def test_a_type_at_its_limit_leaves_the_worker_to_the_others(jobs: Jobs, dsn: str) -> None:
    gate = asyncio.Event()

    @jobs.job(max_concurrent_per_process=2)
    async def narrow() -> None:
        await gate.wait()

    @jobs.job
    async def wide() -> None: ...

    backlog = await jobs.spawn_all(narrow.spec() for _ in range(50))
    async with jobs.worker(WorkerSettings(concurrency=10)):
        await until(lambda: count(dsn, "jobs WHERE worker_id IS NOT NULL") == 2)
        await (await jobs.spawn_all(wide.spec() for _ in range(50))).wait(timeout=SOON)
        assert count(dsn, "jobs WHERE worker_id IS NOT NULL") == 2, "the backlog is visible to other workers"
        gate.set()
        await backlog.wait(timeout=SOON)


def test_a_limit_of_zero_is_refused() -> None:
    jobs = Jobs("postgresql://nowhere")
    with pytest.raises(RegistrationError, match="max_concurrent_per_process"):

        @jobs.job(max_concurrent_per_process=0)
        async def narrow() -> None: ...


async def test_a_shutdown_drains_jobs_that_reschedule_themselves_all_the_time(jobs: Jobs, dsn: str) -> None:
    runs: list[int] = []

    @jobs.job
    async def churn(job: CurrentJob) -> Reschedule:
        runs.append(1)
        await asyncio.sleep(0.001)
        return Reschedule.now()

    await jobs.spawn_all(churn.spec() for _ in range(20))
    for _ in range(5):
        before = len(runs)
        async with jobs.worker():
            await until(lambda: len(runs) > before + 40)  # noqa: B023
        ended = len(runs)
        assert count(dsn, "jobs WHERE worker_id IS NULL") == 20, "nothing is held by a worker that is gone"
        assert count(dsn, "attempts WHERE move NOT IN ('reschedule', 'release')") == 0, "nothing was cut off"
        assert count(dsn, "attempts WHERE move = 'reschedule'") == ended, "each run that began came to its end"
        await asyncio.sleep(0.05)
        assert len(runs) == ended
    assert count(dsn, "finished_jobs") == 0
