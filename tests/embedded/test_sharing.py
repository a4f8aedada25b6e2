"""One server for any number of processes, for as long as somebody needs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from embedded.helpers import DEADLINE, Client, is_gone, is_up, log, postmaster, query, started_at, wait_until

from piecework.base.errors import EmbeddedError
from piecework.store.embedded import EmbeddedServer, acquire, remove
from piecework.store.embedded.home import Home
from piecework.store.embedded.locks import open_lock, try_lock


def test_six_processes_that_race_on_a_fresh_directory_share_one_server(
    home: Path, clients: Callable[..., Client]
) -> None:
    racing = [clients() for _ in range(6)]
    found = {client.dsn() for client in racing}
    assert len(found) == 1
    assert query(found.pop(), "SELECT current_database()") == "piecework"
    assert log(home).count("database system is ready") == 1


def test_the_next_process_joins_a_running_server(home: Path, server: EmbeddedServer) -> None:
    with acquire(home) as joined:
        assert joined.dsn == server.dsn
        assert started_at(joined.dsn) == started_at(server.dsn)


def test_a_killed_client_gives_its_lease_back_and_the_others_go_on(
    home: Path, server: EmbeddedServer, clients: Callable[..., Client]
) -> None:
    client = clients()
    assert client.dsn() == server.dsn
    with psycopg.connect(server.dsn) as connection:
        client.kill()
        assert connection.execute("SELECT 1").fetchone() == (1,)
        server.ensure()
        assert connection.execute("SELECT 1").fetchone() == (1,)
    server.close()
    wait_until(lambda: not is_up(home))


def test_the_server_stops_when_its_last_client_is_killed(home: Path, clients: Callable[..., Client]) -> None:
    client = clients()
    client.dsn()
    process = postmaster(home)
    client.kill()
    wait_until(lambda: is_gone(process))
    wait_until(lambda: not is_up(home))
    assert "database system is shut down" in log(home)


def test_the_server_outlives_its_last_lease_by_the_grace(home: Path) -> None:
    with acquire(home, grace=timedelta(hours=1)) as first:
        life = started_at(first.dsn)
    with acquire(home) as second:
        assert started_at(second.dsn) == life


def test_data_is_there_again_after_the_server_was_down(home: Path) -> None:
    with acquire(home, grace=timedelta(0)) as first:
        query(first.dsn, "CREATE TABLE kept AS SELECT 42 AS n")
        life = started_at(first.dsn)
    wait_until(lambda: not is_up(home))
    with acquire(home, grace=timedelta(0)) as second:
        assert query(second.dsn, "SELECT n FROM kept") == "42"
        assert started_at(second.dsn) != life
        assert second.dsn == first.dsn


def test_a_lease_is_given_back_once_and_is_of_no_use_afterwards(server: EmbeddedServer) -> None:
    server.close()
    server.close()
    with pytest.raises(EmbeddedError, match=r"call acquire\(\) again"):
        server.ensure()


def test_a_fork_that_closes_the_server_does_not_take_the_lease_from_its_parent(
    home: Path, server: EmbeddedServer
) -> None:
    script = """
import os, sys
from pathlib import Path
from piecework.store.embedded import acquire
server = acquire(Path(sys.argv[1]))
child = os.fork()
if not child:
    server.close()
    os._exit(0)
os.waitpid(child, 0)
print("forked", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-W", "ignore", "-c", script, str(home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "forked\n"
        server.close()
        lease = open_lock(Home(home).lease_lock)
        assert not try_lock(lease, shared=False)
        client.kill()
        wait_until(lambda: not is_up(home))


def test_a_home_in_use_is_not_removed(home: Path, server: EmbeddedServer) -> None:
    with pytest.raises(EmbeddedError, match="still runs"):
        remove(home, timeout=timedelta(seconds=0.1))
    assert query(server.dsn, "SELECT 1") == "1"


def test_a_removed_home_leaves_nothing(home: Path) -> None:
    with acquire(home, grace=timedelta(0)):
        found = Home(home).read_pointer()
    remove(home)
    assert found is not None
    assert not found.data.parent.exists()
    assert not home.exists()
    remove(home)


def test_a_process_ends_while_the_server_that_it_started_goes_on(home: Path) -> None:
    script = """
import sys
from datetime import timedelta
from pathlib import Path
from piecework.store.embedded import acquire
acquire(Path(sys.argv[1]), grace=timedelta(hours=1))
"""
    # Reads the output to its end, which comes when nobody has it open any more.
    command = [sys.executable, "-c", script, str(home)]
    ended = subprocess.run(command, capture_output=True, timeout=DEADLINE, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    assert is_up(home)
