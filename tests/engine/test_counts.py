"""How often a worker troubles the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psycopg
from engine.helpers import count, until, value

from piecework import Jobs, WorkerSettings
from support.private_postgres import PrivatePostgres

DRAINED = 10_000
STATEMENTS_PER_1000 = 20
WATCHED = 10.0  # seconds
TRANSACTIONS_PER_SECOND = 2.5
CONNECTIONS = 10
"""At most so many are opened by a worker and its Jobs; each costs a transaction."""


def statements(log: str) -> list[str]:
    """The statements of piecework's connections in the server's log, one line each."""
    marks = ("] piecework: LOG:  statement: ", "] piecework: LOG:  execute ")
    return [line for line in log.splitlines() if any(mark in line for mark in marks)]


async def test_a_drain_of_a_thousand_jobs_takes_at_most_20_statements(
    private_postgres: Callable[..., PrivatePostgres],
) -> None:
    server = private_postgres(log_statement="all", autovacuum="off")
    async with Jobs(server.dsn) as jobs:

        @jobs.job
        async def nothing(number: int) -> None: ...

        await jobs.spawn_all(nothing.spec(number) for number in range(DRAINED))
        before = len(statements(server.log.read_text()))
        async with jobs.worker(WorkerSettings(concurrency=500)):
            await until(lambda: count(server.dsn, "jobs") == 0)
    seen = statements(server.log.read_text())[before:]
    assert count(server.dsn, "finished_jobs WHERE status = 'completed'") == DRAINED
    assert any("Settle claims" in line for line in seen)
    assert len(seen) <= STATEMENTS_PER_1000 * DRAINED / 1000, "\n".join(seen)


async def test_an_idle_worker_makes_at_most_two_and_a_half_transactions_a_second(
    private_postgres: Callable[..., PrivatePostgres],
) -> None:
    server = private_postgres(log_statement="all", autovacuum="off")
    async with Jobs(server.dsn):
        pass  # migrated

    def transactions() -> int:
        """How many the database has seen; a session's own are in it for certain when the session has ended."""
        aside = psycopg.conninfo.make_conninfo(server.dsn, dbname="template1")
        return int(str(value(aside, "SELECT xact_commit FROM pg_stat_database WHERE datname = 'postgres'")))

    jobs = Jobs(server.dsn, migrate=False)

    @jobs.job
    async def nothing() -> None: ...

    all_before, seen_before = transactions(), len(statements(server.log.read_text()))
    async with jobs, jobs.worker():
        await asyncio.sleep(3)  # until it is idle
        before, start = len(statements(server.log.read_text())), time.monotonic()
        await asyncio.sleep(WATCHED)
        rate = (len(statements(server.log.read_text())) - before) / (time.monotonic() - start)
    assert 0 < rate <= TRANSACTIONS_PER_SECOND
    seen = len(statements(server.log.read_text())) - seen_before
    assert transactions() - all_before <= seen + CONNECTIONS, "a statement is a transaction, and there are no others"
