"""Everything at once, by chance: workers killed, stopped and replaced, sessions ended, the server restarted."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable

import psycopg
import pytest
from engine.app import make
from engine.helpers import WorkerProcess, count, query, until
from engine.ledger import Ledger

from support.private_postgres import PrivatePostgres

Workers = Callable[..., WorkerProcess]
ROUNDS = 25
JOBS_PER_ROUND = 400
LEASE = 1.5


class Fleet:
    """Three workers, and what befalls them."""

    def __init__(self, server: PrivatePostgres, start: Callable[[], WorkerProcess]) -> None:
        self._server = server
        self._start = start
        self.workers = [start() for _ in range(3)]
        self.lost: set[int] = set()
        """Processes whose runs others may have taken over while they went on, or which ended without a word."""

    async def kill(self) -> None:
        self._lose().kill()

    async def stop_and_continue(self) -> None:
        worker = random.choice(self.workers)
        self.lost.add(worker.pid)
        worker.send(signal.SIGSTOP)
        await asyncio.sleep(random.choice([0.1, 2.5 * LEASE]))
        worker.send(signal.SIGCONT)

    async def replace(self) -> None:
        worker = random.choice(self.workers)
        self.workers.remove(worker)
        worker.send(signal.SIGTERM)
        self.workers.append(self._start())

    async def end_sessions(self) -> None:
        with psycopg.connect(self._server.dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                               " WHERE application_name = 'piecework' AND random() < 0.5")

    async def restart_server(self) -> None:
        await asyncio.to_thread(self._server.restart)

    def _lose(self) -> WorkerProcess:
        worker = random.choice(self.workers)
        self.lost.add(worker.pid)
        self.workers.remove(worker)
        self.workers.append(self._start())
        return worker


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_through_all_of_it_every_job_ends_once_and_no_undisturbed_runs_overlap(
    private_postgres: Callable[..., PrivatePostgres], workers: Workers, ledger: Ledger
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    random.seed(seed)
    server = private_postgres()
    app = make(server.dsn, ledger)
    spawned: set[str] = set()
    async with app.jobs:
        fleet = Fleet(server, lambda: workers(server.dsn, lease=LEASE, concurrency=30, threads=10, grace=0.3))
        befall = [fleet.kill, fleet.stop_and_continue, fleet.replace, fleet.end_sessions, fleet.restart_server]
        for turn in range(ROUNDS):
            handles = await app.jobs.spawn_all(
                [app.erratic.spec(number) for number in range(JOBS_PER_ROUND)]
                + [app.nap.spec(random.random()) for _ in range(JOBS_PER_ROUND // 10)]
                + [app.nap_in_thread.spec(random.random()) for _ in range(JOBS_PER_ROUND // 10)]
            )
            spawned |= {str(handle.id) for handle in handles}
            await asyncio.sleep(random.random())
            print(f"turn {turn}: {count(server.dsn, 'jobs')} to do")
            await random.choice(befall)()
        await until(lambda: count(server.dsn, "jobs") == 0, within=120)
    ends = {str(id): (status, claim_no) for id, status, claim_no in query(
        server.dsn, "SELECT id, status, claim_no FROM piecework.finished_jobs")}  # fmt: skip
    assert count(server.dsn, "finished_jobs") == len(spawned)
    assert set(ends) == spawned
    settled_twice = "(SELECT FROM piecework.attempts GROUP BY job_id, claim_no HAVING count(*) > 1) AS twice"
    assert query(server.dsn, f"SELECT count(*) FROM {settled_twice}") == [(0,)]
    assert ledger.overlaps(lost=frozenset(fleet.lost)) == []
    for job, runs in ledger.runs_by_job().items():
        status, claim_no = ends[job]
        assert status != "completed" or claim_no in {run.claim_no for run in runs if run.ended is not None}
