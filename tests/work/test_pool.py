"""`Jobs(pool=…)`: the application's own pool (S24), whose connections go back as they came."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from piecework import (
    ConfigurationError,
    DatabaseError,
    DatabaseUnreachable,
    JobAlreadyExists,
    Jobs,
    MigrationsNeeded,
    new_id,
)

SOON = timedelta(seconds=60)

Pool = AsyncConnectionPool[Any]


def adding(jobs: Jobs) -> Any:
    @jobs.job
    async def add(a: int, b: int) -> int:
        return a + b

    return add


@pytest.fixture
async def make_pool() -> AsyncIterator[Callable[..., Awaitable[Pool]]]:
    """Open pools, which are closed after the test."""
    made: list[Pool] = []

    async def make(dsn: Any, **settings: Any) -> Pool:
        made.append(AsyncConnectionPool(dsn, open=False, min_size=1, **settings))
        await made[-1].open(wait=True)
        return made[-1]

    yield make
    for pool in made:
        await pool.close()


MODES: dict[str, dict[str, Any]] = {
    "as-it-is": {},
    "autocommit": {"autocommit": True},
    "dict-rows": {"row_factory": dict_row},
    "client-cursors": {"cursor_factory": psycopg.AsyncClientCursor},
    "odd-settings": {
        "options": "-c timezone=Asia/Tokyo -c datestyle=German -c default_transaction_isolation=serializable "
        "-c default_transaction_read_only=on"
    },
}


@pytest.mark.postgres(18, 15)
@pytest.mark.parametrize("mode", MODES)
async def test_jobs_are_spawned_run_and_read_whatever_the_pools_modes(
    server: object, dsn: str, make_pool: Callable[..., Awaitable[Pool]], mode: str
) -> None:
    pool = await make_pool(dsn, max_size=1, kwargs=MODES[mode])
    async with pool.connection() as conn:
        await conn.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        before = vars_of(conn)
        settings = await settings_of(conn)
    jobs = Jobs(pool=pool)
    add = adding(jobs)
    async with jobs, jobs.worker():
        handle = await add.spawn(1, 2)
        assert await handle.result(timeout=SOON) == 3
        snapshot = await handle.load()
        assert snapshot.status == "completed"
        assert snapshot.created_at.utcoffset() == timedelta(0)
        with pytest.raises(JobAlreadyExists):
            await add.options(id=handle.id).spawn(1, 2)
        waiting = await add.options(delay=timedelta(hours=1)).spawn(1, 2)
        assert await waiting.cancel()
    assert not pool.closed
    async with pool.connection() as conn:
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert vars_of(conn) == before
        assert await settings_of(conn) == settings


def vars_of(conn: psycopg.AsyncConnection[Any]) -> list[object]:
    return [conn.autocommit, conn.row_factory, conn.cursor_factory, conn.isolation_level, conn.read_only]


async def settings_of(conn: psycopg.AsyncConnection[Any]) -> list[object]:
    names = ("timezone", "datestyle", "default_transaction_isolation", "default_transaction_read_only")
    cursor = psycopg.AsyncCursor(conn, row_factory=psycopg.rows.tuple_row)
    await cursor.execute(f"SELECT {', '.join(f'''current_setting('{name}')''' for name in names)}")
    return [*(await cursor.fetchone() or ())]


async def test_nothing_else_connects_until_a_worker_does(
    dsn: str, make_pool: Callable[..., Awaitable[Pool]]
) -> None:
    pool = await make_pool(dsn, max_size=1, kwargs={"application_name": "the pool"})
    jobs = Jobs(pool=pool)
    add = adding(jobs)

    def names() -> set[object]:
        with psycopg.connect(dsn, application_name="looks") as conn:
            found = conn.execute("SELECT application_name FROM pg_stat_activity WHERE datname = current_database()")
            return {name for (name,) in found} - {"looks"}

    async with jobs:
        await asyncio.gather(*[add.spawn(n, 1) for n in range(8)])
        assert names() == {"the pool"}
        async with jobs.worker():
            assert await (await add.spawn(1, 1)).result(timeout=SOON) == 2


async def test_a_failed_spawn_leaves_a_usable_connection(dsn: str, make_pool: Callable[..., Awaitable[Pool]]) -> None:
    jobs = Jobs(pool=await make_pool(dsn, max_size=1))
    add = adding(jobs)
    id = new_id()
    async with jobs:
        await add.options(id=id).spawn(1, 1)
        for _ in range(3):
            with pytest.raises(JobAlreadyExists):
                await jobs.spawn_all([add.spec(2, 2), add.options(id=id).spec(1, 1)])
        assert await jobs.find(id) is not None
        with psycopg.connect(dsn) as conn:
            assert conn.execute("SELECT count(*) FROM piecework.jobs").fetchone() == (1,)


async def test_a_missing_leaf_of_the_history_is_made_on_the_way(
    dsn: str, make_pool: Callable[..., Awaitable[Pool]]
) -> None:
    with psycopg.connect(dsn) as conn:
        for (leaf,) in conn.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'piecework.finished_jobs'::regclass"
        ).fetchall():
            conn.execute(f"DROP TABLE {leaf}")
    jobs = Jobs(pool=await make_pool(dsn, max_size=1))
    add = adding(jobs)
    async with jobs:
        handle = await add.spawn(1, 1)
        assert await handle.cancel()
        assert (await handle.load()).status == "cancelled"


async def test_connections_that_died_in_the_pool_are_replaced(
    dsn: str, make_pool: Callable[..., Awaitable[Pool]]
) -> None:
    pool = await make_pool(dsn, max_size=4)
    jobs = Jobs(pool=pool)
    add = adding(jobs)
    async with jobs:
        await asyncio.gather(*[add.spawn(n, 1) for n in range(20)])
        with psycopg.connect(dsn) as conn:
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert isinstance((await add.spawn(1, 1)).id, UUID)


# who migrates (S30)


async def test_with_a_pool_the_schema_is_the_applications_matter_unless_it_says_otherwise(
    empty_dsn: str, make_pool: Callable[..., Awaitable[Pool]]
) -> None:
    pool = await make_pool(empty_dsn)
    with pytest.raises(MigrationsNeeded):
        async with Jobs(pool=pool):
            pass
    async with Jobs(pool=pool, migrate=True) as jobs:
        await adding(jobs).spawn(1, 1)
    async with Jobs(pool=pool):
        pass


async def test_six_jobs_on_pools_migrate_once(empty_dsn: str, make_pool: Callable[..., Awaitable[Pool]]) -> None:
    pool = await make_pool(empty_dsn, max_size=6)

    async def opened() -> None:
        async with Jobs(pool=pool, migrate=True):
            pass

    await asyncio.gather(*[opened() for _ in range(6)])


# where the worker connects


async def test_the_pools_own_arguments_lead_the_worker(dsn: str, make_pool: Callable[..., Awaitable[Pool]]) -> None:
    parts: dict[str, Any] = {name: value for name, value in conninfo_to_dict(dsn).items() if value is not None}
    name = parts.pop("dbname")

    async def arguments() -> dict[str, Any]:
        return {**parts, "autocommit": True, "row_factory": dict_row}

    pool = await make_pool(lambda: f"dbname={name}", kwargs=arguments)
    jobs = Jobs(pool=pool)
    add = adding(jobs)
    async with jobs, jobs.worker():
        assert await (await add.spawn(1, 1)).result(timeout=SOON) == 2


# a pool that is not open


async def test_a_pool_that_is_not_open_yet_is_opened_and_closed(dsn: str) -> None:
    pool: Pool = AsyncConnectionPool(dsn, open=False, min_size=1)
    jobs = Jobs(pool=pool)
    add = adding(jobs)
    async with jobs:
        await add.spawn(1, 1)
    assert pool.closed
    with pytest.raises(ConfigurationError, match="the pool was closed before"):
        async with jobs:
            pass


def test_scripts_give_a_pool_that_is_not_open(dsn: str) -> None:
    jobs = Jobs(pool=AsyncConnectionPool(dsn, open=False, min_size=1))
    add = adding(jobs)
    with jobs:
        assert add.spawn_sync(1, 1).load_sync().status == "pending"


async def test_an_open_pool_is_refused_on_another_loop(dsn: str, make_pool: Callable[..., Awaitable[Pool]]) -> None:
    with pytest.raises(ConfigurationError, match="open on another loop"):
        Jobs(pool=await make_pool(dsn)).__enter__()


async def test_a_pool_that_lends_nothing_is_an_error_that_says_so(
    dsn: str, make_pool: Callable[..., Awaitable[Pool]]
) -> None:
    pool = await make_pool(dsn, max_size=1, timeout=0.5)
    jobs = Jobs(pool=pool)
    add = adding(jobs)
    async with jobs:
        async with pool.connection():
            with pytest.raises(DatabaseUnreachable, match=r"the pool has lent no connection .* held while"):
                await add.spawn(1, 1)
        await add.spawn(1, 1)
        await pool.close()
        with pytest.raises(DatabaseError, match="is already closed"):
            await add.spawn(1, 1)


# what is refused


def test_a_dsn_and_a_pool_exclude_each_other(dsn: str) -> None:
    pool: Pool = AsyncConnectionPool(dsn, open=False)
    with pytest.raises(ConfigurationError, match=r"Jobs\(dsn=…, pool=…\)"):
        Jobs(dsn, pool=pool)


def test_the_pool_goes_before_the_environment(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIECEWORK_DATABASE_URL", "host=nowhere.invalid")
    with Jobs(pool=AsyncConnectionPool(dsn, open=False, min_size=1)):
        pass


def test_another_kind_of_pool_is_refused(dsn: str) -> None:
    for other in (ConnectionPool(dsn, open=False), dsn, object()):
        with pytest.raises(ConfigurationError, match=r"takes a psycopg_pool\.AsyncConnectionPool"):
            Jobs(pool=other)  # type: ignore[arg-type]


def test_the_package_of_pools_is_not_imported_for_those_who_have_none(dsn: str) -> None:
    program = "import sys; from piecework import Jobs\nwith Jobs(sys.argv[1]): print('psycopg_pool' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program, dsn], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
