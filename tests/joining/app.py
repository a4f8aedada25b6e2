"""Jobs that are not open: what joins a transaction needs a connection of the caller's and nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from piecework import Jobs


class App:
    """A `Jobs` with one job function, and an onlooker that sees what was committed."""

    def __init__(self, dsn: str, schema: str, onlooker: psycopg.Connection) -> None:
        self.dsn = dsn
        self.jobs = Jobs(dsn, schema=schema)
        self._schema = schema
        self._onlooker = onlooker

        @self.jobs.job(queue="mail")
        async def greet(name: str) -> str:
            return f"Hello {name}"

        self.greet = greet

    def clear(self) -> None:
        """Remove the jobs that other tests left."""
        self._onlooker.execute(SQL("DELETE FROM {}.jobs").format(Identifier(self._schema)))

    def terminate(self, name: str) -> None:
        """End the back end of the session that calls itself so, and wait until it has gone."""
        self._onlooker.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = %s", [name]
        )

    @contextmanager
    def powerless(self) -> Iterator[str]:
        """A role that may do nothing here."""
        role = f"powerless_{uuid4().hex}"
        self._onlooker.execute(SQL("CREATE ROLE {}").format(Identifier(role)))
        yield role
        self._onlooker.execute(SQL("DROP ROLE {}").format(Identifier(role)))

    def wait_until_one_waits(self) -> None:
        """Wait until a session of this database waits for a lock."""
        waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        deadline = time.monotonic() + 30
        while self._onlooker.execute(waiting).fetchone() is None:
            assert time.monotonic() < deadline, "nobody waits for a lock"
            time.sleep(0.01)

    def stored(self) -> dict[UUID, Any]:
        """Return the committed jobs: id to the name in their config."""
        statement = SQL("SELECT id, config->>'name' FROM {}.jobs").format(Identifier(self._schema))
        return dict(self._onlooker.execute(statement).fetchall())


@contextmanager
def open_app(dsn: str, schema: str = "piecework") -> Iterator[App]:
    """The onlooker's encoding is its own, whatever the database's default."""
    with psycopg.connect(make_conninfo(dsn, client_encoding="UTF8"), autocommit=True) as onlooker:
        yield App(dsn, schema, onlooker)
