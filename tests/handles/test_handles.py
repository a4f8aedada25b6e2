"""Handles of one job and of many: loading, waiting, retrying, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from engine.helpers import SOON, WorkerProcess, until, value

from piecework import CurrentJob, JobKeyHeld, JobNotFinished, JobNotFound, Jobs, new_id

Workers = Callable[..., WorkerProcess]
NOT_LONG = timedelta(milliseconds=100)
BLOCKED = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND cardinality(pg_blocking_pids(pid)) > 0"
)


async def test_many_jobs_are_loaded_in_the_order_of_their_handles(jobs: Jobs) -> None:
    @jobs.job
    async def work(number: int) -> int:
        return number

    spawned = await jobs.spawn_all(work.spec(number) for number in range(5))
    turned = jobs.handles([handle.id for handle in reversed(spawned)])
    assert [each.id for each in await turned.load()] == [handle.id for handle in turned]
    assert await asyncio.to_thread(turned.load_sync) == await turned.load()
    unknown = new_id()
    with pytest.raises(JobNotFound, match=str(unknown)):
        await (turned + jobs.handles([unknown])).load()
    assert await jobs.handles([]).load() == []


async def test_results_are_in_order_also_when_the_jobs_end_in_reverse(jobs: Jobs) -> None:
    gates = [asyncio.Event() for _ in range(4)]

    @jobs.job
    async def work(number: int) -> int:
        await gates[number].wait()
        if number:
            gates[number - 1].set()
        return number

    handles = await jobs.spawn_all(work.spec(number) for number in range(4))
    gates[-1].set()
    async with jobs.worker():
        assert await handles.results(timeout=SOON) == [0, 1, 2, 3]
        assert [outcome.result for outcome in await handles[::-1].wait(timeout=SOON)] == [3, 2, 1, 0]


async def test_handles_are_joined_with_others_and_keep_what_each_call_said(jobs: Jobs) -> None:
    @jobs.job
    async def work() -> None: ...

    made = await jobs.spawn_all([work.spec(), work.spec()])
    other = await work.spawn()
    others = [other, work.handle(made[0].id)]
    joined = made + others
    assert [handle.created for handle in joined] == [True, True, True, False]
    assert [handle.id for handle in joined[1:3]] == [made[1].id, other.id]
    assert list(joined + jobs.handles([])) == list(joined)
    elsewhere = Jobs("postgresql://elsewhere").handles([other.id])
    with pytest.raises(ValueError, match="two Jobs"):
        _ = made + elsewhere


async def test_a_wait_of_many_that_times_out_names_those_that_have_not_ended(jobs: Jobs) -> None:
    @jobs.job
    async def work() -> None: ...

    @jobs.job
    async def never() -> None:
        await asyncio.Event().wait()

    async with jobs.worker():
        ends = await jobs.spawn_all([work.spec()])
        others = await jobs.spawn_all(never.spec() for _ in range(7))
        await ends.results(timeout=SOON)
        with pytest.raises(JobNotFinished) as late:
            await (others[:2] + ends).results(timeout=NOT_LONG)
        assert "2 of 3 jobs have not ended" in str(late.value)
        assert [str(handle.id) in str(late.value) for handle in [*others[:3], *ends]] == [True, True, False, False]
        with pytest.raises(JobNotFinished, match="7 of 8 jobs") as late:
            await (others + ends).wait(timeout=NOT_LONG)
        assert [str(handle.id) in str(late.value) for handle in others] == [True] * 5 + [False] * 2
        assert "and 2 more" in str(late.value)
        with pytest.raises(JobNotFinished, match=f"job {others[0].id} of type never is still running"):
            await (jobs.handles([others[0].id, others[0].id])).wait(timeout=NOT_LONG)
        # The wait left nothing behind: another one sees the end.
        assert await others.cancel() == [True] * 7
        assert {outcome.status for outcome in await others.wait(timeout=SOON)} == {"cancelled"}


async def test_no_handles_are_waited_for_at_once(jobs: Jobs) -> None:
    assert await jobs.handles([]).wait(timeout=timedelta(0)) == []
    assert await jobs.handles([]).results(timeout=SOON) == []
    assert await jobs.handles([]).retry() == []


async def test_many_jobs_are_retried_and_each_is_answered(jobs: Jobs) -> None:
    @jobs.job
    async def work() -> None: ...

    done = await jobs.spawn_all([work.spec(), work.spec()])
    async with jobs.worker():
        await done.results(timeout=SOON)
    live = await jobs.spawn_all([work.spec()])
    assert await (done + live).retry() == [True, True, False]
    assert [each.status for each in await done.load()] == ["pending", "pending"]
    unknown = new_id()
    await done.cancel()
    with pytest.raises(JobNotFound, match=str(unknown)):
        await (jobs.handles([unknown]) + list(done)).retry()
    assert [each.status for each in await done.load()] == ["pending", "pending"], "the others are retried even so"
    assert await asyncio.to_thread(done.retry_sync) == [False, False]


async def test_a_job_whose_key_a_live_job_has_is_not_brought_back(jobs: Jobs) -> None:
    @jobs.job
    async def work(number: int) -> int:
        return number

    keyed = work.options(key="k")
    first = await keyed.spawn(1)
    async with jobs.worker():
        await first.result(timeout=SOON)
    second = await keyed.spawn(2)
    for retry in (first.retry(), asyncio.to_thread(first.retry_sync), jobs.handles([first.id]).retry()):
        with pytest.raises(JobKeyHeld, match=f"the live job {second.id} of its type has its key"):
            await retry
    assert (await first.load()).status == "completed", "it stays as it was"
    await second.cancel()
    # Of two jobs of one key in one call the newer comes back.
    with pytest.raises(JobKeyHeld, match=f"job {first.id} is not brought back: the live job {second.id}"):
        await (jobs.handles([first.id, second.id])).retry()
    assert [each.status for each in await jobs.handles([first.id, second.id]).load()] == ["completed", "pending"]
    other = await work.options(key="other").spawn(3)
    await other.cancel()
    assert await other.retry(), "another key is free"


async def test_a_retry_waits_for_a_spawn_of_its_key_that_is_open(jobs: Jobs, dsn: str) -> None:
    @jobs.job
    async def work() -> None: ...

    first = await work.options(key="k").spawn()
    await first.cancel()
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        holder = await work.options(key="k", conn=conn).spawn()
        retry = asyncio.create_task(first.retry())
        await until(lambda: value(dsn, BLOCKED))
        await conn.commit()
        with pytest.raises(JobKeyHeld, match=str(holder.id)):
            await retry


async def test_the_result_of_a_job_is_waited_for_without_a_worker_in_this_process(
    workers: Workers, jobs: Jobs, dsn: str
) -> None:
    """A process that only spawns may wait, and needs no runner's code: the handle of a bare id reads plain values."""
    workers()
    async with Jobs(dsn) as producer:

        @producer.job
        async def erratic(number: int) -> int: ...

        handle = await erratic.spawn(3)
        assert await handle.result(timeout=SOON) == 3
    assert await jobs.handle(handle.id).result(timeout=SOON) == 3


async def test_a_job_type_gives_typed_handles_of_many_jobs_by_their_ids(jobs: Jobs) -> None:
    @jobs.job
    async def double(number: int) -> int:
        return 2 * number

    ids = [(await double.spawn(number)).id for number in (3, 1, 2)]
    async with jobs.worker():
        assert await double.handles(ids).results(timeout=SOON) == [6, 2, 4]


async def test_a_run_knows_when_it_was_due(jobs: Jobs) -> None:
    seen: list[datetime] = []

    @jobs.job
    async def late(job: CurrentJob) -> None:
        seen.append(job.run_at)

    moment = datetime(2020, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    handle = await late.options(run_at=moment).spawn()
    async with jobs.worker():
        await handle.result(timeout=SOON)
    assert seen == [moment]
