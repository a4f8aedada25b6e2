"""A migration keeps nobody waiting for long: whom it waits for, how it is told, and what an interruption leaves."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from piecework.base.errors import DatabaseError, DatabaseUnreachable
from piecework.base.ids import new_id
from piecework.store import migrating, migrator
from piecework.store.migrating import Migration
from piecework.store.statements import SqlFile, Statements, sql_files
from piecework.store.store import Store
from support.databases import Server
from support.private_postgres import PrivatePostgres
from support.scene import DEADLINE, Scene

COLUMN = """-- A column.
-- supports: 1
-- locks: jobs
ALTER TABLE /*schema.*/jobs ADD COLUMN later text;
"""
INDEX = """-- An index.
-- supports: 1
CREATE INDEX /*concurrently*/ IF NOT EXISTS jobs_later ON /*schema.*/jobs (job_type, created_at);
"""
LOCK = "LOCK TABLE ONLY piecework.jobs IN ACCESS EXCLUSIVE MODE"
SHORT_PAUSES = (0.1, 0.1)

Later = Callable[[str], None]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """Give this release one more migration."""

    def add(text: str) -> None:
        now = migrating.migrations()
        added = Migration(len(now) + 1, 1, SqlFile(f"{len(now) + 1:04}_later", text))
        monkeypatch.setattr(migrating, "migrations", lambda: [*now, added])

    return add


async def opened(dsn: str) -> list[str]:
    store = Store(dsn)
    try:
        return await store.open(migrate=True)
    finally:
        await store.close()


def spawn(session: psycopg.Connection) -> None:
    """Spawn a job in the transaction of the session."""
    session.execute("SELECT piecework.spawn_1($1)", [f'[{{"id": "{new_id()}", "job_type": "work"}}]'])


def waiting(scene: Scene) -> list[object]:
    """The modes of the locks on tables that somebody waits for."""
    return [row["mode"] for row in scene.rows(
        "SELECT mode FROM pg_locks WHERE NOT granted AND locktype = 'relation' "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")]  # fmt: skip


def columns(scene: Scene) -> set[object]:
    found = scene.rows("SELECT attname FROM pg_attribute WHERE attrelid = 'jobs'::regclass AND attnum > 0")
    return {row["attname"] for row in found}


async def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


# a lock that others would have to wait behind


async def test_while_a_transaction_holds_a_table_the_migration_tries_again_and_others_go_on(
    own_scene: Scene, later: Later, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrator, "_PAUSES", (0.1,) * 100)
    later(COLUMN)
    holder, user = own_scene.session(), own_scene.session(lock_timeout="10s")
    spawn(holder)
    migration = asyncio.create_task(opened(own_scene.dsn))
    while len(caplog.records) < 3:
        await asyncio.to_thread(spawn, user)
        await asyncio.to_thread(user.commit)
        await asyncio.sleep(0)
    assert "later" not in columns(own_scene)
    holder.commit()
    assert await migration == ["0002_later"]
    assert "later" in columns(own_scene)
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


async def test_after_the_last_try_it_says_which_statement_waited_for_whom_and_nothing_is_changed(
    own_scene: Scene, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrator, "_PAUSES", SHORT_PAUSES)
    later(COLUMN)
    holder = own_scene.session(application_name="report")
    holder.execute("SELECT count(*) FROM jobs")
    said = rf"in 3 tries: {LOCK} waited for session {holder.info.backend_pid} of 'report', idle in transaction, " \
        r"in its transaction for [\d.]+ s: SELECT count\(\*\) FROM jobs\. .*pg_terminate_backend"  # fmt: skip
    with pytest.raises(DatabaseError, match=said):
        await opened(own_scene.dsn)
    assert "later" not in columns(own_scene)
    assert own_scene.value("SELECT max(version) FROM migrations") == 1
    holder.commit()
    assert await opened(own_scene.dsn) == ["0002_later"]


async def test_a_prepared_transaction_is_named_as_such(
    private_postgres: Callable[..., PrivatePostgres], later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrator, "_PAUSES", SHORT_PAUSES)
    dsn = private_postgres(max_prepared_transactions="2").dsn
    await opened(dsn)
    later(COLUMN)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("BEGIN; LOCK TABLE piecework.jobs IN ACCESS SHARE MODE; PREPARE TRANSACTION 'forgotten'")
        with pytest.raises(DatabaseError, match="waited for a prepared transaction"):
            await opened(dsn)


async def test_nobody_waits_behind_a_migration_that_waits_for_a_vacuum(own_scene: Scene, later: Later) -> None:
    later(COLUMN)
    vacuum, user = own_scene.session(), own_scene.session(lock_timeout="1ms")
    vacuum.execute("LOCK TABLE jobs IN SHARE UPDATE EXCLUSIVE MODE")
    migration = asyncio.create_task(opened(own_scene.dsn))
    await own_scene.until_blocked()
    assert waiting(own_scene) == ["ShareUpdateExclusiveLock"]
    spawn(user)
    user.commit()
    vacuum.commit()
    assert await migration == ["0002_later"]


async def test_one_that_waits_for_its_turn_says_so_quietly(
    own_scene: Scene, later: Later, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrator, "_PAUSES", (0.1,) * 100)
    caplog.set_level(logging.INFO, "piecework.migration")
    later(COLUMN)
    other = own_scene.session(application_name="deployment")
    other.execute(own_scene.statements.sql("lock_migrations"), ["piecework"])
    migration = asyncio.create_task(opened(own_scene.dsn))
    await until(lambda: "of 'deployment', idle in transaction" in caplog.text)
    other.commit()
    assert await migration == ["0002_later"]
    assert {record.levelno for record in caplog.records} == {logging.INFO}


async def test_who_has_a_shorter_limit_keeps_it(
    own_scene: Scene, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrator, "_PAUSES", ())
    later(COLUMN)
    holder = own_scene.session()
    holder.execute("LOCK TABLE jobs IN SHARE UPDATE EXCLUSIVE MODE")  # else waited for for five seconds
    dsn = make_conninfo(own_scene.dsn, options="-c lock_timeout=1")
    with pytest.raises(DatabaseError, match=r"in 1 tries: LOCK TABLE ONLY piecework\.jobs IN SHARE UPDATE EXCL"):
        await opened(dsn)


# which tables a migration names


def unnamed(dsn: str, migration: Migration) -> set[str]:
    """The tables that were there before and that a migration locks against writers, without naming them."""
    statements = Statements("piecework")
    there = "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'piecework'::regnamespace"
    with psycopg.connect(dsn) as conn:
        before = {name for (name,) in conn.execute(there)}
        for statement in migrating.script(statements, [migration]):
            if "LOCK TABLE ONLY" not in statement:
                conn.execute(statement.encode())
        locked = {name for (name,) in conn.execute(
            "SELECT relname FROM pg_locks JOIN pg_class c ON c.oid = relation WHERE pid = pg_backend_pid() AND mode IN "
            "('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')")}  # fmt: skip
        conn.rollback()
    return {re.sub(r"_\d{8}$", "", name) for name in locked & before} - set(migration.locks)


def test_a_migration_names_all_tables_that_it_locks(server: Server, dsn: str) -> None:
    def made_up(text: str) -> Migration:
        return Migration(99, 1, SqlFile("0099_later", text))

    assert unnamed(dsn, made_up(COLUMN)) == set()
    assert unnamed(dsn, made_up(COLUMN.replace("-- locks: jobs\n", ""))) == {"jobs"}
    finished = "-- locks: finished_jobs\nALTER TABLE /*schema.*/finished_jobs ADD COLUMN later text"
    assert unnamed(dsn, made_up(finished)) == set()
    for migration in migrating.migrations()[1:]:
        with server.database(migrated=False) as empty:
            before: list[Migration | SqlFile] = [*migrating.migrations()[: migration.version - 1]]
            before += [file for file in sql_files("functions") if file.name == "add_partitions_1"]
            with psycopg.connect(empty) as conn:
                for statement in migrating.script(Statements("piecework"), before):
                    conn.execute(statement.encode())
            assert migration.index is not None or unnamed(empty, migration) == set(), migration.name


def test_a_migration_that_makes_an_index_while_others_write_does_nothing_else() -> None:
    for migration in migrating.migrations():
        if "/*concurrently*/" in migration.file.text:
            assert migration.index is not None, migration.name
            assert re.sub(r"--.*|;\s*$", "", migration.file.text).count(";") == 0, migration.name


# an index of a large table


def index(scene: Scene) -> bool | None:
    """Whether the index is valid; None: there is none."""
    found = scene.rows("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('jobs_later')")
    return bool(found[0]["indisvalid"]) if found else None


async def until_waiting_for_an_old_transaction(scene: Scene) -> int:
    """Return the process that makes the index, when it waits for those that might not see it."""
    found: list[dict[str, object]] = []

    def look() -> bool:
        found[:] = scene.rows(
            "SELECT pid FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
            "WHERE datname = current_database() AND l.locktype = 'virtualxid' AND NOT l.granted"
        )
        return bool(found)

    await until(look)
    return int(str(found[0]["pid"]))


def reader(scene: Scene) -> psycopg.Connection:
    """Somebody's transaction that keeps an index from being finished."""
    session = scene.session()
    session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    session.execute("SELECT count(*) FROM jobs")
    return session


