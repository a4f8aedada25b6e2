"""What runs save for the runs after them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypedDict

import pytest
from engine.helpers import SOON, count, until, value

from piecework import (
    ClaimLost,
    CurrentJob,
    DatabaseError,
    JobErrored,
    Jobs,
    LivenessSettings,
    Reschedule,
    RetrySettings,
    WorkerSettings,
)

QUICK = RetrySettings(min_backoff=timedelta(milliseconds=10))
ONCE = RetrySettings(n_attempts=1)


@dataclass
class Cursor:
    page: int
    note: str = ""


class Place(TypedDict):
    page: int


@pytest.mark.postgres(18, 15)
async def test_a_state_survives_failed_attempts_and_goes_with_the_end_of_the_job(jobs: Jobs, dsn: str) -> None:
    seen: list[Cursor | None] = []

    @jobs.job(retry=QUICK)
    async def pages(job: CurrentJob) -> int:
        cursor = job.execution_state(Cursor)
        seen.append(cursor)
        page = 0 if cursor is None else cursor.page
        await job.save_state(Cursor(page + 1))
        own = job.execution_state(Cursor)
        assert own == Cursor(page + 1)
        if page < 2:
            raise ConnectionError
        return page

    async with jobs.worker():
        assert await (await pages.spawn()).result(timeout=SOON) == 2
    assert seen == [None, Cursor(1), Cursor(2)]
    assert count(dsn, "execution_states") == 0


async def test_a_def_job_saves_and_reads_from_its_thread(jobs: Jobs) -> None:
    @jobs.job(retry=QUICK)
    def pages(job: CurrentJob) -> list[int]:
        done = job.execution_state(list[int]) or []
        if len(done) == 2:
            return done
        job.save_state_sync([*done, job.attempt])
        raise ConnectionError

    async with jobs.worker():
        assert await (await pages.spawn()).result(timeout=SOON) == [1, 2]


async def test_a_state_survives_a_reschedule(jobs: Jobs) -> None:
    @jobs.job
    async def hops(job: CurrentJob) -> str | Reschedule:
        place = job.execution_state(Place) or Place(page=0)
        if place["page"] == 3:
            return f"attempt {job.attempt}"
        await job.save_state(Place(page=place["page"] + 1))
        return Reschedule.now()

    async with jobs.worker():
        assert await (await hops.spawn()).result(timeout=SOON) == "attempt 1"


async def test_a_state_survives_the_loss_of_the_worker_which_cannot_save_any_more(dsn: str, jobs: Jobs) -> None:
    """It goes on in a thread, and nobody can stop it."""
    saved, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    after: list[object] = []

    def run(job: CurrentJob) -> int:
        if job.claim_no > 1:
            return job.execution_state(int) or 0
        job.save_state_sync(1)
        loop.call_soon_threadsafe(saved.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
        try:
            job.save_state_sync(2)
        except ClaimLost as error:
            after.append(str(error))
        after.append(job.execution_state(int))
        return 0

    pages = jobs.job("pages")(run)
    async with Jobs(dsn) as others:
        others.job("pages")(run)
        async with jobs.worker():
            handle = await pages.spawn()
            await saved.wait()
            dead, beat = str(value(dsn, "SELECT id FROM piecework.workers")), "SELECT beat_no FROM piecework.workers"
            async with others.worker(WorkerSettings(concurrency=1)):
                value(dsn, f"SELECT piecework.rescue_1('{dead}', ({beat} WHERE id = '{dead}'), '18 s')")
                assert await handle.result(timeout=SOON) == 1
                go_on.set()
                await until(lambda: len(after) == 2)
    assert f"save_state has no effect on job {handle.id}" in str(after[0])
    assert after[1] == 1


async def test_a_run_that_is_handed_back_leaves_its_state(jobs: Jobs, dsn: str) -> None:
    started = asyncio.Event()

    @jobs.job
    async def stays(job: CurrentJob) -> int:
        if (page := job.execution_state(int)) is not None:
            return page
        await job.save_state(5)
        started.set()
        await asyncio.Event().wait()
        return 0

    async with jobs.worker(WorkerSettings(shutdown_grace=timedelta(milliseconds=1))):
        handle = await stays.spawn()
        await started.wait()
    async with jobs.worker():
        assert await handle.result(timeout=SOON) == 5


async def test_jobs_inherit_the_state_of_the_job_before_them_with_their_key(jobs: Jobs, dsn: str) -> None:
    @jobs.job(key="{account}", inherits_state=True, retry=QUICK)
    async def sync(job: CurrentJob, account: str) -> int:
        cursor = job.execution_state(int) or 0
        await job.save_state(cursor + 1)
        if job.attempt == 1:
            raise ConnectionError
        return cursor + 1

    async with jobs.worker():
        for expected in (2, 4):
            assert await (await sync.spawn("a")).result(timeout=SOON) == expected
        assert await (await sync.spawn("b")).result(timeout=SOON) == 2
    assert count(dsn, "execution_states WHERE job_id IS NULL") == 2


async def test_a_state_of_another_type_fails_the_attempt_and_says_what_is_stored(jobs: Jobs) -> None:
    @jobs.job(retry=RetrySettings(n_attempts=2, min_backoff=timedelta(milliseconds=10)))
    async def pages(job: CurrentJob) -> None:
        if job.attempt == 1:
            await job.save_state({"page": "one"})
            raise ConnectionError
        job.execution_state(Cursor)

    async with jobs.worker():
        with pytest.raises(JobErrored, match=r"UndecodableState.*of type pages is no .*Cursor.*\"one\""):
            await (await pages.spawn()).result(timeout=SOON)


@pytest.mark.parametrize(
    "write",
    [
        lambda job: job.save_state(1), lambda job: job.set_result(1), lambda job: job.progress(1),
    ],
    ids=["save_state", "set_result", "progress"],
)  # fmt: skip
async def test_a_write_behind_ones_own_open_transaction_gives_up_and_says_why(
    jobs: Jobs, write: Callable[[CurrentJob], object]
) -> None:
    seen: list[int | None] = []

    @jobs.job(retry=ONCE)
    async def job_of_mine(job: CurrentJob) -> None:
        async with job.completing() as conn:
            await job.complete_in(conn)
            try:
                await write(job)  # type: ignore[misc]
            except DatabaseError:
                seen.append(job.execution_state(int))
                raise

    async with jobs.worker():
        with pytest.raises(JobErrored, match=r"an open transaction holds the job.*write with its connection: conn="):
            await (await job_of_mine.spawn()).result(timeout=SOON)
    assert seen == [None]


async def test_a_blocking_write_on_the_event_loop_is_refused(jobs: Jobs) -> None:
    @jobs.job(retry=ONCE)
    async def blocks(job: CurrentJob) -> None:
        job.save_state_sync(1)

    async with jobs.worker():
        with pytest.raises(JobErrored, match=r"write `await ….save_state\(…\)` here"):
            await (await blocks.spawn()).result(timeout=SOON)


async def test_runs_that_save_nothing_make_no_statement_more(jobs: Jobs, dsn: str) -> None:
    """They open no context either: what is not used costs nothing."""
    opened: list[object] = []

    @jobs.job
    async def plain(job: CurrentJob) -> None:
        opened.append(job._run_open)

    async with jobs.worker(WorkerSettings(liveness=LivenessSettings())):
        await (await plain.spawn()).result(timeout=SOON)
    assert opened == [None]
