"""Jobs that are cancelled while they run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from engine.app import App
from engine.helpers import SOON, WorkerProcess, count, moves, query, until, value

from piecework import (
    CurrentJob,
    Fail,
    JobCancelled,
    JobErrored,
    Jobs,
    LivenessSettings,
    Reschedule,
    RetrySettings,
    WorkerSettings,
)
from piecework.engine import claimer, stopping
from piecework.engine.executor import Executor
from piecework.store.link import Link
from piecework.store.listening import CancelHint, Hint, hints

OFTEN = RetrySettings(min_backoff=timedelta(milliseconds=20))
QUICK_BEAT = WorkerSettings(
    liveness=LivenessSettings(
        lease=timedelta(seconds=4), beat=timedelta(milliseconds=300),
        stop=timedelta(seconds=2), exit=timedelta(seconds=3),
    )
)  # fmt: skip


def requests(dsn: str) -> int:
    return count(dsn, "cancel_requests")


@pytest.mark.postgres(18, 15)
async def test_a_running_async_job_is_cancelled_at_once_and_whoever_waits_is_told(jobs: Jobs, dsn: str) -> None:
    started = asyncio.Event()
    seen: list[bool] = []

    @jobs.job
    async def endless(job: CurrentJob) -> None:
        seen.append(job.cancel_requested)
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(job.cancel_requested)
            raise

    async with jobs.worker():
        handle = await endless.spawn()
        waiting = asyncio.create_task(handle.result(timeout=SOON))
        await started.wait()
        begun = time.monotonic()
        assert await handle.cancel()
        with pytest.raises(JobCancelled):
            await waiting
        assert time.monotonic() - begun < 2.5, "not by a beat, but by a hint"
        assert not await handle.cancel()
    assert seen == [False, True]
    snapshot = await handle.load()
    assert (snapshot.status, snapshot.error, snapshot.claim_no) == ("cancelled", None, 1)
    assert moves(dsn, handle.id) == ["cancel"]
    assert count(dsn, "jobs") == requests(dsn) == 0


async def test_a_running_plain_job_is_told_and_is_cancelled_when_its_function_ends(jobs: Jobs, dsn: str) -> None:
    started = threading.Event()

    @jobs.job
    def counts(job: CurrentJob) -> None:
        started.set()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if job.cancel_requested:
                raise InterruptedError
            time.sleep(0.01)

    async with jobs.worker():
        handle = await counts.spawn()
        await until(started.is_set)
        assert await handle.cancel()
        assert (await handle.wait(timeout=SOON)).status == "cancelled"
    assert moves(dsn, handle.id) == ["cancel"]
    assert requests(dsn) == 0


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize("end", ["value", "reschedule", "fail", "unstorable"])
async def test_a_job_completes_in_spite_of_a_cancel_by_a_value_alone(
    jobs: Jobs, dsn: str, kind: str, end: str
) -> None:
    running = threading.Event()
    ends: dict[str, object] = {"value": 7, "reschedule": Reschedule.now(), "fail": Fail("no"), "unstorable": object()}

    @jobs.job("async")
    async def stubborn() -> object:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return ends[end]

    @jobs.job("plain")
    def deaf(job: CurrentJob) -> object:
        running.set()
        while not job.cancel_requested:
            time.sleep(0.01)
        return ends[end]

    async with jobs.worker():
        handle = await (stubborn if kind == "async" else deaf).spawn()
        await until(running.is_set)
        assert await handle.cancel()
        outcome = await handle.wait(timeout=SOON)
    assert (outcome.status, outcome.result) == (("completed", 7) if end == "value" else ("cancelled", None))
    assert requests(dsn) == 0


async def test_a_claimed_job_whose_run_has_not_begun_is_cancelled_without_running(jobs: Jobs, dsn: str) -> None:
    ran: list[int] = []
    gate = asyncio.Event()

    @jobs.job
    async def one(number: int) -> None:
        ran.append(number)
        await gate.wait()

    @jobs.job
    async def quick() -> None: ...

    async with jobs.worker(WorkerSettings(concurrency=1, prefetch=5)):
        await (await jobs.spawn_all(quick.spec() for _ in range(50))).results(timeout=SOON)  # runs are short: prefetch
        handles = await jobs.spawn_all(one.spec(n) for n in range(2))
        await until(lambda: count(dsn, "jobs WHERE worker_id IS NOT NULL") == 2)
        await until(lambda: ran)
        waiting = handles[1 - ran[0]]
        assert await waiting.cancel()
        assert (await waiting.wait(timeout=SOON)).status == "cancelled"
        gate.set()
        await handles[ran[0]].result(timeout=SOON)
    assert len(ran) == 1
    assert (await waiting.load()).started_at is None
    assert moves(dsn, waiting.id) in (["cancel"], [])  # unless it had been handed back just before


async def without_cancels(
    link: Link, listening: Callable[[], None], probe_every: float
) -> AsyncGenerator[Hint | CancelHint, None]:
    async for hint in hints(link, listening, probe_every):
        if not isinstance(hint, CancelHint):
            yield hint


async def test_a_beat_finds_the_request_whose_hint_was_lost(
    jobs: Jobs, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piecework.engine.listener.hints", without_cancels)
    started = asyncio.Event()

    @jobs.job
    async def endless() -> None:
        started.set()
        await asyncio.Event().wait()

    async with jobs.worker(QUICK_BEAT):
        handle = await endless.spawn()
        await started.wait()
        assert await handle.cancel()
        assert (await handle.wait(timeout=SOON)).status == "cancelled"
    assert requests(dsn) == 0


async def test_a_cancel_reaches_whichever_of_many_workers_runs_the_job(
    app: App, dsn: str, gate: object, workers: Callable[..., WorkerProcess]
) -> None:
    for _ in range(3):
        workers(lease=6.0, concurrency=4)
    handles = await app.jobs.spawn_all(app.waits.spec(str(gate)) for _ in range(12))
    await until(lambda: count(dsn, "jobs WHERE worker_id IS NOT NULL") == 12)
    assert count(dsn, "workers") == 3
    assert await handles.cancel() == [True] * 12
    assert {outcome.status for outcome in await handles.wait(timeout=SOON)} == {"cancelled"}
    assert requests(dsn) == 0


async def test_a_worker_that_dies_with_a_job_that_is_to_be_cancelled_leaves_it_cancelled(
    app: App, dsn: str, gate: object, workers: Callable[..., WorkerProcess]
) -> None:
    dies = workers(lease=2.0)
    handle = await app.waits.spawn(str(gate))
    await until(lambda: count(dsn, "jobs WHERE worker_id IS NOT NULL") == 1)
    dies.kill()
    assert await handle.cancel()
    workers(lease=2.0)
    assert (await handle.wait(timeout=SOON)).status == "cancelled"
    assert moves(dsn, handle.id) == ["rescue"]
    assert requests(dsn) == 0


async def test_a_job_that_fails_before_its_worker_hears_of_the_cancel_is_not_tried_again(
    jobs: Jobs, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piecework.engine.listener.hints", without_cancels)
    runs: list[int] = []
    started, gate = asyncio.Event(), asyncio.Event()

    @jobs.job(retry=OFTEN)
    async def broken() -> None:
        runs.append(1)
        started.set()
        await gate.wait()
        raise RuntimeError("broken")

    async with jobs.worker():
        handle = await broken.spawn()
        await started.wait()
        assert await handle.cancel()
        gate.set()
        with pytest.raises(JobCancelled):
            await handle.result(timeout=SOON)
    assert runs == [1]
    assert requests(dsn) == 0


async def test_of_cancel_and_timeout_the_first_decides_how_the_run_ends(
    jobs: Jobs, dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stopping, "PATIENCE", timedelta(milliseconds=100))
    started, gate = asyncio.Event(), asyncio.Event()

    @jobs.job(timeout=timedelta(milliseconds=700), retry=OFTEN)
    async def slow() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await gate.wait()

    async with jobs.worker():
        first = await slow.spawn()
        await started.wait()
        assert await first.cancel()
        await asyncio.sleep(0.8)  # past its timeout
        gate.set()
        assert (await first.wait(timeout=SOON)).status == "cancelled"
        assert moves(dsn, first.id) == ["cancel"]
        assert [r.getMessage().split(" goes on ")[1][:34] for r in caplog.records if "goes on" in r.getMessage()] == [
            "0:00:00.100000 after it was cancel"
        ]
        gate.clear()
        started.clear()
        second = await slow.spawn()
        await started.wait()
        await until(lambda: len([r for r in caplog.records if "goes on" in r.getMessage()]) == 2)
        assert await second.cancel()
        gate.set()
        assert (await second.wait(timeout=SOON)).status == "cancelled"
        assert query(dsn, "SELECT move, error->>'type' FROM piecework.attempts WHERE job_id = %s", second.id) == [
            ("retry", "TimeoutError")
        ]
    assert requests(dsn) == 0


async def test_a_job_that_ignores_its_cancellation_keeps_its_place_and_does_not_hold_up_others(jobs: Jobs) -> None:
    started, gate = asyncio.Event(), asyncio.Event()

    @jobs.job
    async def stubborn() -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await gate.wait()
        return "done all the same"

    @jobs.job
    async def other() -> None: ...

    async with jobs.worker(WorkerSettings(concurrency=2, prefetch=0)):
        handle = await stubborn.spawn()
        await started.wait()
        assert await handle.cancel()
        await (await jobs.spawn_all(other.spec() for _ in range(20))).results(timeout=SOON)
        assert (await handle.load()).status == "running"
        gate.set()
        assert await handle.result(timeout=SOON) == "done all the same"


async def test_a_worker_that_stops_leaves_a_job_cancelled_that_had_been_asked_for(
    jobs: Jobs, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piecework.engine.listener.hints", without_cancels)
    started = asyncio.Event()

    @jobs.job
    async def endless() -> None:
        started.set()
        await asyncio.Event().wait()

    async with jobs.worker(WorkerSettings(shutdown_grace=timedelta(milliseconds=1))):
        handle = await endless.spawn()
        await started.wait()
        query(dsn, "INSERT INTO piecework.cancel_requests VALUES (%s, 1)", handle.id)
    assert (await handle.load()).status == "cancelled"
    assert moves(dsn, handle.id) in (["release"], ["cancel"])


async def test_a_cancelled_job_runs_when_it_is_brought_back(jobs: Jobs, dsn: str) -> None:
    started = asyncio.Event()

    @jobs.job
    async def second_time(job: CurrentJob) -> str:
        if not started.is_set():
            started.set()
            await asyncio.Event().wait()
        return "ran"

    async with jobs.worker():
        handle = await second_time.spawn()
        await started.wait()
        assert await handle.cancel()
        assert (await handle.wait(timeout=SOON)).status == "cancelled"
        assert await handle.retry()
        assert await handle.result(timeout=SOON) == "ran"


async def test_a_hint_of_another_claim_or_for_an_unknown_job_stops_nothing(jobs: Jobs, dsn: str) -> None:
    started, gate = asyncio.Event(), asyncio.Event()

    @jobs.job
    async def busy() -> str:
        started.set()
        await gate.wait()
        return "done"

    def tell(worker: object, claims: Sequence[tuple[object, int]]) -> None:
        channel = jobs._service.store.statements.channel
        query(
            dsn,
            "SELECT pg_notify(%s, jsonb_build_object('worker', %s::text, 'cancel', "
            "jsonb_build_array(jsonb_build_array(%s::text, %s::integer)))::text)",
            channel, str(worker), str(claims[0][0]), claims[0][1],
        )  # fmt: skip

    async with jobs.worker():
        handle = await busy.spawn()
        await started.wait()
        worker = value(dsn, "SELECT id FROM piecework.workers")
        tell(worker, [(handle.id, 7)])
        tell("nobody", [(handle.id, 1)])
        tell(worker, [("unknown", 1)])
        await (await jobs.spawn_all([busy.spec()])).cancel()
        gate.set()
        assert await handle.result(timeout=SOON) == "done"


async def test_the_own_cancellation_of_a_job_is_a_failed_attempt(jobs: Jobs) -> None:
    @jobs.job(retry=RetrySettings(n_attempts=1))
    async def gives_up() -> None:
        raise asyncio.CancelledError

    async with jobs.worker():
        with pytest.raises(JobErrored, match="CancelledError"):
            await (await gives_up.spawn()).result(timeout=SOON)


async def test_a_run_whose_task_the_application_cancels_before_its_first_step_fails_and_is_tried_again(
    jobs: Jobs, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claimer, "_AUDIT_EVERY", 0.0)
    cancelled: list[str] = []

    @jobs.job(retry=OFTEN)
    async def work() -> None: ...

    def cancel_first(loop: asyncio.AbstractEventLoop, call: Any, **named: Any) -> Any:
        task = asyncio.Task(call, loop=loop, **named)
        if not cancelled and getattr(call, "__name__", "") == Executor._run.__name__:
            cancelled.append(task.get_name())
            task.cancel()
        return task

    loop = asyncio.get_running_loop()
    loop.set_task_factory(cancel_first)
    try:
        async with jobs.worker():
            handle = await work.spawn()
            await until(lambda: cancelled != [])
            await work.spawn()  # a claim, and the look at what is in hand before it
            await handle.result(timeout=SOON)
    finally:
        loop.set_task_factory(None)
    assert moves(dsn, handle.id) == ["retry"]