@pytest.mark.postgres(18, 15)
async def test_an_index_is_made_while_others_write(server: Server, own_scene: Scene, later: Later) -> None:
    later(INDEX)
    old, user = reader(own_scene), own_scene.session(lock_timeout="1ms")
    migration = asyncio.create_task(opened(own_scene.dsn))
    await until_waiting_for_an_old_transaction(own_scene)
    assert index(own_scene) is False
    spawn(user)
    user.commit()
    old.commit()
    assert await migration == ["0002_later"]
    assert index(own_scene) is True
    assert await opened(own_scene.dsn) == []


async def interrupted(scene: Scene) -> None:
    """Let a migration be killed in the middle of making the index."""
    old = reader(scene)
    migration = asyncio.create_task(opened(scene.dsn))
    scene.value("SELECT pg_terminate_backend(%s)", await until_waiting_for_an_old_transaction(scene))
    with pytest.raises(DatabaseUnreachable):
        await migration
    old.commit()
    assert index(scene) is False
    assert scene.value("SELECT max(version) FROM migrations") == 1


@pytest.mark.postgres(18, 15)
async def test_an_index_whose_making_was_interrupted_is_made_by_the_next_migration(
    server: Server, own_scene: Scene, later: Later
) -> None:
    later(INDEX)
    await interrupted(own_scene)
    assert await opened(own_scene.dsn) == ["0002_later"]
    assert index(own_scene) is True


