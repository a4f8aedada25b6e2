"""Which connections can be joined: known by the names of their classes, so that no driver need be imported."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from piecework.store import drivers, frameworks
from piecework.store.drivers import Sql

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Driver:
    """How a kind of connection runs a statement with one text parameter, and answers its one value."""

    blocking: Callable[[object, Sql, str], object] | None = None
    awaited: Callable[[object, Sql, str], Awaitable[object]] | None = None
    instead: str = ""
    """What to give instead of an object that is no connection, but leads to some."""


def _cursor_of(run: Callable[[object, Sql, str], T], attribute: str = "connection") -> Callable[[object, Sql, str], T]:
    """Let a cursor stand for its connection; what it has fetched is left alone."""
    return lambda cursor, sql, payload: run(cast("object", getattr(cursor, attribute)), sql, payload)


_KNOWN: Mapping[tuple[str, str], Driver] = {
    ("psycopg", "AsyncConnection"): Driver(awaited=drivers.run_psycopg_async),
    ("psycopg", "AsyncCursor"): Driver(awaited=_cursor_of(drivers.run_psycopg_async)),
    ("psycopg", "Connection"): Driver(drivers.run_psycopg),
    ("psycopg", "Cursor"): Driver(_cursor_of(drivers.run_psycopg)),
    ("asyncpg", "Connection"): Driver(awaited=drivers.run_asyncpg),
    ("asyncpg", "PoolConnectionProxy"): Driver(awaited=drivers.run_asyncpg),
    ("psycopg2", "connection"): Driver(drivers.run_psycopg2),
    ("psycopg2", "cursor"): Driver(_cursor_of(drivers.run_psycopg2)),
    ("pg8000.dbapi", "Connection"): Driver(drivers.run_pg8000),
    ("pg8000.dbapi", "Cursor"): Driver(_cursor_of(drivers.run_pg8000, "_c")),  # its `connection` warns
    ("pg8000.legacy", "Connection"): Driver(drivers.run_pg8000),
    ("pg8000.legacy", "Cursor"): Driver(_cursor_of(drivers.run_pg8000, "_c")),
    ("sqlalchemy.engine", "Connection"): Driver(frameworks.run_alchemy),
    ("sqlalchemy.orm", "Session"): Driver(frameworks.run_alchemy_session),
    ("sqlalchemy.orm", "scoped_session"): Driver(frameworks.run_alchemy_scoped),
    ("sqlalchemy.ext", "AsyncConnection"): Driver(awaited=frameworks.run_alchemy_async),
    ("sqlalchemy.ext", "AsyncSession"): Driver(awaited=frameworks.run_alchemy_async_session),
    ("sqlalchemy.ext", "async_scoped_session"): Driver(awaited=frameworks.run_alchemy_async_scoped),
    ("django", "BaseDatabaseWrapper"): Driver(frameworks.run_django),
    ("psycopg_pool", "ConnectionPool"): Driver(instead="`with pool.connection() as conn:` and give `conn`"),
    ("psycopg_pool", "AsyncConnectionPool"): Driver(instead="`async with pool.connection() as conn:` and give `conn`"),
    ("asyncpg", "Pool"): Driver(instead="`async with pool.acquire() as conn, conn.transaction():` and give `conn`"),
    ("sqlalchemy.engine", "Engine"): Driver(instead="`with engine.begin() as conn:` and give `conn`"),
    ("sqlalchemy.ext", "AsyncEngine"): Driver(instead="`async with engine.begin() as conn:` and give `conn`"),
    ("sqlalchemy.orm", "sessionmaker"): Driver(instead="`with maker.begin() as session:` and give `session`"),
    ("sqlalchemy.ext", "async_sessionmaker"): Driver(
        instead="`async with maker.begin() as session:` and give `session`"
    ),
    ("pg8000", "CoreConnection"): Driver(instead="`pg8000.dbapi.connect(…)`, whose connections have transactions"),
}


def find(conn: object) -> tuple[object, Driver] | None:
    """Return how `conn` runs a statement, and the object behind it if it is a proxy; None for anything unknown."""
    conn = _behind(conn)
    for cls in (*type(conn).__mro__, *_claimed_classes(conn)):
        for parts in (1, 2):
            folder = ".".join(str(cls.__module__).split(".")[:parts])
            if (driver := _KNOWN.get((folder, cls.__name__))) is not None:
                return conn, driver
    return None


def _behind(conn: object) -> object:
    """Return the connection of this thread that Django's `connection` stands for; anything else as it is."""
    if type(conn).__module__ != "django.utils.connection":
        return conn
    inside = cast("Mapping[str, object]", vars(conn))
    return cast("Mapping[object, object]", inside["_connections"])[inside["_alias"]]


def _claimed_classes(conn: object) -> Sequence[type]:
    """Return the classes that a transparent proxy, such as those of tracers, says it is of."""
    try:
        return conn.__class__.__mro__
    except Exception:  # a proxy outside of the scope that it stands for
        return ()
