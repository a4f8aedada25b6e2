"""The fault proxy does what it is told, and the server has done or not done what it says."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from engine.helpers import count, query, until
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from piecework import ConfigurationError
from piecework.testing import FaultProxy, Moment

Session = psycopg.Connection[tuple[object, ...]]
INSERT = "INSERT INTO piecework.duties (name, every) VALUES (%s, '1 hour')"


@pytest.fixture
def proxy(dsn: str) -> Iterator[FaultProxy]:
    with FaultProxy(dsn) as proxy:
        yield proxy


@pytest.fixture
def session(proxy: FaultProxy) -> Iterator[Session]:
    session = psycopg.connect(proxy.dsn, autocommit=True)
    yield session
    session.close()


def hears_nothing(session: Session, seconds: float = 0.3) -> bool:
    """Ask something, and see whether nothing comes back."""
    session.pgconn.send_query(b"SELECT 7")
    session.pgconn.flush()
    return not hears(session, seconds)


def hears(session: Session, seconds: float = 10) -> bool:
    # Waiting in libpq would keep the interpreter's lock, and with it the proxy.
    return bool(select.select([session.fileno()], [], [], seconds)[0])


@pytest.mark.parametrize(("moment", "rows"), [("request", 0), ("answer", 1), ("middle", 1), ("after", 1)])
@pytest.mark.parametrize("prepared", [False, True])
def test_a_trap_breaks_the_connection_at_its_moment_and_only_there(
    proxy: FaultProxy, session: Session, dsn: str, moment: Moment, rows: int, prepared: bool
) -> None:
    session.execute(INSERT, ["before"], prepare=prepared)
    trap = proxy.trap(moment, b"INSERT")
    assert session.execute("SELECT 1").fetchone() == (1,)
    if moment == "after":
        session.execute(INSERT, ["trapped"], prepare=prepared)
    else:
        with pytest.raises(psycopg.OperationalError):
            session.execute(INSERT, ["trapped"], prepare=prepared)
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    assert (trap.hits, trap.left) == (1, 0)
    with psycopg.connect(proxy.dsn, autocommit=True) as another:
        another.execute(INSERT, ["later"])
    assert count(dsn, "duties WHERE name = 'trapped'") == rows
    assert count(dsn, "duties WHERE name IN ('before', 'later')") == 2


def test_a_trap_looks_at_the_answer(proxy: FaultProxy, session: Session) -> None:
    trap = proxy.trap("answer", b"SELECT", answer=b"seven")
    assert session.execute("SELECT 'six'").fetchone() == ("six",)
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 'sev' || 'en'")
    assert trap.hits == 1


def test_an_answer_that_is_longer_than_any_buffer_is_lost_whole_after_its_commit(
    proxy: FaultProxy, session: Session, dsn: str
) -> None:
    proxy.trap("answer", b"INSERT")
    with pytest.raises(psycopg.OperationalError):
        session.execute(f"{INSERT} RETURNING repeat('x', 10000000)", ["trapped"])
    assert count(dsn, "duties WHERE name = 'trapped'") == 1


@pytest.mark.parametrize("how", ["cut", "reset"])
def test_a_cut_and_a_reset_break_all_connections_and_new_ones_can_be_made(
    proxy: FaultProxy, session: Session, how: str
) -> None:
    [connection] = proxy.connections()
    getattr(proxy, how)()
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    psycopg.connect(proxy.dsn).close()
    assert connection not in proxy.connections()


async def test_what_a_black_hole_swallows_is_not_answered_and_the_connection_does_not_survive_it(
    proxy: FaultProxy, session: Session, dsn: str
) -> None:
    proxy.black_hole()
    assert hears_nothing(session)
    with pytest.raises(psycopg.OperationalError, match="timeout"):
        psycopg.connect(proxy.dsn, connect_timeout=1)
    proxy.heal()
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    psycopg.connect(proxy.dsn).close()
    await until(lambda: sessions(dsn) == 0)


@pytest.mark.parametrize(("direction", "rows"), [("to_server", 0), ("to_client", 1)])
async def test_a_black_hole_may_be_in_one_direction(
    proxy: FaultProxy, session: Session, dsn: str, direction: str, rows: int
) -> None:
    proxy.connections()[0].black_hole(direction)  # type: ignore[arg-type]
    session.pgconn.send_query(INSERT.replace("%s", "'trapped'").encode())
    session.pgconn.flush()
    if rows:
        await until(lambda: count(dsn, "duties WHERE name = 'trapped'") == 1)
    assert not hears(session, 0.3)
    assert count(dsn, "duties WHERE name = 'trapped'") == rows


def test_what_was_frozen_arrives_when_it_is_thawed(proxy: FaultProxy, session: Session, dsn: str) -> None:
    proxy.freeze()
    assert hears_nothing(session)
    proxy.heal()
    assert hears(session)
    result = session.pgconn.get_result()
    assert result is not None
    assert result.get_value(0, 0) == b"7"


def test_what_is_delayed_comes_later(proxy: FaultProxy, session: Session) -> None:
    proxy.delay(0.2, "to_client")
    began = time.monotonic()
    session.execute("SELECT 1")
    assert time.monotonic() - began >= 0.2


async def test_a_half_open_connection_is_gone_on_one_side_alone(
    proxy: FaultProxy, session: Session, dsn: str
) -> None:
    proxy.connections()[0].half_open()
    await until(lambda: sessions(dsn) == 0)
    assert hears_nothing(session)


async def test_the_server_keeps_the_session_of_a_client_that_is_gone(
    proxy: FaultProxy, session: Session, dsn: str
) -> None:
    proxy.connections()[0].half_open("server")
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    assert sessions(dsn) == 1
    proxy.heal()
    await until(lambda: sessions(dsn) == 0)


def test_connections_are_found_by_what_they_ran(proxy: FaultProxy, session: Session) -> None:
    with psycopg.connect(proxy.dsn, autocommit=True) as other:
        other.execute("LISTEN something")
        [found] = proxy.connections(b"^LISTEN")
        assert found.statements == [b"LISTEN something"]
        found.cut()
    assert session.execute("SELECT 1").fetchone() == (1,)


def test_it_leads_to_an_address_and_from_a_unix_socket_and_other_processes_use_it(dsn: str, tmp_path: Path) -> None:
    with FaultProxy(dsn) as tcp, FaultProxy(tcp.dsn, listen_in=tmp_path) as unix:
        assert conninfo_to_dict(unix.dsn)["host"] == str(tmp_path)
        asks = f"import psycopg; print(*psycopg.connect({unix.dsn!r}).execute('SELECT 7').fetchone())"
        asked = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True, timeout=30)
    assert asked.stdout == "7\n"


@pytest.mark.parametrize("dsn", ["dbname=d", "host=a,b"])
def test_a_dsn_that_names_no_host_or_several_is_refused(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match="leads to one host"):
        FaultProxy(dsn)


async def test_a_server_that_is_not_there_is_no_connection(dsn: str, tmp_path: Path) -> None:
    async with FaultProxy(make_conninfo(dsn, host=str(tmp_path))) as proxy:
        with pytest.raises(psycopg.OperationalError):
            await psycopg.AsyncConnection.connect(proxy.dsn)


def sessions(dsn: str) -> int:
    """How many others have a session on this database."""
    [[number]] = query(dsn, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                            " AND pid <> pg_backend_pid() AND backend_type = 'client backend'")  # fmt: skip
    return int(str(number))
