"""How an attempt ends, and what becomes of its job."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from engine.app import ONCE, QUICK
from engine.helpers import SOON, count, moves, query, until, value

from piecework import CurrentJob, Fail, JobErrored, Jobs, Reschedule, RetrySettings


@pytest.mark.postgres(18, 15)
async def test_an_async_job_completes_with_its_result(jobs: Jobs) -> None:
    @jobs.job
    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    async with jobs.worker():
        handle = await add.spawn(1, b=2)
        assert await handle.result(timeout=SOON) == 3
    snapshot = await handle.load()
    assert snapshot.status == "completed"
    assert (snapshot.attempt, snapshot.claim_no, snapshot.failures) == (1, 1, 0)
    assert snapshot.started_at is not None
    assert snapshot.finished_at is not None
    assert snapshot.created_at <= snapshot.started_at <= snapshot.finished_at


async def test_a_plain_job_completes_with_its_result(jobs: Jobs) -> None:
    @jobs.job
    def shout(text: str) -> str:
        return text.upper()

    async with jobs.worker():
        assert await (await shout.spawn("hear")).result(timeout=SOON) == "HEAR"


async def test_a_job_without_a_result_completes_with_none(jobs: Jobs) -> None:
    @jobs.job
    async def nothing() -> None: ...

    async with jobs.worker():
        assert await (await nothing.spawn()).result(timeout=SOON) is None


async def test_a_completed_job_leaves_one_row_in_the_history_and_no_other(jobs: Jobs, dsn: str) -> None:
    @jobs.job
    async def nothing() -> None: ...

    async with jobs.worker():
        await (await nothing.spawn()).result(timeout=SOON)
    assert count(dsn, "jobs") == 0
    assert count(dsn, "finished_jobs") == 1
    assert count(dsn, "attempts") == 0


@pytest.mark.postgres(18, 15)
async def test_reschedule_now_runs_the_job_again_at_once_as_its_first_attempt(jobs: Jobs, dsn: str) -> None:
    attempts: list[int] = []

    @jobs.job
    async def thrice(job: CurrentJob) -> Reschedule | str:
        attempts.append(job.attempt)
        return "done" if len(attempts) == 3 else Reschedule.now()

    async with jobs.worker():
        handle = await thrice.spawn()
        assert await handle.result(timeout=SOON) == "done"
    assert attempts == [1, 1, 1]
    assert (await handle.load()).claim_no == 3
    assert moves(dsn, handle.id) == ["reschedule", "reschedule"]


async def test_reschedule_after_runs_the_job_again_when_the_delay_has_passed(jobs: Jobs) -> None:
    began: list[float] = []

    @jobs.job
    def twice() -> Reschedule | None:
        began.append(time.monotonic())
        return Reschedule.after(timedelta(milliseconds=300)) if len(began) == 1 else None

    async with jobs.worker():
        await (await twice.spawn()).result(timeout=SOON)
    assert began[1] - began[0] >= 0.3


async def test_reschedule_at_runs_the_job_again_at_that_moment(jobs: Jobs, dsn: str) -> None:
    moment = datetime(2200, 1, 1, tzinfo=UTC)

    @jobs.job
    async def later() -> Reschedule:
        return Reschedule.at(moment)

    @jobs.job
    async def overdue(job: CurrentJob) -> Reschedule | str:
        return "late" if first.pop() else Reschedule.at(datetime(2000, 1, 1, tzinfo=UTC))

    first = [True, False]
    async with jobs.worker():
        handle = await later.spawn()
        assert await (await overdue.spawn()).result(timeout=SOON) == "late"
        await until(lambda: moves(dsn, handle.id) == ["reschedule"])
    snapshot = await handle.load()
    assert snapshot.status == "pending"
    assert snapshot.run_at == moment


@pytest.mark.parametrize("when", [datetime.max.replace(tzinfo=UTC), timedelta.max], ids=["at", "after"])
async def test_a_job_that_is_rescheduled_to_the_end_of_time_can_be_looked_at(
    jobs: Jobs, dsn: str, when: datetime | timedelta
) -> None:
    @jobs.job
    async def never_again() -> Reschedule:
        return Reschedule(when)

    async with jobs.worker():
        handle = await never_again.spawn()
        await until(lambda: moves(dsn, handle.id) == ["reschedule"])
    run_at = (await handle.load()).run_at
    assert run_at is not None
    assert run_at.year > 2100


async def test_a_job_that_is_spawned_for_the_end_of_time_can_be_looked_at(jobs: Jobs) -> None:
    @jobs.job
    async def never() -> None: ...

    handle = await never.options(run_at=datetime.max.replace(tzinfo=UTC)).spawn()
    assert (await handle.load()).run_at == datetime(9999, 12, 31, tzinfo=UTC)


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_job_spawns_another_and_waits_for_it(jobs: Jobs, kind: str) -> None:
    @jobs.job
    async def child(number: int) -> int:
        return number + 1

    @jobs.job("async")
    async def parent() -> int:
        return await (await child.spawn(1)).result(timeout=SOON)

    @jobs.job("plain")
    def parent_in_thread() -> int:
        return child.spawn_sync(1).result_sync(timeout=SOON)

    async with jobs.worker():
        handle = await (parent if kind == "async" else parent_in_thread).spawn()
        assert await handle.result(timeout=SOON) == 2


async def test_a_reschedule_forgets_the_failures_before_it(jobs: Jobs) -> None:
    runs: list[int] = []

    @jobs.job(retry=RetrySettings(n_attempts=2, min_backoff=timedelta(milliseconds=1)))
    async def unsteady(job: CurrentJob) -> Reschedule | str:
        runs.append(job.attempt)
        match len(runs):
            case 1 | 3:
                raise RuntimeError("one of two attempts")
            case 2:
                return Reschedule.now()
            case _:
                return "done"

    async with jobs.worker():
        assert await (await unsteady.spawn()).result(timeout=SOON) == "done"
    assert runs == [1, 2, 1, 2]


@pytest.mark.parametrize("raised", [False, True], ids=["returned", "raised"])
async def test_fail_ends_the_job_whatever_attempts_are_left(jobs: Jobs, dsn: str, raised: bool) -> None:
    @jobs.job
    async def hopeless() -> Fail | None:
        if raised:
            raise Fail("no such account")
        return Fail("no such account")

    @jobs.job
    def hopeless_in_thread() -> Fail | None:
        if raised:
            raise Fail("no such account")
        return Fail("no such account")

    async with jobs.worker():
        for handle in [await hopeless.spawn(), await hopeless_in_thread.spawn()]:
            with pytest.raises(JobErrored, match="no such account"):
                await handle.result(timeout=SOON)
            assert (await handle.load()).status == "errored"
            assert moves(dsn, handle.id) == ["fail"]


async def test_an_error_of_fail_on_ends_the_job_and_others_are_retried(jobs: Jobs) -> None:
    runs: list[str] = []

    @jobs.job(fail_on=(LookupError,), retry=QUICK)
    async def pick(key: str) -> int:
        runs.append(key)
        if runs.count(key) == 1 and key == "other":
            raise ValueError(key)
        return {"other": 1}[key]

    async with jobs.worker():
        with pytest.raises(JobErrored, match="KeyError: 'missing'"):
            await (await pick.spawn("missing")).result(timeout=SOON)
        assert await (await pick.spawn("other")).result(timeout=SOON) == 1
    assert sorted(runs) == ["missing", "other", "other"]


@pytest.mark.postgres(18, 15)
async def test_a_failing_job_runs_exactly_n_attempts_times(jobs: Jobs, dsn: str) -> None:
    runs: list[int] = []

    # On a busy machine a run takes longer than three backoffs of a millisecond, and attempts would count anew.
    never_anew = RetrySettings(
        n_attempts=4, min_backoff=timedelta(milliseconds=1), attempt_reset_after_backoff_multiples=100_000
    )

    @jobs.job(retry=never_anew)
    async def broken(job: CurrentJob) -> None:
        runs.append(job.attempt)
        raise RuntimeError(f"failure {len(runs)}")

    async with jobs.worker():
        handle = await broken.spawn()
        with pytest.raises(JobErrored, match="RuntimeError: failure 4"):
            await handle.result(timeout=SOON)
    assert runs == [1, 2, 3, 4]
    assert moves(dsn, handle.id) == ["retry", "retry", "retry", "fail"]
    snapshot = await handle.load()
    assert (snapshot.status, snapshot.attempt, snapshot.failures) == ("errored", 4, 4)


@pytest.mark.postgres(18, 15)
async def test_every_failed_attempt_is_recorded_with_its_error_and_its_next_run(jobs: Jobs, dsn: str) -> None:
    @jobs.job(retry=RetrySettings(n_attempts=2, min_backoff=timedelta(milliseconds=1)))
    def broken(job: CurrentJob) -> None:
        raise RuntimeError(f"in attempt {job.attempt}")

    async with jobs.worker():
        handle = await broken.spawn()
        await handle.wait(timeout=SOON)
    rows = query(
        dsn,
        "SELECT attempt, claim_no, move, error->>'type', error->>'message', error->>'traceback' ~ 'test_endings',"
        " started_at <= ended_at, next_run_at >= ended_at, worker_id IS NOT NULL"
        " FROM piecework.attempts ORDER BY claim_no",
    )
    assert rows == [
        (1, 1, "retry", "RuntimeError", "in attempt 1", True, True, True, True),
        (2, 2, "fail", "RuntimeError", "in attempt 2", True, True, None, True),
    ]


async def test_a_retry_waits_for_its_backoff(jobs: Jobs) -> None:
    began: list[float] = []

    @jobs.job(retry=RetrySettings(min_backoff=timedelta(milliseconds=200), backoff_jitter_pct=0))
    async def broken_twice() -> str:
        began.append(time.monotonic())
        if len(began) < 3:
            raise RuntimeError("not yet")
        return "at last"

    async with jobs.worker():
        assert await (await broken_twice.spawn()).result(timeout=SOON) == "at last"
    assert began[1] - began[0] >= 0.2
    assert began[2] - began[1] >= 0.4


async def test_n_attempts_of_one_is_no_retry(jobs: Jobs) -> None:
    runs: list[int] = []

    @jobs.job(retry=ONCE)
    async def once() -> None:
        runs.append(1)
        raise RuntimeError("no second try")

    async with jobs.worker():
        with pytest.raises(JobErrored, match="no second try"):
            await (await once.spawn()).result(timeout=SOON)
    assert runs == [1]


async def test_a_job_that_errored_runs_again_when_it_is_retried_by_hand(jobs: Jobs, dsn: str) -> None:
    broken = True

    @jobs.job(retry=ONCE)
    async def repaired(job: CurrentJob) -> int:
        if broken:
            raise RuntimeError("broken")
        return job.attempt

    async with jobs.worker():
        handle = await repaired.spawn()
        await handle.wait(timeout=SOON)
        broken = False
        assert await handle.retry()
        assert await handle.result(timeout=SOON) == 1
    assert value(dsn, "SELECT max(claim_no) FROM piecework.finished_jobs") == 3
