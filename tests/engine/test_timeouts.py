"""Runs that take longer than the timeout of their job type."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from datetime import timedelta

import pytest
from engine.helpers import SOON, count, moves, query, until

from piecework import CurrentJob, Fail, JobErrored, Jobs, Reschedule, RetrySettings, WorkerSettings
from piecework.engine import stopping

SHORT = timedelta(milliseconds=200)
TWICE = RetrySettings(n_attempts=2, min_backoff=timedelta(milliseconds=50))
ONCE = RetrySettings(n_attempts=1)


@pytest.mark.postgres(18, 15)
async def test_an_async_run_over_its_timeout_is_cancelled_and_is_a_failed_attempt_that_is_retried(
    jobs: Jobs, dsn: str
) -> None:
    began: list[float] = []
    ended: list[float] = []

    @jobs.job(timeout=SHORT, retry=TWICE)
    async def slow(job: CurrentJob) -> str:
        began.append(time.monotonic())
        if job.attempt == 2:
            return "in time"
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(time.monotonic())
        return "never"

    async with jobs.worker():
        handle = await slow.spawn()
        assert await handle.result(timeout=SOON) == "in time"
    assert len(began) == 2
    assert 0.15 <= ended[0] - began[0] < 2
    found = query(dsn, "SELECT move, error->>'type', error->>'message', error->>'traceback' FROM piecework.attempts")
    assert len(found) == 1, found
    [(move, kind, message, traceback)] = found
    assert (move, kind, message) == ("retry", "TimeoutError", "the run took longer than its timeout of 0:00:00.200000")
    assert "await asyncio.Event().wait()" in str(traceback)


async def test_a_job_that_is_always_too_slow_errors_after_its_attempts(jobs: Jobs, dsn: str) -> None:
    @jobs.job(timeout=timedelta(milliseconds=20), retry=TWICE)
    async def slow() -> None:
        await asyncio.Event().wait()

    async with jobs.worker():
        handle = await slow.spawn()
        with pytest.raises(JobErrored, match=r"TimeoutError: the run took longer than its timeout of 0:00:00\.02"):
            await handle.result(timeout=SOON)
    assert moves(dsn, handle.id) == ["retry", "fail"]


async def test_a_timeout_counts_from_the_start_of_the_run_and_not_from_the_claim(jobs: Jobs) -> None:
    @jobs.job(timeout=timedelta(milliseconds=600), retry=ONCE)
    async def each() -> None:
        await asyncio.sleep(0.3)

    async with jobs.worker(WorkerSettings(concurrency=1, prefetch=10)):
        handles = await jobs.spawn_all(each.spec() for _ in range(5))
        assert await handles.results(timeout=SOON) == [None] * 5


async def test_runs_that_end_in_time_are_left_alone(jobs: Jobs) -> None:
    @jobs.job(timeout=timedelta(seconds=30))
    async def quick(number: int) -> int:
        return number

    @jobs.job(timeout=timedelta.max)
    def endless() -> str:
        return "done"

    async with jobs._make_worker(WorkerSettings()) as worker:  # pyright: ignore[reportPrivateUsage]
        handles = await jobs.spawn_all(quick.spec(n) for n in range(500))
        assert await handles.results(timeout=SOON) == list(range(500))
        assert await (await endless.spawn()).result(timeout=SOON) == "done"
        deadlines = worker._executor.stopping._deadlines
        assert len(deadlines) < 200, "the places of jobs that ended are given back"


async def test_jobs_without_a_timeout_set_no_timer(jobs: Jobs) -> None:
    @jobs.job
    async def plain() -> None: ...

    async with jobs._make_worker(WorkerSettings()) as worker:
        await (await plain.spawn()).result(timeout=SOON)
        assert worker._executor.stopping._timer is None
        assert worker._executor.stopping._deadlines.earliest is None


async def test_many_runs_with_timeouts_share_one_timer(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    released = asyncio.Event()
    loop = asyncio.get_running_loop()
    timers: list[object] = []
    call_at = loop.call_at

    def counted(when: float, callback: object, *args: object, **kwargs: object) -> asyncio.TimerHandle:
        if getattr(callback, "__name__", "") == "_ring":
            timers.append(when)
        return call_at(when, callback, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_at", counted)

    @jobs.job(timeout=timedelta(seconds=30))
    async def wait(number: int) -> int:
        await released.wait()
        return number

    async with jobs.worker():
        handles = await jobs.spawn_all(wait.spec(n) for n in range(80))
        await until(lambda: sum(task.get_name().startswith("job-wait-") for task in asyncio.all_tasks()) == 80)
        released.set()
        assert await handles.results(timeout=SOON) == list(range(80))
    assert len(timers) == 1


async def test_a_plain_run_over_its_timeout_is_told_and_fails_though_it_returns_a_value(jobs: Jobs, dsn: str) -> None:
    @jobs.job(timeout=SHORT, retry=TWICE)
    def slow(job: CurrentJob) -> str:
        if job.attempt == 2:
            return "in time"
        deadline = time.monotonic() + 20
        while not job.cancel_requested and time.monotonic() < deadline:
            time.sleep(0.01)
        return "too late"

    async with jobs.worker():
        handle = await slow.spawn()
        assert await handle.result(timeout=SOON) == "in time"
    assert query(dsn, "SELECT move, error->>'type' FROM piecework.attempts") == [("retry", "TimeoutError")]


async def test_the_attempt_of_a_plain_job_ends_with_its_thread_and_takes_its_place_until_then(
    jobs: Jobs, dsn: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "PATIENCE", timedelta(milliseconds=100))
    may_end, ran = threading.Event(), threading.Event()

    @jobs.job(timeout=timedelta(milliseconds=50), retry=ONCE)
    def deaf() -> None:
        may_end.wait(30)

    @jobs.job
    async def other() -> None:
        ran.set()

    def reports() -> list[str]:
        return [r.getMessage() for r in caplog.records if "goes on" in r.getMessage()]

    async with jobs.worker(WorkerSettings(concurrency=1, prefetch=0)):
        first = await deaf.spawn()
        await until(lambda: count(dsn, "jobs WHERE worker_id IS NOT NULL") == 1)
        second = await other.spawn()
        await until(reports)
        await asyncio.sleep(0.3)
        assert not ran.is_set()
        assert (await first.load()).status == "running"
        may_end.set()
        with pytest.raises(JobErrored, match="TimeoutError"):
            await first.result(timeout=SOON)
        await second.result(timeout=SOON)
    [report] = reports()
    assert report.startswith(f"job {first.id} (deaf) goes on 0:00:00.100000 after its timeout of 0:00:00.050000: ")
    assert "it runs in a thread, which cannot be stopped; its capacity stays taken until it ends" in report


async def test_an_async_job_that_swallows_its_cancellation_is_reported_once_and_fails_when_it_ends(
    jobs: Jobs, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "PATIENCE", timedelta(milliseconds=50))
    may_end = asyncio.Event()

    @jobs.job(timeout=timedelta(milliseconds=50), retry=ONCE)
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await may_end.wait()
        return "too late"

    async with jobs.worker():
        handle = await stubborn.spawn()
        await until(lambda: "goes on" in caplog.text)
        await asyncio.sleep(0.2)
        assert (await handle.load()).status == "running"
        may_end.set()
        with pytest.raises(JobErrored, match="TimeoutError"):
            await handle.result(timeout=SOON)
    [report] = [record for record in caplog.records if "goes on" in record.getMessage()]
    assert report.levelno == logging.WARNING
    assert "it ignores that it was cancelled; its capacity stays taken" in report.getMessage()


@pytest.mark.parametrize("raised", [False, True], ids=["returned", "raised"])
async def test_a_run_over_its_timeout_may_end_its_job_by_fail(jobs: Jobs, dsn: str, raised: bool) -> None:
    @jobs.job(timeout=timedelta(milliseconds=50))
    async def decided() -> Fail | None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if raised:
                raise Fail("not worth another try") from None
        return Fail("not worth another try")

    async with jobs.worker():
        handle = await decided.spawn()
        with pytest.raises(JobErrored, match="not worth another try"):
            await handle.result(timeout=SOON)
    assert moves(dsn, handle.id) == ["fail"]


async def test_a_timeout_may_be_named_by_fail_on(jobs: Jobs, dsn: str) -> None:
    @jobs.job(timeout=timedelta(milliseconds=50), fail_on=(TimeoutError,))
    async def slow() -> None:
        await asyncio.Event().wait()

    async with jobs.worker():
        handle = await slow.spawn()
        await handle.wait(timeout=SOON)
    assert moves(dsn, handle.id) == ["fail"]


async def test_what_a_stopped_run_raised_is_kept_with_its_timeout(jobs: Jobs, dsn: str) -> None:
    @jobs.job(timeout=timedelta(milliseconds=50), retry=ONCE)
    def clumsy(job: CurrentJob) -> Reschedule:
        while not job.cancel_requested:
            time.sleep(0.01)
        raise ZeroDivisionError("while it cleaned up")

    async with jobs.worker():
        handle = await clumsy.spawn()
        await handle.wait(timeout=SOON)
    error = (await handle.load()).error
    assert error is not None
    assert error.type == "TimeoutError"
    assert "ZeroDivisionError: while it cleaned up" in error.traceback


async def test_a_job_that_ends_when_its_worker_stops_is_not_taken_for_late(jobs: Jobs, dsn: str) -> None:
    started = asyncio.Event()

    @jobs.job(timeout=timedelta(minutes=1))
    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    async with jobs.worker(WorkerSettings(shutdown_grace=timedelta(milliseconds=1))):
        handle = await wait.spawn()
        await started.wait()
    assert moves(dsn, handle.id) == ["release"]


async def test_a_job_that_swallowed_its_timeout_is_cancelled_once_more_when_its_worker_stops(jobs: Jobs) -> None:
    swallowed = asyncio.Event()

    @jobs.job(timeout=timedelta(milliseconds=20))
    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(20):
        async with jobs.worker(WorkerSettings(shutdown_grace=timedelta(milliseconds=1))):
            handle = await stubborn.spawn()
            await swallowed.wait()
    snapshot = await handle.load()
    assert (snapshot.status, snapshot.failures) == ("pending", 1)
    assert snapshot.error is not None
    assert snapshot.error.type == "TimeoutError"
