"""What a snapshot tells of a job: state, progress, keys, typed values; at every station, never torn."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from engine.helpers import SOON, count, query, until

from piecework import (
    Fail,
    Jobs,
    JobStatus,
    RetrySettings,
    UndecodableConfig,
    UndecodableResult,
    UndecodableState,
    new_id,
)
from piecework.jobs import service_of
from piecework.store.overview import JobFilter, list_jobs
from piecework.store.store import Store


@dataclass
class Cursor:
    value: str


@dataclass
class Total:
    count: int


def save(dsn: str, job: UUID, state: str, *, key: tuple[str, str] | None = None) -> None:
    """Store a state, as a run of the job saves it."""
    query(
        dsn, "INSERT INTO piecework.execution_states (job_id, job_type, key, saved_by, claim_no, state) "
        "VALUES (%s, %s, %s, %s, 1, %s)",
        None if key else job, *(key or (None, None)), job, state,
    )  # fmt: skip


def report(dsn: str, job: UUID, done: float | None = None, note: str = "", result: str | None = None) -> None:
    query(dsn, "INSERT INTO piecework.progress (job_id, claim_no, done, note, result) VALUES (%s, 1, %s, %s, %s)",
          job, done, note, result)  # fmt: skip


async def test_a_job_tells_its_keys_and_its_config_as_a_type(jobs: Jobs) -> None:
    @jobs.job
    async def add(count: int) -> None: ...

    handle = await add.options(key="k", concurrency_key="c").spawn(3)
    snapshot = await handle.load()
    assert (snapshot.key, snapshot.concurrency_key, snapshot.parked) == ("k", "c", False)
    assert snapshot.config_as(Total) == Total(3)
    with pytest.raises(UndecodableConfig, match=rf"config of job {handle.id} of type add is no .*Cursor.*\"count\""):
        snapshot.config_as(Cursor)
    plain = await (await add.spawn(1)).load()
    assert (plain.key, plain.concurrency_key, plain.progress, plain.state) == (None, None, None, None)


async def test_status_is_told_at_every_station(jobs: Jobs) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    @jobs.job(retry=RetrySettings.never())
    async def work(number: int) -> int | Fail:
        started.set()
        await go_on.wait()
        return Fail("why not") if number < 0 else number

    seen: list[tuple[JobStatus, int, bool]] = []
    handle, bad = await jobs.spawn_all([work.spec(1), work.options(delay=timedelta(hours=1)).spec(-1)])
    pending = await bad.load()
    assert pending.run_at is not None
    assert pending.run_at > datetime.now(UTC) + timedelta(minutes=59)
    async with jobs.worker():
        await started.wait()
        running = await handle.load()
        seen.append((running.status, running.attempt, running.run_at is None))
        go_on.set()
        await handle.wait(timeout=SOON)
        ended = await handle.load()
        seen.append((ended.status, ended.attempt, ended.run_at is None))
        errored = await work.spawn(-1)
        await errored.wait(timeout=SOON)
        last = await errored.load()
        seen.append((last.status, last.attempt, last.run_at is None))
    assert seen == [("running", 1, True), ("completed", 1, True), ("errored", 1, True)]
    assert last.error is not None
    assert "why not" in last.error.message
    assert (last.queue, ended.result_as(int), last.result_as(int)) == ("default", 1, None)
    with pytest.raises(UndecodableResult, match=rf"result of job {handle.id} of type work is no str"):
        ended.result_as(str)


async def test_the_state_is_read_as_a_type_and_agrees_with_the_snapshot(jobs: Jobs, dsn: str) -> None:
    @jobs.job
    async def work() -> None: ...

    handle = await work.spawn()
    assert await handle.execution_state(Cursor) is None
    assert (await handle.load()).execution_state(Cursor) is None
    save(dsn, handle.id, '{"value": "page 3"}')
    assert await handle.execution_state(Cursor) == Cursor("page 3") == (await handle.load()).execution_state(Cursor)
    assert await asyncio.to_thread(handle.execution_state_sync, Cursor) == Cursor("page 3")
    with pytest.raises(UndecodableState, match=rf"state of job {handle.id} of type work is no .*Total.*page 3"):
        await handle.execution_state(Total)
    (listed,) = await list_jobs(store_of(jobs), JobFilter(), 1)
    assert listed == await handle.load()


async def test_the_state_goes_with_the_job_unless_its_key_inherits_it(jobs: Jobs, dsn: str) -> None:
    @jobs.job
    async def work() -> None: ...

    forgets, keeps = await work.options(key="f").spawn(), await work.options(key="k").spawn()
    save(dsn, forgets.id, '{"value": "a"}')
    save(dsn, keeps.id, '{"value": "b"}', key=("work", "k"))
    async with jobs.worker():
        await forgets.result(timeout=SOON)
        await keeps.result(timeout=SOON)
    assert await forgets.execution_state(Cursor) is None
    assert await keeps.execution_state(Cursor) == Cursor("b")
    (listed, _) = await list_jobs(store_of(jobs), JobFilter(status="completed"), 2)
    assert listed.execution_state(Cursor) == Cursor("b")
    # The next one of the key begins with it; once that saves its own, the first one has none any more.
    following = await work.options(key="k").spawn()
    assert await following.execution_state(Cursor) == Cursor("b")
    query(dsn, "UPDATE piecework.execution_states SET saved_by = %s, state = '{\"value\": \"c\"}'", following.id)
    assert await following.execution_state(Cursor) == Cursor("c")
    assert await keeps.execution_state(Cursor) is None


async def test_progress_is_told_while_the_job_lives(jobs: Jobs, dsn: str) -> None:
    @jobs.job
    async def work() -> None: ...

    first, second = await work.spawn(), await work.spawn()
    report(dsn, first.id, 0.5, "half way")
    report(dsn, second.id, result='"so far"')
    progress = (await first.load()).progress
    assert progress is not None
    assert (progress.done, progress.note) == (0.5, "half way")
    assert abs(progress.reported_at - datetime.now(UTC)) < timedelta(minutes=1)
    # A result is no progress.
    told = await second.load()
    assert (told.progress, told.result_as(str)) == (None, "so far")
    assert (await first.load()).result is None
    assert {job.id: job for job in await list_jobs(store_of(jobs), JobFilter(), 9)} == {
        job.id: job for job in await jobs.handles([first.id, second.id]).load()
    }
    async with jobs.worker():
        await first.result(timeout=SOON)
    assert (await first.load()).progress is None


async def test_what_a_job_had_as_its_result_is_told_when_it_errors(jobs: Jobs, dsn: str) -> None:
    @jobs.job(retry=RetrySettings.never())
    async def work() -> int:
        raise ArithmeticError("no")

    right, wrong = await work.spawn(), await work.spawn()
    report(dsn, right.id, result="7")
    report(dsn, wrong.id, result='"seven"')
    async with jobs.worker():
        outcomes = [await handle.wait(timeout=SOON) for handle in (right, wrong)]
    # The error counts more than that a partial result is of another type.
    assert [(outcome.status, outcome.result) for outcome in outcomes] == [("errored", 7), ("errored", None)]
    assert (await wrong.load()).result_as(str) == "seven"


async def test_the_last_error_is_told_while_the_job_is_retried(jobs: Jobs, dsn: str) -> None:
    attempts: list[int] = []

    @jobs.job(retry=RetrySettings(n_attempts=2, min_backoff=timedelta(hours=1)))
    async def work() -> None:
        attempts.append(1)
        raise ArithmeticError(f"attempt {len(attempts)}")

    @jobs.job
    async def fine() -> None: ...

    handle, good = await work.spawn(), await fine.spawn()
    async with jobs.worker():
        await good.result(timeout=SOON)
        await until(lambda: count(dsn, "attempts WHERE move = 'retry'"))
        retried = await handle.load()
    assert retried.error is not None
    assert (retried.error.message, retried.attempt) == ("attempt 1", 2)
    assert (await good.load()).error is None


async def test_a_finished_job_is_never_shown_as_running(jobs: Jobs) -> None:
    """Also if it is looked at while it ends: one statement reads it."""

    @jobs.job
    async def work() -> None: ...

    torn: list[object] = []
    handles = await jobs.spawn_all(work.spec() for _ in range(200))
    async with jobs.worker():
        while True:
            loaded = await handles.load()
            torn += [each for each in loaded if each.finished != (each.finished_at is not None)]
            torn += [each for each in loaded if each.finished and each.run_at is not None]
            if all(each.finished for each in loaded):
                break
    assert torn == []
    assert [each.id for each in loaded] == [handle.id for handle in handles]


async def test_a_look_beside_a_spawn_that_commits_finds_the_job_or_none(jobs: Jobs) -> None:
    @jobs.job
    async def work() -> None: ...

    ids = [new_id() for _ in range(50)]

    async def look() -> None:
        while not all([await jobs.find(id) for id in ids]):
            pass

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(look())
        for id in ids:
            await work.options(id=id).spawn()


def store_of(jobs: Jobs) -> Store:
    return service_of(jobs).store