async def test_an_index_whose_making_was_interrupted_is_made_by_the_statements(own_scene: Scene, later: Later) -> None:
    later(INDEX)
    await interrupted(own_scene)
    for _ in range(2):
        with psycopg.connect(own_scene.dsn) as conn:
            for statement in migrating.script(own_scene.statements, migrating.everything()):
                conn.execute(statement.encode())
        assert index(own_scene) is True
    assert await opened(own_scene.dsn) == []


async def test_an_index_that_another_one_makes_is_waited_for(own_scene: Scene, later: Later) -> None:
    later(INDEX)
    old = reader(own_scene)
    first = asyncio.create_task(opened(own_scene.dsn))
    await until_waiting_for_an_old_transaction(own_scene)
    made = own_scene.value("SELECT 'jobs_later'::regclass::oid")
    second = asyncio.create_task(opened(own_scene.dsn))
    await until(lambda: "ShareUpdateExclusiveLock" in waiting(own_scene))
    old.commit()
    assert sorted([await first, await second]) == [[], ["0002_later"]]
    assert own_scene.value("SELECT 'jobs_later'::regclass::oid") == made
    assert index(own_scene) is True


async def test_a_new_schema_gets_its_indexes_with_everything_else(empty_dsn: str, later: Later) -> None:
    later(INDEX)
    assert [part.name for part in migrating.everything()] == await opened(empty_dsn)


async def test_what_comes_before_and_after_an_index_is_applied_in_its_order(own_scene: Scene, later: Later) -> None:
    later(COLUMN)
    later(INDEX.replace("created_at", "later"))
    later(COLUMN.replace("later", "still_later"))
    own_scene.sql.execute("UPDATE functions SET checksum = 'other' WHERE name = 'look_1'")
    assert await opened(own_scene.dsn) == ["0002_later", "0003_later", "0004_later", "look_1"]
    assert index(own_scene) is True
