"""SIGUSR1 and `Worker.dump`: what a worker does at this moment, for whoever wonders why it hangs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from datetime import timedelta

import pytest
from engine.app import App
from engine.fixtures import Gate
from engine.helpers import SOON, WorkerProcess, until, value

from piecework import CurrentJob, Jobs, WorkerSettings
from piecework.engine.dump import printed_on_signal

Workers = Callable[..., WorkerProcess]
END = "\nend of what worker "


def dumps(worker: WorkerProcess) -> list[str]:
    """What it has printed so far, dump by dump."""
    return ["piecework worker" + part for part in worker.log.split("piecework worker")[1:]]


async def test_a_signal_prints_claims_lease_connections_tasks_and_threads(
    workers: Workers, app: App, dsn: str, gate: Gate
) -> None:
    worker = workers(concurrency=2)
    on_loop, in_thread = await app.waits.spawn(str(gate)), await app.waits_in_thread.spawn(str(gate))
    await until(lambda: len(app.ledger.runs()) == 2)
    worker.send(signal.SIGUSR1)
    await until(lambda: any(END in dump for dump in dumps(worker)))
    [dump] = dumps(worker)
    id = value(dsn, "SELECT id FROM piecework.workers")
    assert dump.startswith(f"piecework worker {id}, process {worker.pid} on ")
    assert "lease: the last answered beat was sent " in dump
    assert "runs are stopped in " in dump
    assert f"  {on_loop.id} waits attempt 1 claim 1: runs on the loop for " in dump
    assert f"  {in_thread.id} waits_in_thread attempt 1 claim 1: runs in a thread for " in dump
    for name in ("claims", "heartbeat"):
        assert f"  {name}: back end " in dump
    assert "  settles: not connected\n  hints: " in dump, "nothing has been settled"
    assert f"  job-waits-{on_loop.id}: sleep (" in dump, "where the task waits"
    assert "make.<locals>.waits (" in dump
    assert "  job-poller-main-loop: " in dump
    for name in ("MainThread", "job-heartbeat", f"job-waits_in_thread-{in_thread.id}"):
        assert f"\n  {name}\n    " in dump
    gate.open()
    for handle in (on_loop, in_thread):
        assert await handle.result(timeout=SOON) == "through"
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0


async def test_a_worker_whose_event_loop_hangs_prints_where_and_goes_on(workers: Workers, app: App) -> None:
    worker = workers()
    handle = await app.freezes.spawn(3.0)
    await until(app.ledger.runs)
    worker.send(signal.SIGUSR1)
    await until(lambda: any(END in dump for dump in dumps(worker)))
    [dump] = dumps(worker)
    main = dump[dump.index("\n  MainThread\n") :].splitlines()
    assert main[2].startswith("    make.<locals>.freezes (")
    assert (await handle.load()).status == "running", "it was printed while the loop hung"
    assert await handle.result(timeout=SOON) == "thawed"


async def test_an_embedded_worker_can_be_asked_and_takes_no_signal(dsn: str) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    entered, go = asyncio.Event(), asyncio.Event()
    jobs = Jobs(dsn)

    @jobs.job
    async def hold(job: CurrentJob) -> None:
        entered.set()
        await go.wait()

    async with jobs, jobs._make_worker(WorkerSettings(concurrency=1)) as worker:
        handles = [await hold.spawn() for _ in range(2)]
        await entered.wait()
        assert signal.getsignal(signal.SIGUSR1) == before
        dump = worker.dump()
        assert f"  {handles[0].id} hold attempt 1 claim 1: runs on the loop" in dump
        assert "lost settles: 0, stops: 0" in dump
        go.set()
        for handle in handles:
            await handle.result(timeout=timedelta(seconds=30))


def test_a_dump_that_fails_is_printed_and_disturbs_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> str:
        raise LookupError("no such claim")

    before = signal.getsignal(signal.SIGUSR1)
    with printed_on_signal(broken):
        signal.raise_signal(signal.SIGUSR1)
    assert "LookupError: no such claim" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGUSR1) == before
