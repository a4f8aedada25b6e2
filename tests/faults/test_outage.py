"""PostgreSQL is gone for longer than a lease: nobody is condemned for what all suffered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from engine.app import App, make
from engine.fixtures import Gate
from engine.helpers import SOON, WorkerProcess, count, query, until
from engine.ledger import Ledger

from support.private_postgres import PrivatePostgres

Workers = Callable[..., WorkerProcess]
WORKERS = 4
EACH = 25


async def stop_for(
    seconds: float, server: PrivatePostgres, workers: Workers, ledger: Ledger, gate: Gate, **liveness: object
) -> None:
    app: App = make(server.dsn, ledger)
    async with app.jobs:
        processes = [workers(server.dsn, concurrency=EACH, **liveness) for _ in range(WORKERS)]
        handles = await app.jobs.spawn_all(app.waits.spec(str(gate)) for _ in range(WORKERS * EACH))
        more = await app.jobs.spawn_all(app.note.spec() for _ in range(WORKERS * EACH))
        await until(lambda: len(ledger.runs()) >= WORKERS * EACH)
        await until(lambda: count(server.dsn, "workers WHERE beat_no >= 3") == WORKERS)  # each saw the others beat
        ids = set(query(server.dsn, "SELECT id, pid FROM piecework.workers"))
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(server.start)
        # The lease is some four beats: whoever was to be given up for dead has been by then.
        [[least]] = query(server.dsn, "SELECT max(beat_no) + 8 FROM piecework.workers")
        await until(lambda: count(server.dsn, "workers WHERE beat_no >= %s", least) == WORKERS, within=90)
        gate.open()
        await handles.results(timeout=SOON)
        await more.results(timeout=SOON)
        assert set(query(server.dsn, "SELECT id, pid FROM piecework.workers")) == ids
    assert not [process for process in processes if process.ended]
    assert ledger.overlaps() == []
    assert len(ledger.runs_by_job()) == 2 * WORKERS * EACH
    ends = "SELECT status, attempt, failures, crashes, count(*) FROM piecework.finished_jobs GROUP BY 1, 2, 3, 4"
    assert query(server.dsn, ends) == [("completed", 1, 0, 0, 2 * WORKERS * EACH)]
    assert count(server.dsn, "attempts WHERE move <> 'release'") == 0
    assert count(server.dsn, "jobs") == 0


async def test_after_an_outage_longer_than_the_lease_all_jobs_end_and_no_attempt_is_spent(
    private_postgres: Callable[..., PrivatePostgres], workers: Workers, ledger: Ledger, gate: Gate
) -> None:
    await stop_for(3.0, private_postgres(), workers, ledger, gate, lease=1.5)


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_so_it_is_with_the_default_lease_after_a_minute(
    private_postgres: Callable[..., PrivatePostgres], workers: Workers, ledger: Ledger, gate: Gate
) -> None:
    await stop_for(60.0, private_postgres(), workers, ledger, gate, default_liveness=True)
