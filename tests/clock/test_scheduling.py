"""Jobs of later: they wait for their time, and cost the others nothing until then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from engine.helpers import SOON, count, until

from piecework import Jobs, new_id
from piecework.store.statements import Statements

DAY = timedelta(days=1)
STATEMENTS = Statements("piecework")
WORKER = str(new_id())


async def test_a_time_that_has_passed_means_now(jobs: Jobs) -> None:
    @jobs.job
    async def work() -> None: ...

    past = datetime.now(UTC) - 400 * DAY
    handle = await work.options(run_at=past).spawn()
    assert (await handle.load()).run_at == past
    behind = await work.options(delay=-DAY).spawn()
    async with jobs.worker():
        await handle.result(timeout=SOON)
        await behind.result(timeout=SOON)


async def test_a_job_of_later_runs_when_its_time_has_come_and_is_pending_until_then(jobs: Jobs) -> None:
    seen: list[datetime] = []

    @jobs.job
    async def work() -> None:
        seen.append(datetime.now(UTC))

    async with jobs.worker():
        handle = await work.options(delay=timedelta(seconds=1.5)).spawn()
        due = await handle.load()
        assert due.status == "pending"
        assert due.run_at is not None
        await handle.result(timeout=SOON)
    # The clocks of this process and of its server are those of one machine.
    assert timedelta(0) <= seen[0] - due.run_at < timedelta(seconds=20)


async def test_a_worker_that_sleeps_wakes_for_the_job_that_is_due_first(jobs: Jobs, dsn: str) -> None:
    """And not with its next look, half a minute later."""
    ran: list[str] = []

    @jobs.job
    async def work(name: str) -> None:
        ran.append(name)

    async with jobs.worker():
        later = await work.options(delay=DAY).spawn("later")
        second = await work.options(delay=timedelta(seconds=3)).spawn("second")
        first = await work.options(delay=timedelta(seconds=2), priority=5).spawn("first")
        await until(lambda: count(dsn, "idle_workers"))
        await first.result(timeout=timedelta(seconds=15))
        await second.result(timeout=timedelta(seconds=15))
        assert (await later.load()).status == "pending"
    assert ran == ["first", "second"]


async def test_thousands_of_future_jobs_are_pending_and_others_run_past_them(jobs: Jobs, dsn: str) -> None:
    @jobs.job
    async def work(number: int) -> int:
        return number

    await jobs.spawn_all(work.options(delay=DAY).spec(number) for number in range(5000))
    async with jobs.worker():
        due = await jobs.spawn_all(work.spec(number) for number in range(100))
        assert await due.results(timeout=SOON) == [*range(100)]
    assert count(dsn, "jobs WHERE worker_id IS NULL") == 5000


# what they cost


@pytest.fixture
def tables(dsn: str) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    """One connection that fills the tables, and one whose work is looked at."""
    with psycopg.connect(dsn, autocommit=True) as sql:
        sql.execute("SET search_path = piecework")
        sql.execute("ALTER TABLE jobs SET (autovacuum_enabled = off)")
        sql.execute("INSERT INTO workers (id, pid, host, lease, stop, exit, queues, job_types, version) "
                    "VALUES (%s, 1, 'h', '1 h', '1 h', '1 h', '{}', '{}', '0')", [WORKER])  # fmt: skip
        with psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.RawCursor) as session:
            yield sql, session


CALLS: dict[str, tuple[str, list[object]]] = {
    "claim": ("claim", [WORKER, ["default"], ["work"], [0], [50], 50]),
    "claim with keys": ("claim_keyed", [WORKER, ["default"], ["work"], [0], [50], [1], 50, 0, 0]),
    "look": ("look", [WORKER, ["default"], ["work"]]),
}


@pytest.mark.postgres(18, 15)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("due", [0, 50])
def test_future_jobs_cost_a_claim_nothing(
    tables: tuple[psycopg.Connection, psycopg.Connection], call: str, due: int
) -> None:
    sql, session = tables
    key = "'c' || n" if call == "claim with keys" else "NULL"
    fill = (
        "INSERT INTO jobs (id, job_type, config, run_at, concurrency_key) SELECT gen_random_uuid(), 'work', '{}', "
        f"clock_timestamp() + %s, {key} FROM generate_series(1, %s) AS n"
    )
    sql.execute(fill, [-DAY, due])
    sql.execute("VACUUM ANALYZE jobs")
    alone = pages(session, call)
    sql.execute(fill, [DAY, 20_000])
    sql.execute("VACUUM ANALYZE jobs")
    beside = pages(session, call)
    # A tree of more levels is a page more on each way down; to walk over them would take hundreds.
    assert beside <= alone * 1.5 + 30, f"{alone} pages alone, {beside} beside 20,000 future jobs"


def pages(session: psycopg.Connection, call: str) -> int:
    """Run a call twice, undone each time, and return how many pages the second one touched."""
    statement, params = CALLS[call]
    touched = 0
    for _ in range(2):
        with session.transaction(force_rollback=True):
            text = b"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) " + STATEMENTS.sql(statement)
            row = session.execute(text, params).fetchone()
            assert row is not None
            found = row[0] if isinstance(row[0], list) else json.loads(row[0])
            plan = found[0]["Plan"]
            touched = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return touched
