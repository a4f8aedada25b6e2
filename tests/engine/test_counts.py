"""How often a worker troubles the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psycopg
import pytest
from engine.helpers import SOON, count, until, value

from piecework import Jobs, WorkerSettings
from support.private_postgres import PrivatePostgres

DRAINED = 10_000
STATEMENTS_PER_1000 = 20
TRANSACTIONS_PER_SECOND = 0.3


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


@asynccontextmanager
async def idle_worker(server: PrivatePostgres) -> AsyncIterator[None]:
    """A worker of default settings that has nothing to do and is calm; there was a job once."""
    async with Jobs(server.dsn) as jobs:

        @jobs.job
        async def nothing() -> None: ...

        async with jobs._make_worker(WorkerSettings()) as worker:
            await (await nothing.spawn()).result(timeout=SOON)
            await until(lambda: worker._claimer._idleness.calm)
            await until(lambda: count(server.dsn, "workers WHERE beat_no > 0"))
            await asyncio.sleep(0.5)  # for the housekeeping that follows the first beat
            yield


async def test_an_idle_worker_makes_at_most_four_statements_in_twelve_seconds(
    private_postgres: Callable[..., PrivatePostgres],
) -> None:
    server = private_postgres(log_statement="all", autovacuum="off")
    async with idle_worker(server):
        before = len(statements(server.log.read_text()))
        await asyncio.sleep(12)
        seen = statements(server.log.read_text())[before:]
    assert 2 <= len(seen) <= 4, "\n".join(seen)
    assert all("A sign of life" in line for line in seen[:2])


@pytest.mark.soak
@pytest.mark.timeout(240)
async def test_an_idle_worker_makes_at_most_three_transactions_in_ten_seconds_by_the_servers_counters(
    private_postgres: Callable[..., PrivatePostgres],
) -> None:
    server = private_postgres(autovacuum="off")
    aside = psycopg.conninfo.make_conninfo(server.dsn, dbname="template1")

    def transactions() -> int:
        counted = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'postgres'"
        return int(str(value(aside, counted)))

    async with idle_worker(server):
        await asyncio.sleep(10)  # a session tells of what it did when it does something later, or ends
        before, start = transactions(), time.monotonic()
        await asyncio.sleep(100)
        made, took = transactions() - before, time.monotonic() - start
    assert 0.1 < made / took <= TRANSACTIONS_PER_SECOND
