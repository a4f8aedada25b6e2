"""Every process of an embedded server is killed in turn, and its files are spoiled: the next acquire works."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from embedded.helpers import (
    Client,
    children,
    is_gone,
    is_up,
    log,
    pointer,
    postmaster,
    pretend_postmaster,
    query,
    set_postmaster_in_pointer,
    started_at,
    stop,
    wait_until,
)

from piecework.base.errors import EmbeddedError
from piecework.store.embedded import EmbeddedServer, acquire, remove
from piecework.store.embedded.home import Home, server_account


@pytest.fixture
def endless_initdb(open_folder: Path) -> Path:
    """Programs whose initdb makes the first files of a data folder, and never ends."""
    programs = open_folder / "bin"
    programs.mkdir()
    scripts = {"postgres": 'echo "postgres (PostgreSQL) 18.0"', "initdb": 'echo 18 >"$2/PG_VERSION"; exec sleep 600'}
    for name, script in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    return programs


def begun_data(home: Path) -> list[Path]:
    """Data folders that initdb has begun and not finished."""
    found = Home(home).read_pointer()
    return list(found.data.parent.glob("initdb-*/PG_VERSION")) if found else []


def test_a_supervisor_killed_during_initdb_leaves_a_home_that_works(
    home: Path, clients: Callable[..., Client], endless_initdb: Path
) -> None:
    client = clients(programs=endless_initdb)
    wait_until(lambda: begun_data(home))
    supervisor = pointer(home).supervisor
    (initdb,) = children(supervisor)
    client.kill()
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: is_gone(initdb))
    assert begun_data(home)
    with acquire(home, grace=timedelta(0)) as server:
        assert query(server.dsn, "SELECT current_database()") == "piecework"
    assert not begun_data(home)


def test_a_killed_initdb_is_reported_and_leaves_a_home_that_works(home: Path, endless_initdb: Path) -> None:
    def kill() -> None:
        wait_until(lambda: begun_data(home))
        (initdb,) = children(pointer(home).supervisor)
        os.kill(initdb, signal.SIGKILL)

    with ThreadPoolExecutor(1) as thread:
        killing = thread.submit(kill)
        with pytest.raises(EmbeddedError, match="initdb failed with code -9"):
            acquire(home, bin_dir=endless_initdb)
        killing.result()
    assert not begun_data(home)
    with acquire(home, grace=timedelta(0)) as server:
        assert query(server.dsn, "SELECT 1") == "1"


def test_a_killed_postmaster_comes_back_under_the_same_dsn(home: Path, server: EmbeddedServer) -> None:
    dsn, life, killed = server.dsn, started_at(server.dsn), postmaster(home)
    query(dsn, "CREATE TABLE kept AS SELECT 42 AS n")
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: is_gone(killed))
    server.ensure()
    assert server.dsn == dsn
    assert query(dsn, "SELECT n FROM kept") == "42"
    assert started_at(dsn) != life
    assert "ended with code -9: starting it again" in log(home)


def test_a_busy_backend_does_not_keep_a_killed_postmaster_from_coming_back(home: Path, server: EmbeddedServer) -> None:
    connection = psycopg.connect(server.dsn, autocommit=True)
    process = connection.info.backend_pid
    connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1e15::bigint)")
    wait_until(lambda: query(server.dsn, f"SELECT state FROM pg_stat_activity WHERE pid = {process}") == "active")
    killed = postmaster(home)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: is_gone(killed))
    server.ensure(timeout=timedelta(seconds=10))
    assert is_gone(process)
    connection.close()
    assert query(server.dsn, "SELECT 1") == "1"


def test_a_killed_supervisor_takes_the_server_along_and_ensure_brings_both_back(
    home: Path, server: EmbeddedServer
) -> None:
    dsn, supervisor, killed = server.dsn, pointer(home).supervisor, postmaster(home)
    query(dsn, "CREATE TABLE kept AS SELECT 42 AS n")
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: is_gone(killed))
    server.ensure()
    assert server.dsn == dsn
    assert query(dsn, "SELECT n FROM kept") == "42"
    assert pointer(home).supervisor != supervisor


def test_an_acquire_right_after_the_supervisor_was_killed_gets_a_new_server(home: Path, server: EmbeddedServer) -> None:
    life, supervisor = started_at(server.dsn), pointer(home).supervisor
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: is_gone(supervisor))
    with acquire(home, grace=timedelta(0)) as next_server:
        assert started_at(next_server.dsn) != life


def test_supervisor_and_postmaster_killed_together_leave_a_home_that_works(home: Path, server: EmbeddedServer) -> None:
    query(server.dsn, "CREATE TABLE kept AS SELECT 42 AS n")
    processes = (pointer(home).supervisor, postmaster(home))
    for process in processes:
        os.kill(process, signal.SIGKILL)
    wait_until(lambda: all(is_gone(process) for process in processes))
    server.ensure()
    assert query(server.dsn, "SELECT n FROM kept") == "42"


def test_a_server_that_is_told_to_stop_stops_cleanly_and_can_be_brought_back(
    home: Path, server: EmbeddedServer
) -> None:
    stop(home)
    assert "database system is shut down" in log(home)
    server.ensure()
    assert query(server.dsn, "SELECT 1") == "1"


@pytest.fixture
def foreign_process() -> Iterator[int]:
    """A program that has nothing to do with PostgreSQL, of the user that the server runs as."""
    account = server_account(Path("/nowhere"))
    as_user = account.arguments() if account else {}
    with subprocess.Popen(["sleep", "600"], cwd="/", **as_user) as process:
        yield process.pid
        process.kill()


def test_a_stale_pid_file_that_names_a_foreign_process_is_no_server(home: Path, foreign_process: int) -> None:
    acquire(home, grace=timedelta(0)).close()
    wait_until(lambda: not is_up(home))
    pretend_postmaster(home, foreign_process)
    set_postmaster_in_pointer(home, foreign_process)
    with acquire(home, grace=timedelta(0)) as server:
        assert query(server.dsn, "SELECT 1") == "1"
        assert postmaster(home) != foreign_process
    assert not is_gone(foreign_process)


@pytest.mark.parametrize("content", ["", "no number\n", "99999999999\n"], ids=["empty", "text", "huge"])
def test_a_spoiled_pid_file_is_no_obstacle(home: Path, content: str) -> None:
    acquire(home, grace=timedelta(0)).close()
    wait_until(lambda: not is_up(home))
    (pointer(home).data / "postmaster.pid").write_text(content)
    with acquire(home, grace=timedelta(0)) as server:
        assert query(server.dsn, "SELECT 1") == "1"


def test_a_spoiled_pointer_costs_nobody_the_data_beside_it(home: Path) -> None:
    with acquire(home, grace=timedelta(0)) as first:
        query(first.dsn, "CREATE TABLE kept AS SELECT 42 AS n")
        data = pointer(home).data
    wait_until(lambda: not is_up(home))
    Home(home).pointer_file.write_text("{")
    with acquire(home, grace=timedelta(0)) as second:
        assert query(second.dsn, "SELECT n FROM kept") == "42"
        assert pointer(home).data == data


def test_a_home_that_was_deleted_ends_its_server_and_is_made_anew(home: Path, server: EmbeddedServer) -> None:
    old = pointer(home)
    assert old.postmaster is not None
    shutil.rmtree(home)
    server.ensure()
    try:
        assert query(server.dsn, "SELECT 1") == "1"
        wait_until(lambda: is_gone(old.supervisor) and is_gone(old.postmaster or 0))
        assert query(server.dsn, "SELECT 1") == "1"
    finally:
        if old.data.parent != home:
            shutil.rmtree(old.data.parent)


def test_data_that_does_not_start_is_reported_with_the_end_of_the_log(home: Path) -> None:
    acquire(home, grace=timedelta(0)).close()
    wait_until(lambda: not is_up(home))
    (pointer(home).data / "global" / "pg_control").unlink()
    with pytest.raises(EmbeddedError, match=r"(?s)does not start on .*server\.log:\n.*pg_control"):
        acquire(home, grace=timedelta(0))
    wait_until(lambda: not is_up(home))
    remove(home)
    with acquire(home, grace=timedelta(0)) as server:
        assert query(server.dsn, "SELECT 1") == "1"


def test_data_of_another_major_version_is_refused_by_name_of_both(home: Path) -> None:
    acquire(home, grace=timedelta(0)).close()
    wait_until(lambda: not is_up(home))
    written = pointer(home).data / "PG_VERSION"
    major = written.read_text().strip()
    written.write_text("14\n")
    with pytest.raises(EmbeddedError, match=rf"PostgreSQL 14, and .* PostgreSQL {major}\. Set PIECEWORK_POSTGRES_BIN"):
        acquire(home, grace=timedelta(0))
