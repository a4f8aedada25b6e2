"""Jobs that end in ways nobody wished for: each fails alone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta

import msgspec
import pytest
from engine.app import ONCE
from engine.helpers import SOON, count, moves, query, until

from piecework import CurrentJob, JobErrored, Jobs, RetrySettings, WorkerSettings
from piecework.model.settlement import Settlement
from piecework.store import settling
from piecework.store.link import Link
from support.private_postgres import PrivatePostgres

TWICE = RetrySettings(n_attempts=2, min_backoff=timedelta(milliseconds=1))


async def test_a_config_that_no_longer_decodes_fails_that_attempt_alone_with_the_reason(jobs: Jobs, dsn: str) -> None:
    ran: list[int] = []

    @jobs.job(retry=TWICE)
    async def double(number: int) -> int:
        ran.append(number)
        return 2 * number

    handles = await jobs.spawn_all(double.spec(number) for number in range(5))
    query(dsn, "UPDATE piecework.jobs SET config = '{\"number\": \"three\"}' WHERE id = %s", handles[3].id)
    async with jobs.worker():
        with pytest.raises(JobErrored, match=r"UndecodableConfig.*number"):
            await handles[3].result(timeout=SOON)
        assert [await handles[n].result(timeout=SOON) for n in (0, 1, 2, 4)] == [0, 2, 4, 8]
    assert sorted(ran) == [0, 1, 2, 4]
    assert moves(dsn, handles[3].id) == ["retry", "fail"]
    started = query(dsn, "SELECT started_at FROM piecework.attempts WHERE job_id = %s", handles[3].id)
    assert started == [(None,), (None,)]


async def test_a_config_that_decodes_again_before_the_next_attempt_runs(jobs: Jobs, dsn: str) -> None:
    @jobs.job(retry=RetrySettings(min_backoff=timedelta(milliseconds=300), backoff_jitter_pct=0))
    async def double(number: int) -> int:
        return 2 * number

    handle = await double.spawn(3)
    query(dsn, "UPDATE piecework.jobs SET config = '{}' WHERE id = %s", handle.id)
    async with jobs.worker():
        await until(lambda: moves(dsn, handle.id) == ["retry"])
        query(dsn, "UPDATE piecework.jobs SET config = '{\"number\": 4}' WHERE id = %s", handle.id)
        assert await handle.result(timeout=SOON) == 8


endless: list[object] = []
endless.append(endless)


@pytest.mark.parametrize(
    "result", [object(), {"a": {1: lambda: 0}}, endless, "\ud800"], ids=["object", "function", "endless", "surrogate"]
)
async def test_a_result_that_has_no_json_is_a_failed_attempt(jobs: Jobs, dsn: str, result: object) -> None:
    @jobs.job(retry=TWICE)
    async def give() -> object:
        return result

    async with jobs.worker():
        handle = await give.spawn()
        with pytest.raises(JobErrored):
            await handle.result(timeout=SOON)
    assert moves(dsn, handle.id) == ["retry", "fail"]


@pytest.mark.parametrize("bad", [b'"nul"', b"1e999999", b"no json"], ids=["nul", "number", "text"])
async def test_a_result_that_the_database_refuses_fails_alone_while_its_batch_completes(
    jobs: Jobs, dsn: str, bad: bytes
) -> None:
    release = asyncio.Event()

    @jobs.job(retry=ONCE)
    async def echo(number: int) -> object:
        await release.wait()
        return msgspec.Raw(bad.replace(b"nul", b"\\u0000")) if number in (17, 60) else number

    async with jobs.worker():
        handles = await jobs.spawn_all(echo.spec(number) for number in range(100))
        await until(lambda: count(dsn, "jobs WHERE worker_id IS NOT NULL") == 100)
        release.set()
        outcomes = await handles.wait(timeout=SOON)
    assert [(o.status, o.result) for o in outcomes] == [
        ("errored", None) if number in (17, 60) else ("completed", number) for number in range(100)
    ]
    assert all(outcomes[number].error for number in (17, 60))
    assert moves(dsn, handles[17].id) == ["fail"]


async def test_a_result_that_is_too_much_for_the_server_fails_alone(
    private_postgres: Callable[..., PrivatePostgres],
) -> None:
    server = private_postgres(max_stack_depth="100kB")
    async with Jobs(server.dsn) as jobs:

        @jobs.job(retry=ONCE)
        async def nest(depth: int) -> object:
            nested: list[object] = []
            for _ in range(depth):
                nested = [nested]
            return nested

        async with jobs.worker():
            handles = await jobs.spawn_all(nest.spec(depth) for depth in (1, 900, 2))
            outcomes = await handles.wait(timeout=SOON)
    assert [outcome.status for outcome in outcomes] == ["completed", "errored", "completed"]
    assert outcomes[1].error is not None
    assert outcomes[1].error.type == "unstorable result"


async def test_results_that_are_large_together_are_settled_in_several_calls(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    async def record(link: Link, worker_id: str, batch: Sequence[Settlement], now: float) -> list[settling.Answer]:
        sizes.append(sum(len(bytes(s.result)) for s in batch if s.result is not None))
        return await settling.settle(link, worker_id, batch, now)

    monkeypatch.setattr("piecework.engine.completer.settle", record)
    monkeypatch.setattr("piecework.engine.completer._MOST_BYTES", 10_000)

    @jobs.job
    async def large() -> str:
        return "x" * 998

    async with jobs.worker():
        await (await jobs.spawn_all(large.spec() for _ in range(200))).results(timeout=SOON)
    assert sum(sizes) == 200 * 1000
    assert max(sizes) == 10_000


async def test_an_error_whose_text_has_a_nul_is_stored(jobs: Jobs) -> None:
    @jobs.job(retry=ONCE)
    async def odd() -> None:
        raise RuntimeError("before\0after \ud800")

    async with jobs.worker():
        with pytest.raises(JobErrored, match=r"before\\x00after"):
            await (await odd.spawn()).result(timeout=SOON)


def leave() -> None:
    sys.exit("enough")


def interrupt() -> None:
    raise KeyboardInterrupt("ctrl-c")


def cancel() -> None:
    raise asyncio.CancelledError("my own")


def stop() -> None:
    raise StopIteration("of a generator")


class Odd(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def odd() -> None:
    raise Odd


@pytest.mark.parametrize("end", [leave, interrupt, cancel, stop, odd])
@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_an_unusual_exception_is_a_failed_attempt_and_the_worker_lives(
    jobs: Jobs, dsn: str, end: Callable[[], None], kind: str
) -> None:
    if kind == "async":

        @jobs.job(retry=TWICE)
        async def rash() -> None:
            end()
    else:

        @jobs.job(retry=TWICE)
        def rash() -> None:
            end()

    @jobs.job
    async def after() -> str:
        return "alive"

    async with jobs.worker():
        handle = await rash.spawn()
        assert (await handle.wait(timeout=SOON)).status == "errored"
        assert await (await after.spawn()).result(timeout=SOON) == "alive"
    assert moves(dsn, handle.id) == ["retry", "fail"]


async def test_a_job_that_cancels_its_own_task_is_a_failed_attempt_and_the_worker_lives(jobs: Jobs, dsn: str) -> None:
    @jobs.job(retry=TWICE)
    async def weary() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    @jobs.job
    async def after() -> str:
        return "alive"

    async with jobs.worker():
        handle = await weary.spawn()
        outcome = await handle.wait(timeout=SOON)
        assert outcome.error is not None
        assert outcome.error.type == "asyncio.exceptions.CancelledError"
        assert await (await after.spawn()).result(timeout=SOON) == "alive"
    assert moves(dsn, handle.id) == ["retry", "fail"]


async def test_a_failing_job_gives_its_capacity_back(jobs: Jobs) -> None:
    @jobs.job(retry=ONCE, max_concurrent_per_process=1)
    def broken() -> None:
        raise RuntimeError("each time")

    @jobs.job(retry=ONCE)
    async def broken_too(job: CurrentJob) -> object:
        return job

    async with jobs.worker(WorkerSettings(concurrency=2, threads=1)):
        handles = await jobs.spawn_all([*(broken.spec() for _ in range(20)), *(broken_too.spec() for _ in range(20))])
        outcomes = await handles.wait(timeout=SOON)
    assert {outcome.status for outcome in outcomes} == {"errored"}
