"""The SQL of the migrations: `piecework migrate --sql`, `migration_sql`, and the files in the package (S31)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from migrations.project import lose_a_function, psql, run_a_job, schemas

from piecework import ConfigurationError, Jobs
from piecework.cli import main
from piecework.integrations.sql import migration_sql, removal_sql
from piecework.store import migrating
from piecework.store.migrating import Migration
from piecework.store.statements import SqlFile, sql_files

LATER = """-- Later.
-- supports: 1
CREATE TABLE /*schema.*/later (id integer);
INSERT INTO /*schema.*/later VALUES (1);
"""


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(main.command, ["migrate", "--sql", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def run(dsn: str, statements: list[str]) -> None:
    with psycopg.connect(dsn) as conn:
        for statement in statements:
            conn.execute(statement.encode())


def by_library(dsn: str) -> None:
    with Jobs(dsn, migrate=True):
        pass


CATALOG = [
    "SELECT version, name, checksum, supports FROM piecework.migrations ORDER BY 1",
    "SELECT name, checksum FROM piecework.functions ORDER BY 1",
    "SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid) FROM pg_proc p "
    "WHERE pronamespace = 'piecework'::regnamespace ORDER BY 1",
    "SELECT c.relname, c.relkind::text, c.reloptions, a.attname, a.atttypid::regtype::text, a.attnotnull, "
    "pg_get_expr(d.adbin, d.adrelid) FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 "
    "LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum "
    "WHERE c.relnamespace = 'piecework'::regnamespace AND NOT c.relispartition ORDER BY 1, a.attnum",
    "SELECT indexdef FROM pg_indexes JOIN pg_class ON relname = indexname AND relnamespace = 'piecework'::regnamespace "
    "WHERE schemaname = 'piecework' AND NOT relispartition ORDER BY 1",
    "SELECT conname, pg_get_constraintdef(t.oid) FROM pg_constraint t JOIN pg_class c ON c.oid = conrelid "
    "WHERE connamespace = 'piecework'::regnamespace AND NOT c.relispartition ORDER BY 1, 2",
    "SELECT inhparent::regclass::text, count(*) >= 9 FROM pg_inherits GROUP BY 1 ORDER BY 1",
    "SELECT name, every FROM piecework.duties ORDER BY 1",
]


def catalog(dsn: str) -> list[list[tuple[object, ...]]]:
    """What there is, less the leaves of the history: they bear the days, and a test may run around midnight."""
    with psycopg.connect(dsn) as conn:
        return [conn.execute(query).fetchall() for query in CATALOG]  # type: ignore[arg-type]


def moments(dsn: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as conn:
        return conn.execute(
            "SELECT name, applied_at FROM piecework.migrations UNION ALL "
            "SELECT name, installed_at FROM piecework.functions ORDER BY 1"
        ).fetchall()


# what is printed


@pytest.mark.postgres(18, 15)
def test_psql_makes_of_what_is_printed_what_the_library_makes(server: object, dsn: str, empty_dsn: str) -> None:
    psql(empty_dsn, printed())
    assert catalog(empty_dsn) == catalog(dsn)
    run_a_job(empty_dsn)


def test_a_driver_takes_all_of_it_at_once(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute(printed().encode())
    run_a_job(empty_dsn)


def test_after_the_script_the_library_finds_nothing_to_do(empty_dsn: str) -> None:
    psql(empty_dsn, printed())
    before = moments(empty_dsn)
    by_library(empty_dsn)
    result = CliRunner().invoke(main.command, ["migrate", "--database-url", empty_dsn])
    assert result.output == "schema 'piecework' is up to date\n"
    assert moments(empty_dsn) == before


def test_the_script_changes_nothing_when_it_is_run_again(dsn: str) -> None:
    before = catalog(dsn), moments(dsn)
    psql(dsn, printed())
    assert (catalog(dsn), moments(dsn)) == before
    psql(dsn, printed("--schema", "other"))
    assert schemas(dsn) == ["other", "piecework", "public"]


def test_a_script_that_fails_leaves_nothing(empty_dsn: str) -> None:
    script = printed()
    at = script.rindex("COMMIT")
    with pytest.raises(AssertionError, match="division by zero"):
        psql(empty_dsn, script[:at] + "SELECT 1/0;\n" + script[at:])
    assert schemas(empty_dsn) == ["public"]


def test_pending_prints_what_the_database_lacks(dsn: str) -> None:
    assert printed("--pending", "--database-url", dsn) == ""
    lose_a_function(dsn)
    script = printed("--pending", "--database-url", dsn)
    assert script.count("CREATE OR REPLACE FUNCTION") == 1
    assert "CREATE TABLE piecework.jobs" not in script
    psql(dsn, script)
    assert printed("--pending", "--database-url", dsn) == ""
    run_a_job(dsn)


def test_pending_prints_everything_for_an_empty_database(empty_dsn: str) -> None:
    assert printed("--pending", "--database-url", empty_dsn) == printed()


def test_printing_asks_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIECEWORK_DATABASE_URL", "host=/nowhere")
    assert printed().startswith("--")


@pytest.mark.parametrize("name", ["Upper \"q\" 'a' \"", "ünï \U0001f600", ";-- /*schema*/ %s %I $1 $a$ :b \\"])
def test_any_name_of_a_schema_can_be_printed(empty_dsn: str, name: str) -> None:
    psql(empty_dsn, printed("--schema", name))
    run_a_job(empty_dsn, name)
    run(empty_dsn, removal_sql(name))
    assert schemas(empty_dsn) == ["public"]


@pytest.mark.parametrize("name", ["a$apply$", "$text$"])
def test_a_name_that_would_end_a_quoted_text_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="schema="):
        migration_sql(name)


def test_no_text_of_ours_ends_the_quotes_that_it_is_printed_in() -> None:
    for folder in ("migrations", "functions"):
        for file in sql_files(folder):
            assert "$apply$" not in file.text, file.name
            assert "$text$" not in file.text, file.name


# as statements


@pytest.mark.postgres(18, 15)
def test_the_statements_are_one_each_and_make_the_same(server: object, dsn: str, empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn) as conn, conn.cursor(binary=True) as cursor:
        for statement in migration_sql():  # the extended protocol takes one statement at a time
            cursor.execute(statement.encode(), prepare=True)
    assert catalog(empty_dsn) == catalog(dsn)


def with_a_later_migration(monkeypatch: pytest.MonkeyPatch, text: str = LATER) -> None:
    later = Migration(2, 1, SqlFile("0002_later", text))
    now = migrating.migrations()
    monkeypatch.setattr(migrating, "migrations", lambda: [*now, later])


def test_a_later_release_applies_only_what_is_new(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = moments(dsn)
    with_a_later_migration(monkeypatch)
    for _ in range(2):
        run(dsn, migration_sql())
        with psycopg.connect(dsn) as conn:
            assert conn.execute("SELECT id FROM piecework.later").fetchall() == [(1,)]
    assert [row for row in moments(dsn) if row[0] != "0002_later"] == before
    run_a_job(dsn)


def test_an_older_release_leaves_a_newer_schema_as_it_is(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        with_a_later_migration(later)
        run(dsn, migration_sql())
    with psycopg.connect(dsn) as conn:
        conn.execute("UPDATE piecework.functions SET checksum = 'newer' WHERE name = 'claim_1'")
    before = catalog(dsn), moments(dsn)
    run(dsn, migration_sql())
    assert (catalog(dsn), moments(dsn)) == before


def test_a_migration_that_was_applied_from_another_text_is_refused(dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        conn.execute("UPDATE piecework.migrations SET checksum = 'other'")
    with pytest.raises(psycopg.errors.RaiseException, match="0001_initial was applied from another text"):
        run(dsn, migration_sql())


def test_two_who_run_it_at_once_wait_for_each_other(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn) as first:
        for statement in migration_sql():
            first.execute(statement.encode())
        second = psycopg.connect(empty_dsn, options="-c lock_timeout=100")
        with second, pytest.raises(psycopg.errors.LockNotAvailable):
            second.execute(migration_sql()[0].encode())
    run(empty_dsn, migration_sql())
    run_a_job(empty_dsn)


def test_the_caller_gets_back_how_long_it_waits_for_locks(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_later_migration(monkeypatch, LATER.replace("-- supports", "-- locks: jobs, workers\n-- supports"))
    for own, most in (("0", 500), ("90ms", 90), ("1h", 500)):
        with psycopg.connect(dsn) as conn:
            conn.execute(f"SET lock_timeout = '{own}'".encode())
            before = conn.execute("SHOW lock_timeout").fetchone()
            limits: list[int] = []
            for statement in migration_sql():
                conn.execute(statement.encode())
                [(limit,)] = conn.execute("SELECT setting FROM pg_settings WHERE name = 'lock_timeout'").fetchall()
                limits.append(int(limit))
            assert set(limits[1:-1]) <= set(range(1, most + 1)), limits
            assert most in limits
            assert conn.execute("SHOW lock_timeout").fetchone() == before
            conn.rollback()


# away again


def test_removing_takes_everything_and_the_schema(dsn: str) -> None:
    run_a_job(dsn)
    run(dsn, removal_sql())
    assert schemas(dsn) == ["public"]
    run(dsn, removal_sql())


def test_removing_leaves_what_is_the_applications(dsn: str, empty_dsn: str) -> None:
    for name, shared in ((dsn, "piecework"), (empty_dsn, "public")):
        run(name, migration_sql(shared))
        with psycopg.connect(name) as conn:
            conn.execute(f"CREATE TABLE {shared}.basket (id integer); CREATE FUNCTION {shared}.mine() RETURNS integer "
                         "LANGUAGE sql AS 'SELECT 1'")  # fmt: skip
        run(name, removal_sql(shared))
        with psycopg.connect(name) as conn:
            left = conn.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace UNION ALL "
                "SELECT proname FROM pg_proc WHERE pronamespace = %s::regnamespace ORDER BY 1", [shared, shared]
            ).fetchall()  # fmt: skip
        assert left == [("basket",), ("mine",)]
        run(name, migration_sql(shared))
        run_a_job(name, shared)


def test_removing_refuses_when_a_view_of_the_applications_hangs_on_a_table(dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        conn.execute("CREATE VIEW waiting AS SELECT count(*) FROM piecework.jobs")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        run(dsn, removal_sql())
    run_a_job(dsn)


# the files


def test_the_files_are_readable_where_the_package_is_installed() -> None:
    for folder in ("migrations", "functions"):
        names = {entry.name for entry in files("piecework.store").joinpath(folder).iterdir()}
        assert {f"{file.name}.sql" for file in sql_files(folder)} <= names
    first = files("piecework.store").joinpath("migrations", "0001_initial.sql").read_text(encoding="utf-8")
    assert "CREATE TABLE" in first


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [each.version for each in migrating.migrations()] == list(range(1, len(migrating.migrations()) + 1))
    assert all(Path(each.name).name == each.name for each in migrating.migrations())
