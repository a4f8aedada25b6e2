"""`piecework doctor`: what it says of a database that is fit, and of one that is not."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
import pytest
from cli.command_line import CommandLine
from click.testing import CliRunner, Result

from piecework.cli import diagnosis, main
from piecework.model.pins import Pin
from piecework.store.examination import Examination, Server
from piecework.store.statements import Statements
from support.databases import Server as Postgres
from support.pooler import Pooler
from support.private_postgres import PrivatePostgres

NAMES = [
    "connection", "version", "standby", "defaults", "connections", "autovacuum", "clock", "encoding", "schema",
    "permissions", "partitions", "due_times", "pooler", "listen", "horizon",
]  # fmt: skip


def doctor(dsn: str, *options: str) -> Result:
    return CliRunner().invoke(main.command, ["doctor", "--database-url", dsn, *options])


def checks(dsn: str, *options: str) -> dict[str, dict[str, str]]:
    """What each check found, by its name."""
    return {check["name"]: check for check in json.loads(doctor(dsn, "--json", *options).output)["checks"]}


def status(dsn: str) -> dict[str, str]:
    return {name: check["status"] for name, check in checks(dsn).items()}


@contextmanager
def a_role(server: Postgres, name: str, dsn: str, *grants: str) -> Iterator[str]:
    """Make a role with these grants; yields its DSN."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN".encode())
        try:
            for grant in grants:
                connection.execute(f"GRANT {grant} TO {name}".encode())
            yield dsn.replace("user=postgres", f"user={name}")
        finally:
            connection.execute(f"DROP OWNED BY {name}".encode())
            connection.execute(f"DROP ROLE {name}".encode())


@pytest.mark.parametrize("major", [18, 15])
def test_all_is_ok_on_a_database_that_is_fit(private_postgres: Callable[..., PrivatePostgres], major: int) -> None:
    dsn = private_postgres(major).dsn
    migrated = CliRunner().invoke(main.command, ["migrate", "--database-url", dsn])
    assert migrated.exit_code == 0
    found = doctor(dsn)
    assert found.exit_code == 0, found.output
    checked = [line.split()[:2] for line in found.output.splitlines() if not line.startswith(" ")]
    assert checked == [["ok", name] for name in NAMES]
    assert max(map(len, found.output.splitlines())) <= 80
    report = json.loads(doctor(dsn, "--json").output)
    assert list(report) == ["status", "checks"]
    assert report["status"] == "ok"
    assert [list(check) for check in report["checks"]] == [["name", "status", "text", "advice"]] * len(NAMES)
    assert {check["advice"] for check in report["checks"]} == {""}


def test_the_command_line_has_it(piecework: CommandLine) -> None:
    code, said = piecework.run("doctor")
    assert code in (0, 1), said
    assert "role 'postgres'" in said


def test_a_database_that_cannot_be_reached_is_one_failed_line() -> None:
    found = doctor("postgresql://me:secret@127.0.0.1:1/x")
    assert found.exit_code == 3
    assert found.output.startswith("FAILED   connection    no connection to PostgreSQL at 127.0.0.1:1")
    assert "secret" not in found.output
    found = doctor("postgresql://me:secret@127.0.0.1:1/x", "--json")
    assert found.exit_code == 3
    assert json.loads(found.output)["status"] == "failed"


def test_a_server_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        started = time.monotonic()
        assert doctor(f"postgresql://127.0.0.1:{port}/x?connect_timeout=2").exit_code == 3
        assert time.monotonic() - started < 20


def test_a_url_that_is_none_is_a_wrong_call() -> None:
    assert doctor("http://nowhere").exit_code == 2
    assert doctor("", "--schema", "pg_mine").exit_code == 2


def test_a_missing_schema_fails_and_what_needs_it_is_not_checked(empty_dsn: str) -> None:
    found = doctor(empty_dsn)
    assert found.exit_code == 1
    assert "FAILED   schema        the schema 'piecework' does not exist" in found.output
    assert "→ run `piecework migrate`" in found.output
    assert list(checks(empty_dsn)) == [name for name in NAMES if name not in ("permissions", "partitions", "due_times")]


