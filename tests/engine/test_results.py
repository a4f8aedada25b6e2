"""Results so far, and how far a run is."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from engine.helpers import SOON, count

from piecework import CurrentJob, JobCancelled, JobErrored, Jobs, RetrySettings

QUICK = RetrySettings(min_backoff=timedelta(milliseconds=10))
TWICE = RetrySettings(n_attempts=2, min_backoff=timedelta(milliseconds=10))


@pytest.mark.postgres(18, 15)
async def test_the_last_result_that_was_set_counts_also_if_it_was_set_before(jobs: Jobs, dsn: str) -> None:
    @jobs.job
    async def sets(job: CurrentJob) -> str | None:
        for result in ("A", "B", "A"):
            await job.set_result(result)

    async with jobs.worker():
        assert await (await sets.spawn()).result(timeout=SOON) == "A"
    assert count(dsn, "progress") == 0


async def test_a_returned_value_wins_over_what_was_set_and_none_does_not(jobs: Jobs) -> None:
    @jobs.job
    def returns(job: CurrentJob, value: int | None) -> int | None:
        job.set_result_sync(7)
        return value

    async with jobs.worker():
        handles = await jobs.spawn_all([returns.spec(None), returns.spec(0)])
        assert await handles.results(timeout=SOON) == [7, 0]


async def test_a_result_that_was_taken_back_is_none(jobs: Jobs) -> None:
    @jobs.job
    async def sets(job: CurrentJob) -> int | None:
        await job.set_result(7)
        await job.set_result(None)

    async with jobs.worker():
        assert await (await sets.spawn()).result(timeout=SOON) is None


async def test_a_result_of_a_failed_attempt_is_the_jobs_until_another_is_set(jobs: Jobs) -> None:
    @jobs.job(retry=QUICK)
    async def sets(job: CurrentJob, again: bool) -> int | None:
        if job.attempt == 1:
            await job.set_result(1)
            raise ConnectionError
        if again:
            await job.set_result(2)
        return None

    async with jobs.worker():
        handles = await jobs.spawn_all([sets.spec(False), sets.spec(True)])
        assert await handles.results(timeout=SOON) == [1, 2]


async def test_a_job_that_errors_keeps_what_its_runs_have_set(jobs: Jobs) -> None:
    @jobs.job(retry=TWICE)
    async def sets(job: CurrentJob) -> list[int]:
        if job.attempt == 1:
            await job.set_result([1, 2, 3])
        raise ConnectionError("gone")

    async with jobs.worker():
        handle = await sets.spawn()
        with pytest.raises(JobErrored):
            await handle.result(timeout=SOON)
        outcome = await handle.wait(timeout=SOON)
    assert (outcome.status, outcome.result) == ("errored", [1, 2, 3])


async def test_a_job_that_is_cancelled_keeps_what_its_runs_have_set(jobs: Jobs) -> None:
    started = asyncio.Event()

    @jobs.job
    async def sets(job: CurrentJob) -> int:
        await job.set_result(4)
        started.set()
        await asyncio.Event().wait()
        return 0

    async with jobs.worker():
        handle = await sets.spawn()
        await started.wait()
        assert await handle.cancel()
        with pytest.raises(JobCancelled):
            await handle.result(timeout=SOON)
        snapshot = await handle.load()
    assert snapshot.result_as(int) == 4


async def test_whoever_looks_at_a_running_job_sees_how_far_it_is(jobs: Jobs, dsn: str) -> None:
    reported, go_on = asyncio.Event(), asyncio.Event()

    @jobs.job
    async def works(job: CurrentJob) -> None:
        await job.progress(0.25, "the first quarter")
        await job.progress(0.5)
        await job.set_result(None)
        reported.set()
        await go_on.wait()

    async with jobs.worker():
        handle = await works.spawn()
        await reported.wait()
        progress = (await handle.load()).progress
        assert progress is not None
        assert (progress.done, progress.note) == (0.5, "")
        go_on.set()
        await handle.result(timeout=SOON)
    assert (await handle.load()).progress is None
    assert count(dsn, "progress") == 0


async def test_a_result_that_cannot_be_stored_is_refused_where_it_is_set(jobs: Jobs) -> None:
    @jobs.job(retry=RetrySettings(n_attempts=1))
    async def sets(job: CurrentJob, nul: bool) -> None:
        await job.set_result("\0" if nul else object())

    async with jobs.worker():
        for nul, said in ((True, "NUL"), (False, "cannot be written as JSON")):
            with pytest.raises(JobErrored, match=said):
                await (await sets.spawn(nul)).result(timeout=SOON)
