"""A worker that is cut off alone: it has stopped what it runs before another worker runs it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from engine.app import App, make, settings
from engine.fixtures import Gate
from engine.helpers import SOON, WorkerProcess, count, moves, query, until
from engine.ledger import Ledger

from piecework.testing import Direction, FaultProxy

Workers = Callable[..., WorkerProcess]
AT_ONCE = 10
EACH = 3
LEASE = 1.5
HOLES: list[tuple[Direction, ...]] = [("to_server", "to_client"), ("to_server",), ("to_client",)]


async def cut_off_ten(dsn: str, ledger: Ledger, workers: Workers, gate: Gate) -> None:
    """Cut ten workers off, each alone, at moments of their own, in all the ways there are."""
    queues = [f"queue-{n}" for n in range(AT_ONCE)]
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(FaultProxy(dsn)) for _ in queues]
        app: App = make(dsn, ledger)
        await stack.enter_async_context(app.jobs)
        for queue, proxy in zip(queues, proxies, strict=True):
            jobs = make(proxy.dsn, ledger).jobs
            await stack.enter_async_context(jobs)
            await stack.enter_async_context(jobs.worker(settings(lease=LEASE, queues=(queue,))))
        before = len(ledger.runs())
        handles = await app.jobs.spawn_all(
            app.waits.options(queue=queue).spec(str(gate)) for queue in queues for _ in range(EACH)
        )
        await until(lambda: len(ledger.runs()) == before + len(handles))
        other = workers(lease=LEASE, queues=queues)
        await until(lambda: count(dsn, "workers WHERE pid = %s AND beat_no >= 2", other.pid) == 1)
        for number, proxy in enumerate(proxies):
            await asyncio.sleep(random.uniform(0, 0.1))
            proxy.black_hole(*HOLES[number % len(HOLES)])
        await until(lambda: len(ledger.runs()) == before + 2 * len(handles))
        gate.open()
        assert await handles.results(timeout=SOON) == ["through"] * len(handles)
        for proxy in proxies:
            proxy.heal()
    for handle in handles:
        [first, second] = ledger.runs_by_job()[str(handle.id)]
        assert (first.pid != other.pid, second.pid, second.claim_no) == (True, other.pid, 2)
        assert moves(dsn, handle.id) == ["rescue"]
    assert ledger.overlaps() == []
    other.kill()


async def test_ten_workers_that_are_cut_off_stop_their_async_runs_before_another_starts_them(
    dsn: str, ledger: Ledger, workers: Workers, gate: Gate
) -> None:
    await cut_off_ten(dsn, ledger, workers, gate)
    assert count(dsn, "finished_jobs WHERE status = 'completed'") == AT_ONCE * EACH


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_so_it_is_in_a_hundred_tries(dsn: str, ledger: Ledger, workers: Workers, tmp_path: object) -> None:
    for turn in range(10):
        await cut_off_ten(dsn, ledger, workers, Gate(ledger.path.with_name(f"gate-{turn}")))
    assert count(dsn, "finished_jobs WHERE status = 'completed'") == 10 * AT_ONCE * EACH


async def test_the_process_that_runs_a_plain_function_is_gone_before_another_runs_it(
    dsn: str, app: App, workers: Workers, ledger: Ledger, gate: Gate
) -> None:
    async with FaultProxy(dsn) as proxy:
        worker = workers(proxy.dsn, lease=LEASE)
        handle = await app.waits_in_thread.spawn(str(gate))
        await until(ledger.runs)
        other = workers(lease=LEASE)
        await until(lambda: count(dsn, "workers WHERE beat_no >= 2") == 2)
        proxy.black_hole()
        await until(lambda: len(ledger.runs()) == 2)
        assert worker.ended
        assert worker.wait() == 75
        gate.open()
        assert await handle.result(timeout=SOON) == "through"
    assert [run.pid for run in ledger.runs()] == [worker.pid, other.pid]
    assert query(dsn, "SELECT attempt, crashes FROM piecework.finished_jobs") == [(2, 1)]


async def test_a_worker_that_was_cut_off_for_less_than_its_lease_hands_back_what_it_stopped_at_no_cost(
    dsn: str, app: App, ledger: Ledger, workers: Workers, gate: Gate
) -> None:
    async with FaultProxy(dsn) as proxy:
        worker = workers(proxy.dsn, lease=6.0)
        handles = await app.jobs.spawn_all(app.waits.spec(str(gate)) for _ in range(EACH))
        await until(lambda: len(ledger.runs()) == EACH)
        proxy.black_hole()
        await until(lambda: all(run.ended is not None for run in ledger.runs()))
        proxy.heal()
        await until(lambda: len(ledger.runs()) == 2 * EACH)
        gate.open()
        await handles.results(timeout=SOON)
    assert {run.pid for run in ledger.runs()} == {worker.pid}
    assert query(dsn, "SELECT move, count(*) FROM piecework.attempts GROUP BY 1") == [("release", EACH)]
    assert query(dsn, "SELECT DISTINCT status, attempt, failures, crashes FROM piecework.finished_jobs") == [
        ("completed", 1, 0, 0)
    ]