def test_functions_of_another_release_fail(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE piecework.functions SET checksum = 'other' WHERE name = 'claim_1'")
    schema = checks(dsn)["schema"]
    assert schema["status"] == "failed"
    assert "claim_1" in schema["text"]


def test_privileges_that_the_role_lacks_are_named(server: Postgres, dsn: str) -> None:
    with a_role(server, "doctor_reads", dsn, "USAGE ON SCHEMA piecework",
                "SELECT ON ALL TABLES IN SCHEMA piecework") as reads:  # fmt: skip
        permissions = checks(reads)["permissions"]
    assert permissions["status"] == "failed"
    assert "UPDATE on workers" in permissions["text"]
    with a_role(server, "doctor_sees_nothing", dsn) as sees_nothing:
        found = checks(sees_nothing)
    assert found["schema"]["status"] == "failed"
    assert "USAGE on the schema" in found["permissions"]["text"]


def test_a_role_that_may_not_make_partitions_cannot_work_and_missing_ones_are_a_warning(
    server: Postgres, dsn: str
) -> None:
    all_rights = (
        "USAGE ON SCHEMA piecework", "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA piecework",
    )  # fmt: skip
    with a_role(server, "doctor_works", dsn, *all_rights) as works:
        permissions = checks(works)["permissions"]
        assert permissions["status"] == "failed"
        assert "EXECUTE on spawn_1" in permissions["text"]
        assert "EXECUTE on add_partitions_1" in permissions["text"]
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA piecework TO doctor_works")
        assert checks(works)["permissions"]["status"] == "ok"
    with psycopg.connect(dsn, autocommit=True) as connection:
        [(leaf,)] = connection.execute(
            "SELECT 'attempts' || to_char(clock_timestamp() AT TIME ZONE 'UTC' + interval '1 day', '_YYYYMMDD')"
        ).fetchall()
        connection.execute(f"DROP TABLE piecework.{leaf}".encode())
    partitions = checks(dsn)["partitions"]
    assert (partitions["status"], partitions["text"]) == ("warning", f"partitions are missing: {leaf}")


@pytest.mark.parametrize(("setting", "said"), [
    ("default_transaction_isolation = 'repeatable read'", "'repeatable read' by default"),
    ("default_transaction_read_only = on", "read-only by default"),
])  # fmt: skip
def test_defaults_that_reach_the_application_are_a_warning(server: Postgres, dsn: str, setting: str, said: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    server.admin.execute(f"ALTER DATABASE {name} SET {setting}".encode())
    found = checks(dsn)["defaults"]
    assert found["status"] == "warning"
    assert said in found["text"]


@pytest.mark.parametrize("shared", [True, False])
async def test_a_pooler_is_a_warning_until_the_servers_own_address_is_named(dsn: str, shared: bool) -> None:
    async with Pooler.to(dsn, shared=shared) as pooler:
        found = await asyncio.to_thread(checks, pooler.dsn)
        past = await asyncio.to_thread(checks, pooler.dsn, "--listen-url", dsn)
        not_past = await asyncio.to_thread(checks, pooler.dsn, "--listen-url", pooler.dsn)
    assert (found["pooler"]["status"], found["listen"]["status"]) == ("warning", "warning")
    assert ("transaction or statement mode" in found["pooler"]["text"]) is shared
    assert "PIECEWORK_LISTEN_URL" in found["pooler"]["advice"]
    assert (past["pooler"]["status"], past["listen"]["status"]) == ("ok", "ok")
    assert not_past["pooler"]["status"] == "warning"


async def test_a_listen_url_of_another_database_fails(server: Postgres, dsn: str) -> None:
    found = await asyncio.to_thread(checks, dsn, "--listen-url", server.dsn("postgres"))
    assert found["pooler"]["status"] == "failed"
    assert "another database" in found["pooler"]["text"]


async def test_who_pins_the_horizon_is_found(private_postgres: Callable[..., PrivatePostgres]) -> None:
    dsn = private_postgres(wal_level="logical", max_prepared_transactions="5").dsn
    with (
        psycopg.connect(dsn, application_name="forgetful") as idle,
        psycopg.connect(dsn, application_name="writer") as writer,
        psycopg.connect(dsn, autocommit=True) as admin,
    ):
        idle.execute("SELECT 1")
        writer.execute("CREATE TABLE t ()")
        admin.execute("BEGIN; CREATE TABLE u (); PREPARE TRANSACTION 'left'")
        writer.commit()
        writer.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        writer.execute("SELECT 1")
        async with Examination.of(dsn, Statements("piecework")) as examination:
            pins = await examination.pins()
        named = {pin.name: pin for pin in pins}
        assert (named["forgetful"].kind, named["forgetful"].pid) == ("session", idle.info.backend_pid)
        assert (named["forgetful"].state, named["forgetful"].xids) == ("idle in transaction", None)
        assert named["writer"].xids is not None
        assert named["left"].kind == "prepared transaction"
        assert all(0 <= (pin.seconds or 0) < 60 for pin in pins)
        admin.execute("ROLLBACK PREPARED 'left'")
        writer.rollback()
        idle.rollback()
        admin.execute("SELECT pg_create_logical_replication_slot('unread', 'pgoutput')")
        async with Examination.of(dsn, Statements("piecework")) as examination:
            [slot] = await examination.pins()
        assert (slot.kind, slot.name, slot.state) == ("slot", "unread", "inactive")
        assert (slot.catalog_only, slot.keeps_rows) == (True, False)


# Judgements of facts that a test cannot bring about in short.


def a_server(**changed: object) -> Server:
    values: dict[str, Any] = {
        "version_num": 180006, "version": "18.6", "database": "d", "role": "r", "standby": False,
        "isolation": "read committed", "read_only": False, "encoding": "UTF8", "autovacuum": True,
        "track_counts": True, "toast_compression": "pglz", "sees_all": True, "max_connections": 97, "connections": 10,
        "free_connections": 87, "clock": 0.0,
    }  # fmt: skip
    return msgspec.structs.replace(Server(**values), **changed)


@pytest.mark.parametrize(("check", "changed", "expected"), [
    ("version", {}, "ok"), ("version", {"version_num": 140012}, "failed"),
    ("standby", {"standby": True}, "failed"),
    ("connections", {}, "ok"), ("connections", {"free_connections": 15}, "warning"),
    ("connections", {"free_connections": 4}, "failed"),
    ("connections", {"max_connections": 20, "free_connections": 10}, "ok"),
    ("autovacuum", {"autovacuum": False}, "failed"), ("autovacuum", {"track_counts": False}, "failed"),
    ("encoding", {"encoding": "LATIN1"}, "warning"), ("encoding", {"toast_compression": "lz4"}, "ok"),
    ("clock", {"ahead": 3600.0}, "ok"),
])  # fmt: skip
def test_what_the_server_says_of_itself_is_judged(check: str, changed: dict[str, object], expected: str) -> None:
    verdict = diagnosis.OF_SERVER[check](a_server(**changed))
    assert verdict.status == expected
    assert bool(verdict.advice) == (expected != "ok")


def a_pin(seconds: float | None, xids: int | None = 1, **changed: Any) -> Pin:
    values: dict[str, Any] = {
        "kind": "session", "name": "forgetful", "pid": 7, "role": "r", "state": "idle in transaction",
        "query_start": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    }  # fmt: skip
    return Pin(seconds=seconds, xids=xids, **(values | changed))


def test_open_transactions_are_judged_by_their_age() -> None:
    assert diagnosis.horizon([a_pin(59.0)], None, True).status == "ok"
    verdict = diagnosis.horizon([a_pin(60.0), a_pin(1.0, name="young")], None, True)
    assert verdict.status == "warning"
    assert "pid 7 'forgetful' of role 'r' (idle in transaction) for 60.0 s, last statement 2026-01-0" in verdict.text
    assert "end that session: SELECT pg_terminate_backend(7)" in verdict.advice
    assert "young" not in verdict.text
    assert diagnosis.horizon([a_pin(3600.0)], None, True).status == "failed"


def test_what_has_no_age_is_judged_by_the_transactions_since() -> None:
    assert diagnosis.horizon([a_pin(None, 999_999)], None, True).status == "ok"
    slot = a_pin(None, 1_000_000, kind="slot", name="unread", pid=None, role=None, state="inactive", query_start=None)
    verdict = diagnosis.horizon([slot], None, False)
    assert verdict.status == "warning"
    assert verdict.text.startswith("slot 'unread' (inactive), 1000000 transactions back; of others this role sees")


def test_missing_partitions_matter_more_to_who_cannot_make_them() -> None:
    missing = {"attempts_20260101": 0}
    assert diagnosis.partitions(missing, 3).status == "warning"
