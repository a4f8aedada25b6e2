"""Migrations: a schema is brought up to date once, by one migrator at a time, or refused with what to do."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from piecework.base.errors import DatabaseError, MigrationsNeeded, PermissionDenied, SchemaTooNew
from piecework.model.settlement import completed
from piecework.store.migrating import code_version, migrations
from piecework.store.statements import Statements, sql_files
from piecework.store.store import Store
from support.databases import Server
from support.scene import NOW, Scene

pytestmark = pytest.mark.postgres(18)

EVERYTHING = sorted(file.name for folder in ("migrations", "functions") for file in sql_files(folder))


async def opened(dsn: str, *, migrate: bool) -> list[str]:
    store = Store(dsn)
    try:
        return sorted(await store.open(migrate=migrate))
    finally:
        await store.close()


def functions(scene: Scene) -> dict[object, object]:
    """The text of each installed function."""
    rows = scene.rows("SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'piecework'::regnamespace")
    return {row["proname"]: row["prosrc"] for row in rows if row["proname"] != "check_guard"}


# from nothing, and again


@pytest.mark.postgres(18, 15)
async def test_a_fresh_database_gets_everything_and_the_second_time_nothing(empty_dsn: str) -> None:
    assert await opened(empty_dsn, migrate=True) == EVERYTHING
    assert await opened(empty_dsn, migrate=True) == []
    assert await opened(empty_dsn, migrate=False) == []
    async with Scene.open(empty_dsn) as scene:
        recorded = {row["name"]: row["checksum"] for row in scene.rows("SELECT name, checksum FROM migrations")}
        assert recorded == {migration.file.name: migration.file.checksum for migration in migrations()}
        assert sorted(functions(scene)) == [file.name for file in sql_files("functions")]
        assert scene.value("SELECT count(*) FROM functions") == len(sql_files("functions"))


async def test_a_schema_that_is_up_to_date_is_not_locked(own_scene: Scene) -> None:
    holder = own_scene.session()
    holder.execute(own_scene.statements.sql("lock_migrations"), ["piecework"])
    dsn = make_conninfo(own_scene.dsn, options="-c lock_timeout=1")
    assert await opened(dsn, migrate=True) == []


async def test_six_connections_at_once_migrate_once(empty_dsn: str) -> None:
    applied = await asyncio.gather(*[opened(empty_dsn, migrate=True) for _ in range(6)])
    assert sorted(applied) == [[]] * 5 + [EVERYTHING]


def test_six_processes_at_once_migrate_once(empty_dsn: str) -> None:
    program = (
        "import asyncio, sys; from piecework.store.store import Store\n"
        "print(len(asyncio.run(Store(sys.argv[1]).open(migrate=True))))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, empty_dsn], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    assert sorted(int(process.communicate()[0]) for process in processes) == [0] * 5 + [len(EVERYTHING)]
    assert [process.returncode for process in processes] == [0] * 6


async def test_a_migration_that_fails_leaves_nothing(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Statements.printed
    monkeypatch.setattr(
        Statements, "printed",
        lambda self, name, *params: "SELECT 1/0" if name == "add_partitions" else original(self, name, *params),
    )  # fmt: skip
    with pytest.raises(psycopg.errors.DivisionByZero):
        await opened(empty_dsn, migrate=True)
    monkeypatch.undo()
    with psycopg.connect(empty_dsn) as conn:
        assert conn.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'piecework'").fetchone() == (0,)
    assert await opened(empty_dsn, migrate=True) == EVERYTHING


# what is refused


async def test_a_missing_schema_is_refused_without_migrating(empty_dsn: str) -> None:
    with pytest.raises(MigrationsNeeded, match=r"'piecework' does not exist.*`piecework migrate`"):
        await opened(empty_dsn, migrate=False)


async def test_a_changed_migration_is_refused_and_nothing_is_installed(own_scene: Scene) -> None:
    own_scene.sql.execute("UPDATE migrations SET checksum = 'other'; DELETE FROM functions WHERE name = 'claim_1'")
    own_scene.sql.execute("DROP FUNCTION claim_1")
    for migrate in (True, False):
        with pytest.raises(DatabaseError, match=r"0001_initial was applied .* from another text"):
            await opened(own_scene.dsn, migrate=migrate)
    assert "claim_1" not in functions(own_scene)


async def test_a_newer_schema_that_does_not_support_this_version_is_refused(own_scene: Scene) -> None:
    newer = code_version() + 1
    own_scene.sql.execute("INSERT INTO migrations VALUES (%s, 'later', 'c', %s)", [newer, newer])
    for migrate in (True, False):
        with pytest.raises(SchemaTooNew, match=f"version {newer} .*upgrade the piecework package"):
            await opened(own_scene.dsn, migrate=migrate)


async def test_a_newer_schema_that_supports_this_version_is_used_and_left_as_it_is(own_scene: Scene) -> None:
    ours = code_version()
    own_scene.sql.execute("INSERT INTO migrations VALUES (%s, 'later', 'c', %s)", [ours + 1, ours])
    own_scene.sql.execute("UPDATE functions SET checksum = 'newer' WHERE name = 'claim_1'")
    for migrate in (True, False):
        assert await opened(own_scene.dsn, migrate=migrate) == []
    assert own_scene.value("SELECT checksum FROM functions WHERE name = 'claim_1'") == "newer"


async def test_an_older_schema_is_refused_or_brought_up_to_date(own_scene: Scene) -> None:
    """There is one migration as yet: the schema before it has none."""
    own_scene.sql.execute("DROP SCHEMA piecework CASCADE; CREATE SCHEMA piecework")
    own_scene.sql.execute(own_scene.statements.sql("create_migrations"))
    with pytest.raises(MigrationsNeeded, match=f"needs version {code_version()}.*`piecework migrate`"):
        await opened(own_scene.dsn, migrate=False)
    assert await opened(own_scene.dsn, migrate=True) == EVERYTHING


async def test_a_function_of_another_text_is_refused_or_installed_again(own_scene: Scene) -> None:
    before = functions(own_scene)
    own_scene.sql.execute(
        "CREATE OR REPLACE FUNCTION leave_1(p_worker uuid) RETURNS boolean LANGUAGE sql AS 'SELECT true'"
    )
    own_scene.sql.execute("UPDATE functions SET checksum = 'other' WHERE name = 'leave_1'")
    own_scene.sql.execute("DELETE FROM functions WHERE name = 'look_1'; DROP FUNCTION look_1")
    with pytest.raises(MigrationsNeeded, match="leave_1, look_1"):
        await opened(own_scene.dsn, migrate=False)
    assert await opened(own_scene.dsn, migrate=True) == ["leave_1", "look_1"]
    assert functions(own_scene) == before
    assert await opened(own_scene.dsn, migrate=True) == []


async def test_a_schema_in_use_gets_its_functions_again_while_jobs_are_spawned(own_scene: Scene) -> None:
    user = own_scene.session()
    user.execute(own_scene.statements.sql("spawn"), ["[]"])
    own_scene.sql.execute("UPDATE functions SET checksum = 'other'")
    dsn = make_conninfo(own_scene.dsn, options="-c lock_timeout=1")
    assert await opened(dsn, migrate=True) == [file.name for file in sql_files("functions")]
    user.commit()


# who may do it


@contextmanager
def role(server: Server, dsn: str) -> Iterator[tuple[str, str]]:
    """A role without any privilege: its name, and the DSN for it."""
    name = re.search(r"test_\w+", dsn).group()  # type: ignore[union-attr]
    server.admin.execute(f"CREATE ROLE {name} LOGIN")
    try:
        yield name, make_conninfo(dsn, user=name)
    finally:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(f"REASSIGN OWNED BY {name} TO postgres")
            conn.execute(f"DROP OWNED BY {name}")
        server.admin.execute(f"DROP ROLE {name}")


async def test_a_role_that_may_not_create_a_schema_is_told_so(server: Server, empty_dsn: str) -> None:
    with role(server, empty_dsn) as (_, dsn):
        with pytest.raises(PermissionDenied, match=r"'piecework' does not exist .*CREATE on the database"):
            await opened(dsn, migrate=True)
        with pytest.raises(MigrationsNeeded):
            await opened(dsn, migrate=False)


async def test_a_role_that_may_not_enter_the_schema_is_told_so(server: Server, dsn: str) -> None:
    with role(server, dsn) as (_, as_role):
        for migrate in (True, False):
            with pytest.raises(PermissionDenied, match="permission denied for schema piecework"):
                await opened(as_role, migrate=migrate)


async def test_a_role_that_owns_a_schema_made_for_it_needs_no_privilege_on_the_database(
    server: Server, empty_dsn: str
) -> None:
    with role(server, empty_dsn) as (name, dsn):
        with psycopg.connect(empty_dsn) as conn:
            conn.execute(f"CREATE SCHEMA piecework AUTHORIZATION {name}")
        assert await opened(dsn, migrate=True) == EVERYTHING


async def test_a_role_that_may_not_create_in_a_schema_made_for_others_is_told_so(
    server: Server, empty_dsn: str
) -> None:
    with role(server, empty_dsn) as (name, dsn):
        with psycopg.connect(empty_dsn) as conn:
            conn.execute(f"CREATE SCHEMA piecework; GRANT USAGE ON SCHEMA piecework TO {name}")
        with pytest.raises(PermissionDenied, match=r"may not create .*'piecework'"):
            await opened(dsn, migrate=True)


@pytest.mark.postgres(18, 15)
async def test_a_role_that_may_use_tables_and_functions_can_do_all_that_work_needs(server: Server, dsn: str) -> None:
    with role(server, dsn) as (name, as_role):
        with psycopg.connect(dsn) as conn:
            conn.execute(f"GRANT USAGE ON SCHEMA piecework TO {name}")
            conn.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA piecework TO {name}")
            conn.execute(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA piecework TO {name}")
        assert await opened(as_role, migrate=True) == []
        async with Scene.open(as_role) as scene:
            worker, jobs = await scene.running(3)
            scene.pulse.add_partitions()
            assert scene.pulse.beat(worker, draining=False, job_types=[]) == ([], [])
            assert await scene.settle(worker, completed(jobs[0], NOW, None)) == ["landed"]
            assert len(scene.pulse.rescue(worker, 1, 1.0) or []) == 2
            assert "partitions" in scene.pulse.do_duties(worker)
            assert scene.pulse.sample_horizon().dead >= 0
            assert len(await scene.claim(scene.worker(), 5)) == 2


async def test_a_role_that_may_only_read_is_told_so_when_it_spawns(server: Server, dsn: str) -> None:
    with role(server, dsn) as (name, as_role):
        with psycopg.connect(dsn) as conn:
            conn.execute(f"GRANT USAGE ON SCHEMA piecework TO {name}")
            conn.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA piecework TO {name}")
        async with Scene.open(as_role) as scene:
            with pytest.raises(PermissionDenied, match="permission denied for function spawn_1"):
                await scene.spawn_many(1)
