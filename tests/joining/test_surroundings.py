"""Schemas of any name, and databases and sessions with settings of their own."""

from __future__ import annotations

import subprocess
import sys
from uuid import UUID

import psycopg
import pytest
from joining.app import open_app
from joining.flavours import DRIVERS, FLAVOURS, Flavour
from psycopg.conninfo import conninfo_to_dict

from piecework import Jobs, MigrationsNeeded, NotOpen
from piecework.store.statements import Statements
from support.databases import Server

TEXT = "ü é 日本 \U0001f600 ' \" \\ % %s :name ?"


@pytest.mark.postgres(15)  # the other tests are on the newest
@pytest.mark.parametrize(
    "name",
    ["50% %s %%", ":name::text \\:x", "Upper \"q\" 'a' \"", "ünï \U0001f600", ";-- /*schema*/ $1 $a$ \\ ? E'"],
)
def test_any_name_of_a_schema_works_with_every_driver(empty_dsn: str, name: str) -> None:
    with Jobs(empty_dsn, schema=name):
        pass
    with open_app(empty_dsn, name) as app:
        for flavour in FLAVOURS:
            with flavour.open(app.dsn) as session:
                id = session.spawn(app.greet, TEXT).id
                session.commit()
            assert app.stored()[id] == TEXT, flavour.name


@pytest.mark.parametrize(
    "settings",
    [
        {"client_encoding": "latin1", "timezone": "<+0530>-05:30", "datestyle": "German",
         "intervalstyle": "iso_8601", "standard_conforming_strings": "off", "backslash_quote": "off"},
        {"search_path": "", "extra_float_digits": "-15", "timezone": "Asia/Kathmandu",
         "default_transaction_isolation": "repeatable read", "plan_cache_mode": "force_custom_plan"},
        {"default_transaction_isolation": "serializable", "default_transaction_deferrable": "on",
         "client_min_messages": "debug1", "escape_string_warning": "off", "datestyle": "SQL, DMY",
         "bytea_output": "escape", "quote_all_identifiers": "on", "row_security": "off"},
    ],
    ids=["latin1-german", "repeatable-read", "serializable-verbose"],
)  # fmt: skip
def test_the_settings_of_a_session_do_not_matter(server: Server, dsn: str, settings: dict[str, str]) -> None:
    database = conninfo_to_dict(dsn)["dbname"]
    for name, value in settings.items():
        server.admin.execute(f"ALTER DATABASE {database} SET {name} = '{value}'")
    spawn_and_look(dsn, FLAVOURS)


def test_a_session_without_an_encoding_works(server: Server, dsn: str) -> None:
    server.admin.execute(f"ALTER DATABASE {conninfo_to_dict(dsn)['dbname']} SET client_encoding = 'sql_ascii'")
    # SQLAlchemy cannot open one itself over psycopg.
    spawn_and_look(dsn, [each for each in DRIVERS if each.name != "sqlalchemy-async-psycopg"])


def spawn_and_look(dsn: str, flavours: list[Flavour]) -> None:
    with open_app(dsn) as app:
        for flavour in flavours:
            with flavour.open(app.dsn) as session:
                id = session.spawn(app.greet, TEXT).id
                session.commit()
            assert app.stored()[id] == TEXT, flavour.name


def test_a_database_without_an_encoding_works(server: Server) -> None:
    server.admin.execute("CREATE DATABASE test_joined_ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    try:
        server.admin.execute("ALTER DATABASE test_joined_ascii SET client_encoding = 'utf8'")
        dsn = server.dsn("test_joined_ascii")
        with Jobs(dsn):
            pass
        spawn_and_look(dsn, DRIVERS)
    finally:
        server.admin.execute("DROP DATABASE test_joined_ascii WITH (FORCE)")


def test_the_jobs_need_not_be_open(shared_dsn: str) -> None:
    jobs = Jobs(shared_dsn)

    @jobs.job
    def work() -> None: ...

    with psycopg.connect(shared_dsn) as conn:
        handle = work.options(conn=conn).spawn_sync()
        with pytest.raises(NotOpen):
            handle.load_sync()


def test_the_schema_is_looked_for_in_the_database_of_the_connection(empty_dsn: str) -> None:
    jobs = Jobs("postgresql:///elsewhere")

    @jobs.job
    def work() -> None: ...

    with psycopg.connect(empty_dsn) as conn, pytest.raises(MigrationsNeeded, match="in the database of the connection"):
        work.options(conn=conn).spawn_sync()


def test_a_statement_is_plain_text_to_every_driver() -> None:
    sql = Statements("a% :b\"'?ü\U0001f600").sql_for("spawn", "%s")
    assert sql == ('SELECT U&"a\\+000025\\+000020\\+00003ab\\+000022\\+000027\\+00003f\\+0000fc\\+01f600".spawn_1'
                   "(CAST(%s AS text))")  # fmt: skip
    assert Statements("piecework").sql_for("spawn", "$1") == 'SELECT "piecework".spawn_1(CAST($1 AS text))'


def test_no_driver_is_imported_that_the_caller_does_not_have(shared_dsn: str) -> None:
    program = f"""
import psycopg, sys
from piecework import Jobs, TransactionError
jobs = Jobs({shared_dsn!r})
@jobs.job
def work(): ...
with psycopg.connect({shared_dsn!r}) as conn:
    print(work.options(conn=conn).spawn_sync().id)
    conn.rollback()
try:
    work.options(conn=object()).spawn_sync()
except TransactionError:
    pass
drivers = {{"asyncpg", "django", "pg8000", "psycopg2", "psycopg_pool", "sqlalchemy", "sqlmodel"}}
print(sorted(drivers & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    id, imported = done.stdout.splitlines()
    assert UUID(id)
    assert imported == "[]"
