"""Where piecework lives: schemas of any name that do not see each other, on servers with settings of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from piecework.base.errors import ConfigurationError
from piecework.model.settlement import Settlement, completed
from piecework.model.snapshot import ErrorInfo
from piecework.store import claiming
from piecework.store.overview import JobFilter, count_jobs, list_attempts, list_jobs, list_workers
from piecework.store.store import Store
from support.databases import Server
from support.scene import NOW, Scene, new_job

pytestmark = pytest.mark.postgres(18)


async def a_day_of_work(scene: Scene) -> None:
    """Every statement of the store, once at least."""
    worker = scene.worker()
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    first = new_job(run_at=(moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1), tags=["ü"])
    rest = [new_job(config=msgspec.Raw('{"s": "ü \U0001f600"}'.encode())) for _ in range(5)]
    await scene.spawn(first, *rest)
    await scene.sleeper(worker)
    assert await scene.look() != {}
    jobs = await scene.claim(worker, 5)
    assert [job.id for job in jobs] == [str(job.id) for job in (first, *rest[:4])]
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=jobs[0].run_at) == moment
    assert msgspec.json.decode(jobs[1].config) == {"s": "ü \U0001f600"}
    error = ErrorInfo(type="E", message="ü")
    answers = await scene.settle(
        worker, completed(jobs[0], NOW - 1, msgspec.Raw('"ü"'.encode())),
        Settlement(jobs[1], "retry", NOW, attempt=2, failures=1, delay=timedelta(hours=1), error=error),
        Settlement(jobs[2], "reschedule", NOW, attempt=1, run_at=moment),
        Settlement(jobs[3], "fail", None, attempt=1, failures=1, error=error),
    )  # fmt: skip
    assert answers == ["landed"] * 4
    assert scene.pulse.beat(worker, draining=True, job_types=["work"]) == ([], [])
    [seen] = await list_workers(scene.store)
    assert (str(seen.id), seen.lease, seen.draining, seen.running, seen.idle) == (
        worker, timedelta(seconds=18), True, 1, True,
    )  # fmt: skip
    assert scene.pulse.rescue(worker, 1, 18.0) == [(jobs[4].id, "work")]
    assert "partitions" in scene.pulse.do_duties(scene.worker())
    by_id = {str(job.id): job for job in await list_jobs(scene.store, JobFilter(), 10)}
    assert by_id[jobs[0].id].started_at == by_id[jobs[0].id].finished_at - timedelta(seconds=1)  # type: ignore[operator]
    assert by_id[jobs[2].id].run_at == moment
    assert by_id[jobs[3].id].error == error
    assert by_id[str(first.id)].tags == ("ü",)
    assert all(job.created_at.utcoffset() == timedelta(0) for job in by_id.values())
    assert {count.status: count.count for count in await count_jobs(scene.store)} == {
        "pending": 4, "completed": 1, "errored": 1,
    }  # fmt: skip
    [past] = await list_attempts(scene.store, UUID(jobs[1].id))
    assert past.next_run_at == past.ended_at + timedelta(hours=1)
    assert await scene.store.cancel([rest[4].id]) == ["cancelled"]
    assert await scene.store.retry([first.id]) == ["retried"]


@pytest.mark.postgres(18, 15)
async def test_every_statement_works(scene: Scene) -> None:
    await a_day_of_work(scene)


# names


@pytest.mark.parametrize(
    "name", ["Upper \"q\" 'a' \"", "ünï \U0001f600", "select", ";-- /*schema*/ %s %I $1 $a$ \\", "x" * 63]
)
async def test_any_name_of_a_schema_works(empty_dsn: str, name: str) -> None:
    async with Scene.open(empty_dsn, name, migrate=True) as scene:
        assert len(scene.leaves()) == 18
        await a_day_of_work(scene)
        for leaf in scene.leaves():
            scene.sql.execute(f"DROP TABLE {leaf}")
        scene.pulse.add_partitions()
        assert len(scene.leaves()) == 18


@pytest.mark.parametrize("name", ["", "a\0b", "a$$b", "x" * 64, "ü" * 32, "pg_mine", "information_schema"])
def test_a_name_that_no_schema_can_have_is_refused(name: str, scene: Scene) -> None:
    with pytest.raises(ConfigurationError, match="schema="):
        Store(scene.dsn, schema=name)


# two schemas in one database


@pytest.fixture
async def pair(own_scene: Scene) -> AsyncIterator[tuple[Scene, Scene]]:
    async with Scene.open(own_scene.dsn, "other", migrate=True) as other:
        yield own_scene, other


async def test_two_schemas_do_not_see_each_others_jobs(pair: tuple[Scene, Scene]) -> None:
    one, other = pair
    worker, [job] = await one.running()
    [id] = await other.spawn_many(1)
    before = other.dump()
    assert await one.store.load([UUID(id)]) == [None]
    assert await one.store.cancel([UUID(id)]) == ["unknown"]
    assert await one.look() == {}
    assert await one.settle(worker, completed(job, NOW, None)) == ["landed"]
    assert other.pulse.rescue(worker, 0, 1.0) is None
    with pytest.raises(claiming.WorkerGone):
        await other.claim(worker)
    assert other.dump() == before
    assert len(one.leaves()) == len(other.leaves()) == 18


async def test_two_schemas_do_not_hear_each_others_hints(pair: tuple[Scene, Scene]) -> None:
    one, other = pair
    [sleeper, _] = [await scene.sleeper(queues=["default", "mine"]) for scene in pair]
    one.sql.execute(f"LISTEN {one.statements.channel}")
    await other.spawn_many(1)
    await one.spawn_many(1, queue="mine")
    heard = [n.payload for n in one.sql.notifies(timeout=5, stop_after=1)]
    assert heard == [f'["mine", "work", 0, ["{sleeper}"], false]']


async def test_two_schemas_do_not_wait_for_each_others_migrations_and_leaves(pair: tuple[Scene, Scene]) -> None:
    one, other = pair
    for scene in pair:
        for leaf in scene.leaves():
            scene.sql.execute(f"DROP TABLE {leaf}")
    migrating = one.session()
    migrating.execute(one.statements.sql("lock_migrations"), ["piecework"])
    migrating.execute(one.statements.sql("add_partitions"), [7])
    other.sql.execute("UPDATE functions SET checksum = 'other' WHERE name = 'leave_1'")
    other.sql.execute("SET lock_timeout = 1")
    dsn = make_conninfo(other.dsn, options="-c lock_timeout=1")
    async with Scene.open(dsn, "other", migrate=True) as again:
        assert len(again.leaves()) == 18
    migrating.rollback()


# servers with settings of their own


@pytest.mark.parametrize(
    "settings",
    [
        {"default_transaction_isolation": "serializable", "default_transaction_read_only": "on",
         "timezone": "Asia/Kathmandu", "datestyle": "SQL, DMY", "intervalstyle": "sql_standard"},
        {"default_transaction_isolation": "repeatable read", "client_encoding": "latin1",
         "timezone": "<+0530>-05:30", "datestyle": "German", "intervalstyle": "iso_8601"},
        {"timezone": "America/St_Johns", "datestyle": "Postgres, MDY", "intervalstyle": "postgres_verbose",
         "search_path": "", "client_min_messages": "debug1", "extra_float_digits": "-15", "jit_above_cost": "0",
         "plan_cache_mode": "force_custom_plan"},
    ],
    ids=["serializable-read-only-sql", "repeatable-read-latin1-german", "verbose-odd-client"],
)  # fmt: skip
async def test_the_databases_defaults_do_not_reach_the_work(
    server: Server, empty_dsn: str, settings: dict[str, str]
) -> None:
    database = psycopg.conninfo.conninfo_to_dict(empty_dsn)["dbname"]
    for name, value in settings.items():
        server.admin.execute(f"ALTER DATABASE {database} SET {name} = '{value}'")
    async with Scene.open(empty_dsn, migrate=True) as scene:
        await a_day_of_work(scene)


async def test_a_database_without_an_encoding_works(server: Server) -> None:
    """What initdb makes where no locale is set."""
    server.admin.execute("CREATE DATABASE test_ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    try:
        async with Scene.open(server.dsn("test_ascii"), migrate=True) as scene:
            scene.sql.execute("SET client_encoding = 'UTF8'")
            await a_day_of_work(scene)
    finally:
        server.admin.execute("DROP DATABASE test_ascii WITH (FORCE)")
