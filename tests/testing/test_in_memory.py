"""in_memory: an application's jobs without PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from piecework import CurrentJob, JobCancelled, Jobs, Reschedule, RetrySettings
from piecework.base.errors import AlreadyOpen, JobErrored, NotOpen
from piecework.testing import ManualClock, in_memory

SOON = timedelta(seconds=20)
jobs = Jobs("host=nowhere.invalid")
failures: list[Exception] = []
running = asyncio.Semaphore(0)
most_at_once = 0


@jobs.job(retry=RetrySettings(n_attempts=3, min_backoff=timedelta(milliseconds=1)))
async def add(a: int, b: int) -> int:
    if failures:
        raise failures.pop()
    return a + b


@jobs.job
def double(n: int) -> int:
    return 2 * n


@jobs.job(retry=RetrySettings(min_backoff=timedelta(milliseconds=1)))
async def count(job: CurrentJob, up_to: int) -> list[int]:
    seen = job.execution_state(list[int]) or []
    if len(seen) == up_to:
        return seen
    await job.save_state([*seen, job.attempt])
    raise ValueError("not yet")


@jobs.job(concurrency_key="{account}")
async def book(account: str, n: int) -> int:
    global most_at_once
    now.append(n)
    most_at_once = max(most_at_once, len(now))
    await asyncio.sleep(0.001)
    now.remove(n)
    return n


now: list[int] = []


@jobs.job
async def wait_for_ever() -> None:
    running.release()
    await asyncio.Event().wait()


@jobs.job(key="{name}")
async def greet(name: str) -> Reschedule | str:
    return f"hello {name}"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    failures.clear()


async def test_jobs_run_and_answer() -> None:
    async with in_memory(jobs), jobs.worker():
        assert await (await add.spawn(1, 2)).result(timeout=SOON) == 3
        assert await (await double.spawn(4)).result(timeout=SOON) == 8


async def test_a_failed_attempt_is_tried_again() -> None:
    failures.append(ValueError("once"))
    async with in_memory(jobs), jobs.worker():
        handle = await add.spawn(1, 2)
        assert await handle.result(timeout=SOON) == 3
        snapshot = await handle.load()
        assert (snapshot.status, snapshot.attempt) == ("completed", 2)


async def test_a_job_that_spends_its_attempts_is_errored() -> None:
    failures.extend(ValueError("always") for _ in range(3))
    async with in_memory(jobs), jobs.worker():
        with pytest.raises(JobErrored, match="always"):
            await (await add.spawn(1, 2)).result(timeout=SOON)


async def test_what_an_attempt_saves_the_next_one_finds() -> None:
    async with in_memory(jobs), jobs.worker():
        assert await (await count.spawn(3)).result(timeout=SOON) == [1, 2, 3]


async def test_many_jobs_of_many_kinds_all_end() -> None:
    async with in_memory(jobs), jobs.worker():
        handles = await jobs.spawn_all([add.spec(n, 1) for n in range(1500)] + [double.spec(n) for n in range(10)])
        outcomes = await handles.wait(timeout=SOON)
        assert [outcome.status for outcome in outcomes] == ["completed"] * 1510


async def test_one_job_of_a_concurrency_key_runs_at_a_time() -> None:
    async with in_memory(jobs), jobs.worker():
        handles = await jobs.spawn_all([book.spec("a", n) for n in range(20)])
        await handles.wait(timeout=SOON)
        assert most_at_once == 1


async def test_a_key_has_one_live_job() -> None:
    async with in_memory(jobs):
        first, second = await greet.spawn("Ada"), await greet.spawn("Ada")
        assert (first.created, second.created, second.id) == (True, False, first.id)


async def test_a_running_job_is_cancelled() -> None:
    async with in_memory(jobs), jobs.worker():
        handle = await wait_for_ever.spawn()
        await running.acquire()
        await handle.cancel()
        with pytest.raises(JobCancelled):
            await handle.result(timeout=SOON)


async def test_due_times_go_by_the_manual_clock() -> None:
    async with in_memory(jobs), ManualClock(jobs, at=datetime(2031, 5, 6, tzinfo=UTC)) as clock, jobs.worker():
        handle = await double.options(delay=timedelta(days=7)).spawn(1)
        await clock.advance(timedelta(days=6))
        assert (await handle.load()).status == "pending"
        assert (await handle.explain()).reason == "not_due"
        await clock.advance_to_next()
        assert await handle.result(timeout=SOON) == 2


async def test_each_block_begins_with_an_empty_database() -> None:
    async with in_memory(jobs):
        handle = await add.spawn(1, 2)
    async with in_memory(jobs):
        assert await jobs.find(handle.id) is None


def test_code_without_asyncio_uses_it_as_well() -> None:
    with in_memory(jobs):
        handle = double.spawn_sync(4)
        assert handle.load_sync().status == "pending"
    with pytest.raises(NotOpen):
        double.spawn_sync(4)


async def test_it_says_what_it_has_not() -> None:
    async with in_memory(jobs):
        with pytest.raises(AlreadyOpen):
            async with in_memory(jobs):
                pass
        with pytest.raises(psycopg.NotSupportedError, match="does not know this statement, test it with PostgreSQL"):
            await jobs._service.store.rows("count_attempts")
