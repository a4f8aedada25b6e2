"""What every test can ask for. A test that needs a database takes `dsn`: its own, migrated, dropped afterwards.

`@pytest.mark.postgres(18, 15)` runs a test once per version; without it `dsn` is on the newest. `pg15_dsn` is always on
15. `empty_dsn` has no schema of piecework yet. `private_postgres(…)` starts a server of the test's own. Nothing is ever
skipped: what is missing is an error that says so.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.databases import Server
    from support.private_postgres import PrivatePostgres

NEWEST = 18
OLDEST = 15


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("postgres")
    if marker is None:
        return
    if "server" not in metafunc.fixturenames:
        raise pytest.UsageError(f"{metafunc.definition.nodeid} is marked postgres(...) and takes no dsn and no server")
    metafunc.parametrize("server", marker.args, indirect=True, ids=[f"pg{major}" for major in marker.args])


def pytest_configure(config: pytest.Config) -> None:
    """Make every session alike, however it was started."""
    # A shell that starts a command in the background lets it ignore SIGINT, and so would what the tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # What embedded servers leave behind, as root outside of their homes, goes where the session ends.
    if os.geteuid() == 0 and "PIECEWORK_DATA_ROOT" not in os.environ:
        folder = tempfile.mkdtemp(prefix="piecework-tests-")
        os.chmod(folder, 0o711)  # the servers' user passes through
        os.environ["PIECEWORK_DATA_ROOT"] = folder  # also for the processes that xdist starts
        config.add_cleanup(lambda: remove_when_stopped(Path(folder)))


def remove_when_stopped(folder: Path) -> None:
    """Remove the data of servers that nobody uses any more: each stops a few seconds after its last client."""
    from piecework.store.embedded.locks import is_held

    deadline = time.monotonic() + 15
    while any(is_held(lock) for lock in folder.glob("*/server.lock")) and time.monotonic() < deadline:
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the servers, when all processes of the session are done. And a skipped test fails the session."""
    if hasattr(session.config, "workerinput"):
        return
    base: Path = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    for home in base.glob("postgresql-*"):
        from piecework.store.embedded import remove

        remove(home)
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def session_home(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """One folder for all processes of this test session."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def servers(session_home: Path) -> Iterator[Callable[[int], Server]]:
    """Start a PostgreSQL of this version when it is first asked for."""
    from support import databases  # tests of the lower floors need no database, and must run while there is none

    started: dict[int, Server] = {}

    def server(major: int) -> Server:
        if major not in started:
            started[major] = databases.start(session_home, major)
        return started[major]

    yield server
    for each in started.values():
        each.close()


@pytest.fixture
def server(request: pytest.FixtureRequest, servers: Callable[[int], Server]) -> Server:
    """The PostgreSQL that the test's `dsn` is on; `server.admin` is a connection of its superuser."""
    return servers(getattr(request, "param", NEWEST))


@pytest.fixture
def dsn(server: Server) -> Iterator[str]:
    """A fresh database with the schema of this version, dropped after the test."""
    with server.database(migrated=True) as dsn:
        yield dsn


@pytest.fixture
def empty_dsn(server: Server) -> Iterator[str]:
    """A fresh database without a schema of piecework, dropped after the test."""
    with server.database(migrated=False) as dsn:
        yield dsn


@pytest.fixture
def pg15_dsn(servers: Callable[[int], Server]) -> Iterator[str]:
    """Like `dsn`, on PostgreSQL 15, the oldest that is supported."""
    with servers(OLDEST).database(migrated=True) as dsn:
        yield dsn


@pytest.fixture
def private_postgres() -> Iterator[Callable[..., PrivatePostgres]]:
    """Start a PostgreSQL of the test's own, 18 unless said otherwise: `private_postgres(15, log_statement="all")`."""
    from support.databases import binaries
    from support.private_postgres import PrivatePostgres

    started: list[PrivatePostgres] = []

    def start(major: int = NEWEST, **settings: str) -> PrivatePostgres:
        started.append(PrivatePostgres(binaries(major), settings))
        return started[-1]

    yield start
    for each in started:
        each.remove()


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the developer's shell do not reach the tests."""
    for name in ("PIECEWORK_DATABASE_URL", "PIECEWORK_LISTEN_URL", "PIECEWORK_HOME", "PIECEWORK_POSTGRES_BIN"):
        monkeypatch.delenv(name, raising=False)
