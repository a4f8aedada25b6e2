"""An end of a connection stands still, or is gone without a word: the worker notices, and goes on over another one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import timedelta

import pytest
from engine.app import App, make
from engine.fixtures import Gate
from engine.helpers import SOON, WorkerProcess, count, query, until
from engine.ledger import Ledger

from piecework.testing import FaultProxy
from support.private_postgres import PrivatePostgres

Workers = Callable[..., WorkerProcess]
LEASE = 1.5
WAITING = 5
NOTES = 20
NOTICED = timedelta(seconds=8 * LEASE)
"""What takes longest, the LISTEN, is asked every two leases, and given up after another one; the rest is reserve."""

BACK_ENDS = {
    "claim": r"claim_\d|look_\d|owned_\d|idle_workers",
    "settle": r"settle_\d",
    "listen": r"^LISTEN|^SELECT 1$",
    "heartbeat": r"A sign of life",
}


def back_ends(dsn: str, role: str) -> set[int]:
    """Return the processes that connections of the worker lead to, and that wait for the next request."""
    idle = "query ~ %s AND state = 'idle' AND application_name = 'piecework'"
    return {int(str(pid)) for (pid,) in query(dsn, f"SELECT pid FROM pg_stat_activity WHERE {idle}", BACK_ENDS[role])}


@pytest.mark.parametrize("role", BACK_ENDS)
async def test_a_frozen_back_end_is_given_up_and_what_runs_is_not_disturbed(
    private_postgres: Callable[..., PrivatePostgres], workers: Workers, ledger: Ledger, gate: Gate, role: str
) -> None:
    server = private_postgres()
    app: App = make(server.dsn, ledger)
    async with app.jobs:
        worker = workers(server.dsn, lease=LEASE)
        waiting = await app.jobs.spawn_all(app.waits.spec(str(gate)) for _ in range(WAITING))
        await until(lambda: len(ledger.runs()) == WAITING)
        await (await app.note.spawn()).result(timeout=SOON)
        await until(lambda: count(server.dsn, "idle_workers") == 1)
        [before] = query(server.dsn, "SELECT id FROM piecework.workers")
        found: list[int] = []

        def is_there() -> bool:  # it is known by its last statement, which may be another in a moment
            found[:] = back_ends(server.dsn, role)
            return len(found) == 1

        await until(is_there)
        [frozen] = found
        os.kill(frozen, signal.SIGSTOP)
        try:
            notes = await app.jobs.spawn_all(app.note.spec() for _ in range(NOTES))
            await notes.results(timeout=NOTICED)
            await until(lambda: back_ends(server.dsn, role) - {frozen})
            assert {run.claim_no for run in ledger.runs() if run.ended is None} == {1}
        finally:
            os.kill(frozen, signal.SIGCONT)
        # What it was asked while it was frozen it does now, for nobody.
        later = await app.jobs.spawn_all(app.note.spec() for _ in range(NOTES))
        await later.results(timeout=SOON)
        gate.open()
        await waiting.results(timeout=SOON)
        await until(lambda: count(server.dsn, "jobs") == 0)
        assert query(server.dsn, "SELECT id FROM piecework.workers") == [before]
    assert not worker.ended
    assert len(ledger.runs()) == len(ledger.runs_by_job()) == WAITING + 1 + 2 * NOTES
    assert count(server.dsn, "attempts WHERE move <> 'release'") == 0
    assert count(server.dsn, "finished_jobs WHERE attempt = 1 AND status = 'completed'") == WAITING + 1 + 2 * NOTES


@pytest.mark.parametrize("how", ["half open", "black hole"])
async def test_a_listen_that_nobody_answers_any_more_is_noticed(dsn: str, app: App, workers: Workers, how: str) -> None:
    async with FaultProxy(dsn) as proxy:
        workers(proxy.dsn, lease=LEASE)
        await until(lambda: count(dsn, "idle_workers") == 1)
        await until(lambda: proxy.connections(b"^LISTEN"))
        await (await app.note.spawn()).result(timeout=SOON)
        [listen] = proxy.connections(b"^LISTEN")
        if how == "half open":
            listen.half_open()
        else:
            listen.black_hole()
        await (await app.note.spawn()).result(timeout=NOTICED)
        await until(lambda: any(each is not listen for each in proxy.connections(b"^LISTEN")))
    assert len(app.ledger.runs()) == 2
    assert count(dsn, "attempts") == 0
