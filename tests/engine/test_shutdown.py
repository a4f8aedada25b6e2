"""How a worker stops: nothing is lost, nobody waits longer than need be."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from engine.app import App, settings
from engine.fixtures import Gate
from engine.helpers import SOON, WorkerProcess, count, moves, query, until, value

from piecework import Jobs, WorkerSettings
from support.private_postgres import PrivatePostgres

AT_ONCE = 2.5  # seconds, on a busy machine, of which it takes a fraction
Workers = Callable[..., WorkerProcess]


async def test_an_idle_worker_is_gone_at_once_and_signs_off(workers: Workers, dsn: str) -> None:
    worker = workers()
    await until(lambda: count(dsn, "idle_workers") == 1)
    start = time.monotonic()
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert time.monotonic() - start < AT_ONCE
    assert count(dsn, "workers") == 0
    assert count(dsn, "idle_workers") == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_job_that_ends_within_the_grace_completes(
    workers: Workers, app: App, dsn: str, gate: Gate, number: signal.Signals
) -> None:
    worker = workers(lease=1.5)
    handle = await app.waits.spawn(str(gate))
    await until(app.ledger.runs)
    worker.send(number)
    await until(lambda: value(dsn, "SELECT draining FROM piecework.workers"))
    gate.open()
    assert worker.wait() == 0
    snapshot = await handle.load()
    assert (snapshot.status, snapshot.claim_no) == ("completed", 1)
    assert count(dsn, "workers") == 0


async def test_a_stopping_worker_claims_no_more(workers: Workers, app: App, dsn: str, gate: Gate) -> None:
    worker = workers()
    await app.waits.spawn(str(gate))
    await until(app.ledger.runs)
    worker.send(signal.SIGTERM)
    await until(lambda: "1 jobs in hand" in worker.log)
    late = await app.note.spawn()
    gate.open()
    assert worker.wait() == 0
    assert (await late.load()).claim_no == 0


async def test_a_job_that_outlasts_the_grace_is_handed_back_and_runs_elsewhere_at_once(
    workers: Workers, app: App, dsn: str, gate: Gate
) -> None:
    worker = workers(grace=0.2)
    handle = await app.waits.spawn(str(gate))
    await until(app.ledger.runs)
    async with app.jobs.worker(WorkerSettings(look_every=timedelta(hours=1))):
        await until(lambda: count(dsn, "idle_workers") == 2)
        worker.send(signal.SIGTERM)
        await until(lambda: moves(dsn, handle.id) == ["release"])
        await until(lambda: len(app.ledger.runs()) == 2, within=AT_ONCE)
        gate.open()
        assert await handle.result(timeout=SOON) == "through"
    assert worker.wait() == 0
    snapshot = await handle.load()
    assert (snapshot.attempt, snapshot.failures, snapshot.crashes, snapshot.claim_no) == (1, 0, 0, 2)
    assert app.ledger.overlaps() == []


async def test_jobs_that_were_claimed_and_not_begun_are_handed_back_at_once(
    workers: Workers, app: App, dsn: str, gate: Gate
) -> None:
    worker = workers(concurrency=5)
    await (await app.jobs.spawn_all(app.note.spec() for _ in range(100))).wait(timeout=SOON)
    handles = await app.jobs.spawn_all(app.waits.spec(str(gate)) for _ in range(10))
    await until(lambda: count(dsn, "jobs WHERE worker_id IS NOT NULL") == 10)
    worker.send(signal.SIGTERM)
    await until(lambda: count(dsn, "attempts WHERE move = 'release'") == 5)
    gate.open()
    assert worker.wait() == 0
    found = [await handle.load() for handle in handles]
    assert sorted(s.status for s in found) == ["completed"] * 5 + ["pending"] * 5
    assert {(s.attempt, s.failures) for s in found} == {(1, 0)}


async def test_a_second_signal_does_not_wait_for_an_async_job(
    workers: Workers, app: App, dsn: str, gate: Gate
) -> None:
    worker = workers(grace=600)
    handle = await app.waits.spawn(str(gate))
    await until(app.ledger.runs)
    worker.send(signal.SIGTERM)
    await until(lambda: "1 jobs in hand" in worker.log)
    start = time.monotonic()
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert time.monotonic() - start < AT_ONCE
    assert moves(dsn, handle.id) == ["release"]
    assert (await handle.load()).attempt == 1
    assert count(dsn, "workers") == 0


async def test_a_second_signal_does_not_wait_for_a_plain_job(
    workers: Workers, app: App, dsn: str, gate: Gate
) -> None:
    worker = workers(grace=0.1, lease=1.5)
    handle = await app.waits_in_thread.spawn(str(gate))
    await until(app.ledger.runs)
    worker.send(signal.SIGTERM)
    await until(lambda: "runs in a thread" in worker.log)
    start = time.monotonic()
    worker.send(signal.SIGINT)
    worker.wait()
    assert time.monotonic() - start < AT_ONCE
    gate.open()
    async with app.jobs.worker(settings(lease=1.5)):
        assert await handle.result(timeout=SOON) == "through"
    assert moves(dsn, handle.id) == ["rescue"]


async def test_a_second_signal_does_not_wait_for_a_job_that_takes_no_notice_of_its_cancellation(
    workers: Workers, app: App, gate: Gate
) -> None:
    worker = workers(grace=0.1)
    handle = await app.clings.spawn(str(gate))
    await until(app.ledger.runs)
    worker.send(signal.SIGTERM)
    await until(lambda: f"job {handle.id} (clings) ignores that it was cancelled" in worker.log)
    start = time.monotonic()
    worker.send(signal.SIGTERM)
    assert worker.wait() == 1
    assert time.monotonic() - start < AT_ONCE


async def test_a_plain_job_is_waited_for_however_long_it_takes(
    workers: Workers, app: App, dsn: str, gate: Gate
) -> None:
    worker = workers(grace=0.1, lease=1.5)
    handle = await app.waits_in_thread.spawn(str(gate))
    await until(app.ledger.runs)
    worker.send(signal.SIGTERM)
    await until(lambda: f"job {handle.id} (waits_in_thread) runs in a thread" in worker.log)
    await beats(dsn, worker, 2)
    assert not worker.ended
    gate.open()
    assert worker.wait() == 0
    assert (await handle.load()).status == "completed"
    assert count(dsn, "attempts") == 0


async def beats(dsn: str, worker: WorkerProcess, more: int) -> None:
    """Wait until the worker has given so many further signs of life."""

    def beat_no() -> int:
        return int(str(value(dsn, "SELECT max(beat_no) FROM piecework.workers WHERE pid = %s", worker.pid)))

    last = beat_no() + more
    await until(lambda: beat_no() >= last)


async def test_jobs_of_both_kinds_see_that_the_worker_wants_to_stop(workers: Workers, app: App) -> None:
    worker = workers()
    handles = await app.jobs.spawn_all([app.goes_when_asked.spec(), app.goes_when_asked_in_thread.spec()])
    await until(lambda: len(app.ledger.runs()) == 2)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert await handles.results(timeout=SOON) == ["asked", "asked"]


async def test_a_worker_beats_until_the_end_of_its_drain_and_is_not_given_up_for_dead(
    workers: Workers, app: App, dsn: str, gate: Gate
) -> None:
    worker, observer = workers(lease=1.5), workers(lease=1.5, queues=["another"])
    handle = await app.waits.spawn(str(gate))
    await until(app.ledger.runs)
    await until(lambda: count(dsn, "workers") == 2)
    worker.send(signal.SIGTERM)
    await until(lambda: count(dsn, "workers WHERE draining") == 1)
    await beats(dsn, worker, 6)  # the lease is some four beats
    await beats(dsn, observer, 2)
    gate.open()
    assert worker.wait() == 0
    assert (await handle.load()).status == "completed"
    assert count(dsn, "attempts") == 0


async def test_a_job_that_takes_no_notice_of_its_cancellation_may_still_end(
    workers: Workers, app: App, dsn: str, gate: Gate
) -> None:
    worker = workers(grace=0.1)
    handle = await app.clings.spawn(str(gate))
    await until(app.ledger.runs)
    worker.send(signal.SIGTERM)
    await until(lambda: "cancelled" in app.ledger.notes())
    gate.open()
    assert worker.wait() == 0
    assert (await handle.load()).status == "completed"
    assert count(dsn, "workers") == 0


# A worker inside of an application ----------------------------------------------------------------------------------


def leftovers() -> list[str]:
    """Names of tasks and threads of a worker that should be gone."""
    tasks = [task.get_name() for task in asyncio.all_tasks()]
    for thread in threading.enumerate():
        if thread.name in ("job-sign-off", "job-heartbeat-deadline"):
            thread.join(5)  # its work is done, it is about to end
    threads = [thread.name for thread in threading.enumerate()]
    return [name for name in tasks + threads if name.startswith("job-") and name != "job-waiters"]


async def test_leaving_the_block_lets_jobs_end(jobs: Jobs, dsn: str) -> None:
    started = asyncio.Event()
    release = asyncio.Event()

    @jobs.job
    async def waits() -> str:
        started.set()
        await release.wait()
        return "done"

    async with jobs.worker():
        handle = await waits.spawn()
        await started.wait()  # what is claimed and not started would be handed back
        asyncio.get_running_loop().call_later(0.1, release.set)
    assert await handle.result(timeout=SOON) == "done"
    assert count(dsn, "workers") == 0
    assert leftovers() == []


async def test_an_exception_in_the_block_drains_the_worker_and_goes_on(jobs: Jobs, dsn: str) -> None:
    @jobs.job
    async def hangs() -> None:
        await asyncio.Event().wait()

    async def block() -> None:
        async with jobs.worker(WorkerSettings(shutdown_grace=timedelta(milliseconds=10))):
            await hangs.spawn()
            await until(lambda: count(dsn, "jobs WHERE worker_id IS NOT NULL") == 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await block()
    assert query(dsn, "SELECT move FROM piecework.attempts") == [("release",)]
    assert count(dsn, "workers") == 0
    assert leftovers() == []


async def cancelled_block(jobs: Jobs, dsn: str, grace: timedelta) -> asyncio.Task[None]:
    """A task inside of a worker's block with a job that never ends, cancelled; it drains now."""

    @jobs.job
    async def hangs() -> None:
        await asyncio.Event().wait()

    async def block() -> None:
        async with jobs.worker(WorkerSettings(shutdown_grace=grace)):
            await asyncio.Event().wait()

    task = asyncio.create_task(block(), name="block")
    await hangs.spawn()
    await until(lambda: count(dsn, "jobs WHERE worker_id IS NOT NULL") == 1)
    task.cancel()
    await asyncio.sleep(0)
    return task


