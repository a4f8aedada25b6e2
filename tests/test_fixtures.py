"""What the other tests stand on."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from support.databases import Server
from support.private_postgres import PrivatePostgres


def major(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        return connection.info.server_version // 10000


def schemas(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        return {row[0] for row in connection.execute("SELECT nspname FROM pg_namespace").fetchall()}


def test_a_database_is_migrated_or_empty_as_asked(dsn: str, empty_dsn: str) -> None:
    assert "piecework" in schemas(dsn)
    assert "piecework" not in schemas(empty_dsn)


@pytest.mark.postgres(18, 15)
def test_a_marked_test_runs_on_each_version(server: Server, dsn: str) -> None:
    assert major(dsn) == server.major


def test_pg15_is_postgresql_15(pg15_dsn: str) -> None:
    assert major(pg15_dsn) == 15


def test_a_private_server_keeps_its_dsn_and_data_when_restarted(
    private_postgres: Callable[..., PrivatePostgres],
) -> None:
    server = private_postgres(log_statement="all")
    with psycopg.connect(server.dsn) as connection:
        connection.execute("CREATE TABLE kept ()")
    server.restart()
    with psycopg.connect(server.dsn) as connection:
        connection.execute("SELECT FROM kept")
    assert "CREATE TABLE kept" in server.log.read_text()
