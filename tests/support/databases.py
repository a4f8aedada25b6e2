"""Databases for tests: two servers per test session, shared by its processes, and a fresh database for each test."""

from __future__ import annotations

import asyncio
import subprocess
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from piecework.store.embedded import EmbeddedServer, acquire
from piecework.store.store import Store

TEMPLATE = "migrated"
NEWEST = 18
OLDEST = 15
FETCH = Path(__file__).parent.parent.parent / "tools" / "postgresql15.sh"


def binaries(major: int) -> Path | None:
    """Return where the programs of this PostgreSQL are; None is what the embedded server finds by itself.

    `make test` has brought PostgreSQL 15 before; run by hand, the first test that needs it waits for the download.
    """
    if major == NEWEST:
        return None
    assert major == OLDEST, f"no PostgreSQL {major} for tests"
    found = subprocess.run([FETCH], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise FileNotFoundError(found.stderr.strip())
    return Path(found.stdout.strip())


@dataclass
class Server:
    """A PostgreSQL of this test session: nobody's data is on it."""

    major: int
    embedded: EmbeddedServer
    admin: psycopg.Connection = field(init=False)
    """In autocommit, on the database `postgres`."""

    def __post_init__(self) -> None:
        self.admin = psycopg.connect(self.dsn("postgres"), autocommit=True)
        # Tests pull plugs of processes, not of the machine.
        self.admin.execute("ALTER SYSTEM SET fsync = off")
        self.admin.execute("SELECT pg_reload_conf()")

    def close(self) -> None:
        self.admin.close()
        self.embedded.close()

    def dsn(self, database: str) -> str:
        return make_conninfo(self.embedded.dsn, dbname=database)

    @contextmanager
    def database(self, *, migrated: bool) -> Iterator[str]:
        """Create a database, yield its DSN, drop it whoever is still connected."""
        if migrated:
            self._make(TEMPLATE, "template0", _migrate)
        with self._copy(TEMPLATE if migrated else "template0") as dsn:
            yield dsn

    @contextmanager
    def filled(self, template: str, fill: Callable[[str], None]) -> Iterator[str]:
        """Like `database`, with what `fill` puts into a migrated one once per session; `template` is its name."""
        self._make(TEMPLATE, "template0", _migrate)
        self._make(template, TEMPLATE, fill)
        with self._copy(template) as dsn:
            yield dsn

    @contextmanager
    def _copy(self, template: str) -> Iterator[str]:
        name = f"test_{uuid.uuid4().hex}"
        self._create(name, template)
        try:
            yield self.dsn(name)
        finally:
            self.admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))

    def _create(self, name: str, template: str) -> None:
        self.admin.execute(
            SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(Identifier(name), Identifier(template))
        )

    def _make(self, name: str, source: str, fill: Callable[[str], None]) -> None:
        """Make a database to be copied, once per server, whichever process of the session comes first."""
        if self._has(name):
            return
        self.admin.execute("SELECT pg_advisory_lock(hashtext(%s))", [name])
        try:
            if not self._has(name):
                unfinished = f"unfinished_{uuid.uuid4().hex}"
                self._create(unfinished, source)
                fill(self.dsn(unfinished))
                self.admin.execute(
                    SQL("ALTER DATABASE {} RENAME TO {}").format(Identifier(unfinished), Identifier(name))
                )
        finally:
            self.admin.execute("SELECT pg_advisory_unlock(hashtext(%s))", [name])

    def _has(self, database: str) -> bool:
        found = self.admin.execute("SELECT FROM pg_database WHERE datname = %s", [database])
        return found.fetchone() is not None


def _migrate(dsn: str) -> None:
    async def migrate() -> None:
        store = Store(dsn)
        await store.open(migrate=True)
        await store.close()

    with ThreadPoolExecutor(1) as thread:  # a loop of its own, whatever the test's loop does
        thread.submit(asyncio.run, migrate()).result()


def start(base: Path, major: int) -> Server:
    """Start the session's server of this version, or join the one that another process of the session started.

    `base` is the folder of the session, in which the session removes `postgresql-*` when it ends.
    """
    return Server(major, acquire(base / f"postgresql-{major}", bin_dir=binaries(major), grace=timedelta(seconds=1)))