async def test_a_cancelled_block_drains_the_worker_and_stays_cancelled(jobs: Jobs, dsn: str) -> None:
    task = await cancelled_block(jobs, dsn, timedelta(milliseconds=10))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert query(dsn, "SELECT move FROM piecework.attempts") == [("release",)]
    assert count(dsn, "workers") == 0
    assert leftovers() == []


async def test_a_block_that_is_cancelled_again_while_it_drains_waits_no_longer_and_hands_back(
    jobs: Jobs, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "piecework.worker")
    task = await cancelled_block(jobs, dsn, timedelta(minutes=10))
    await until(lambda: "1 jobs in hand" in caplog.text)
    start = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - start < AT_ONCE
    assert query(dsn, "SELECT move FROM piecework.attempts") == [("release",)]
    assert count(dsn, "workers") == 0
    assert leftovers() == []


async def test_a_block_that_is_cancelled_while_the_worker_starts_leaves_nothing_behind(jobs: Jobs, dsn: str) -> None:
    async def block() -> None:
        async with jobs.worker():
            await asyncio.Event().wait()

    task = asyncio.create_task(block(), name="block")
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert leftovers() == []
    await until(lambda: count(dsn, "workers") == 0)


# Without a database -------------------------------------------------------------------------------------------------


async def test_an_idle_worker_stops_without_its_database(private_postgres: Callable[[], PrivatePostgres]) -> None:
    server = private_postgres()
    async with Jobs(server.dsn) as jobs:
        async with jobs.worker():
            await asyncio.to_thread(server.stop)
            start = time.monotonic()
        assert time.monotonic() - start < 2 * AT_ONCE  # a pause between two tries may have begun
    assert leftovers() == []


async def test_a_worker_stops_without_its_database_when_its_plain_jobs_have_ended(
    private_postgres: Callable[[], PrivatePostgres], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piecework.engine.worker._SETTLE_GRACE", 0.5)
    server, began, release = private_postgres(), threading.Event(), threading.Event()
    async with Jobs(server.dsn) as jobs:

        @jobs.job
        def waits() -> None:
            began.set()
            release.wait()

        async def block() -> None:
            async with jobs.worker(WorkerSettings(shutdown_grace=timedelta(milliseconds=10))):
                await waits.spawn()
                await until(began.is_set)
                await asyncio.to_thread(server.stop)

        task = asyncio.create_task(block(), name="block")
        await until(lambda: "runs in a thread" in caplog.text)
        release.set()
        async with asyncio.timeout(20):
            await task
    assert leftovers() == []
