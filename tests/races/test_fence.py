"""A worker that is stopped, given up for dead, and goes on: what it still writes changes nothing (invariant C)."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from engine.app import App, make
from engine.fixtures import Gate
from engine.helpers import SOON, WorkerProcess, count, query, until, value
from engine.ledger import Ledger

from piecework.store.statements import Statements, sql_files
from support.private_postgres import PrivatePostgres

Workers = Callable[..., WorkerProcess]
EACH = 40
FENCE = re.compile(r"j\.claim_no = (u|v_job)\.claim_no\s+AND coalesce\(j\.worker_id = p_worker, false\)")


@dataclass
class Stopped:
    """A worker that stands still since it began to run jobs, which another one has taken over."""

    app: App
    server: PrivatePostgres
    worker: WorkerProcess
    id: str
    jobs: set[str]
    first: Gate

    def rows(self) -> list[object]:
        """All of `jobs` and `finished_jobs`, and what wrote it, but for the job that shows that the worker is alive."""
        every = "SELECT t.*, t.xmin::text FROM piecework.{} t WHERE job_type = 'late' ORDER BY id"
        return [query(self.server.dsn, every.format(table)) for table in ("jobs", "finished_jobs")]

    def late_settles(self) -> set[str]:
        """The jobs that the server was asked to settle for this worker under its old id."""
        settle = rf"\$1 = '{self.id}', \$2 = '{{([^}}]*)}}', \$3 = [^\n]*\$4 = '{{complete"
        calls = re.findall(settle, self.server.log.read_text())
        return {job for ids in calls for job in ids.split(",")}

    async def go_on(self) -> None:
        """Let it go on, and return when the end of its runs is answered: it has run another job since."""
        self.worker.send(signal.SIGCONT)
        await until(lambda: f"worker {self.id} was given up for dead" in self.worker.log)
        self.first.open()
        await until(lambda: self.late_settles() == self.jobs)
        handle = await self.app.note.options(queue="own").spawn()
        await handle.result(timeout=SOON)


@pytest.fixture
async def stopped(
    private_postgres: Callable[..., PrivatePostgres], workers: Workers, ledger: Ledger, tmp_path: Path
) -> AsyncIterator[Stopped]:
    """Of each three of its jobs another worker has completed one, rescheduled one, and runs one."""
    server = private_postgres(log_statement="all", autovacuum="off")
    async with stopped_on(server, workers, ledger, tmp_path) as stopped:
        yield stopped


@asynccontextmanager
async def stopped_on(
    server: PrivatePostgres, workers: Workers, ledger: Ledger, tmp_path: Path
) -> AsyncIterator[Stopped]:
    first, second = Gate(tmp_path / "first"), Gate(tmp_path / "second")
    app = make(server.dsn, ledger)
    async with app.jobs:
        # Inside of an application: a process of `piecework worker` would end when it goes on.
        options = {"lease": 1.5, "threads": 3 * EACH, "concurrency": 200}
        worker = workers(server.dsn, **options, queues=["default", "own"], inside=True)
        handles = await app.jobs.spawn_all(
            app.late.spec(then, str(first), str(second)) for then in ["complete", "reschedule", "run"] * EACH
        )
        await until(lambda: len(ledger.runs()) == 3 * EACH)
        id = str(value(server.dsn, "SELECT id FROM piecework.workers"))
        worker.send(signal.SIGSTOP)
        workers(server.dsn, **options)
        await until(lambda: count(server.dsn, "finished_jobs WHERE status = 'completed'") == EACH)
        await until(lambda: count(server.dsn, "attempts WHERE move = 'reschedule'") == EACH)
        await until(lambda: count(server.dsn, "jobs WHERE worker_id IS NOT NULL AND claim_no = 2") == EACH)
        assert count(server.dsn, "attempts WHERE move = 'rescue' AND worker_id = %s", id) == 3 * EACH
        yield Stopped(app, server, worker, id, {str(handle.id) for handle in handles}, first)


async def test_late_settles_of_a_worker_that_was_given_up_for_dead_change_no_row_and_it_goes_on_under_a_new_id(
    stopped: Stopped,
) -> None:
    assert len(stopped.jobs) >= 100
    before = stopped.rows()
    await stopped.go_on()
    assert stopped.rows() == before
    answered = re.findall(r"job (\S+) \(late\): its claim 1 was lost, its end \(complete\)", stopped.worker.log)
    assert set(answered) == stopped.jobs
    [(new,)] = query(stopped.server.dsn, "SELECT id FROM piecework.workers WHERE pid = %s", stopped.worker.pid)
    assert str(new) != stopped.id
    assert value(stopped.server.dsn, "SELECT worker_id FROM piecework.finished_jobs WHERE job_type = 'note'") == new
    stopped.worker.send(signal.SIGTERM)
    assert stopped.worker.wait() == 0


async def test_without_the_fence_late_settles_change_rows(stopped: Stopped) -> None:
    """The test of the first test of this file."""
    [settle] = [file.text for file in sql_files("functions") if file.name == "settle_1"]
    unfenced, fences = FENCE.subn("true", settle)
    assert fences == 3, "of jobs that end, of jobs that go on, of the answer"
    with psycopg.connect(stopped.server.dsn, autocommit=True) as connection:
        connection.execute(Statements("piecework").render(unfenced).encode())
    before = stopped.rows()
    await stopped.go_on()
    assert stopped.rows() != before
