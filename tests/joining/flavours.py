"""The connections that can be joined: each opened by its own driver, and driven alike.

A flavour is a generator function: it opens a connection on `dsn`, with a transaction to join unless `autocommit`, and
yields it with what ends that transaction. It leaves nothing open.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import pg8000.dbapi
import pg8000.legacy
import psycopg
import psycopg2
import psycopg2.extras
import psycopg_pool
import sqlalchemy
import sqlmodel
import sqlmodel.ext.asyncio.session
from joining import django_project
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row, namedtuple_row
from sqlalchemy.ext import asyncio as sa_asyncio
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from piecework import JobHandle, JobHandles, Jobs, JobSpawner, JobSpec
from piecework.store.joining import joined, joined_sync
from piecework.store.statements import Statements


@dataclass
class Opened:
    """A connection to give as `conn`, and what its driver does besides."""

    conn: Any
    commit: Callable[[], Any]
    rollback: Callable[[], Any]
    execute: Callable[[str], Any]


@dataclass(frozen=True)
class Flavour:
    """One kind of connection."""

    name: str
    make: Callable[..., Any]
    args: tuple[Any, ...] = ()

    @property
    def blocking(self) -> bool:
        return not inspect.isasyncgenfunction(self.make)

    @contextmanager
    def open(self, dsn: str, *, autocommit: bool = False) -> Iterator[Session]:
        """Open the connection; a transaction that is still open at the end is rolled back."""
        with asyncio.Runner() as runner:

            def done(outcome: Any) -> Any:
                return runner.run(outcome) if inspect.iscoroutine(outcome) else outcome

            if self.blocking:
                with contextmanager(self.make)(dsn, autocommit, *self.args) as opened:
                    yield Session(opened, self.blocking, done)
            else:
                manager = asynccontextmanager(self.make)(dsn, autocommit, *self.args)
                opened = runner.run(manager.__aenter__())
                try:
                    yield Session(opened, self.blocking, done)
                finally:
                    runner.run(manager.__aexit__(None, None, None))


class Session:
    """An open connection: async or not, its calls are made alike."""

    def __init__(self, opened: Opened, blocking: bool, done: Callable[[Any], Any]) -> None:
        self.conn = opened.conn
        self._opened, self._blocking, self._done = opened, blocking, done

    def spawn(self, spawner: JobSpawner[..., Any], *args: Any) -> JobHandle[Any]:
        mine = spawner.options(conn=self.conn)
        return self._done(mine.spawn_sync(*args) if self._blocking else awaited(mine.spawn(*args)))

    def spawn_all(self, jobs: Jobs, specs: Iterable[JobSpec[Any]]) -> JobHandles[Any]:
        if self._blocking:
            return jobs.spawn_all_sync(specs, conn=self.conn)
        return self._done(jobs.spawn_all(specs, conn=self.conn))

    def run(self, statements: Statements, statement: str, payload: str) -> str | None:
        """Run a statement of the store as every verb does."""
        if self._blocking:
            return joined_sync(self.conn, statements, statement, payload)
        return self._done(joined(self.conn, statements, statement, payload))

    def cancel(self, handle: Any) -> bool:
        """Cancel a job, or several, in the open transaction."""
        return self._done((handle.cancel_sync if self._blocking else handle.cancel)(conn=self.conn))

    def spawn_otherwise(self, spawner: JobSpawner[..., Any], *args: Any) -> None:
        """Make the call that is for connections of the other kind."""
        mine = spawner.options(conn=self.conn)
        self._done(mine.spawn(*args) if self._blocking else mine.spawn_sync(*args))

    def execute(self, sql: str) -> None:
        self._done(awaited(self._opened.execute(sql)))

    def close(self) -> None:
        self._done(awaited(self.conn.close()))

    def commit(self) -> None:
        self._done(awaited(self._opened.commit()))

    def rollback(self) -> None:
        self._done(awaited(self._opened.rollback()))


def awaited(outcome: Any) -> Any:
    """Make a coroutine of whatever can be awaited."""
    if not inspect.isawaitable(outcome):
        return outcome

    async def wait() -> Any:
        return await outcome

    return wait()


def where(dsn: str) -> dict[str, Any]:
    """The parts of a DSN, as asyncpg, psycopg2 and Django call them."""
    parts = conninfo_to_dict(dsn)
    port = int(parts["port"] or 5432)
    return {"host": parts["host"], "port": port, "user": parts["user"], "database": parts["dbname"]}


def pg8000_place(dsn: str) -> dict[str, Any]:
    place = where(dsn)
    place["unix_sock"] = f"{place.pop('host')}/.s.PGSQL.{place.pop('port')}"
    return place


# psycopg


def psycopg_connection(dsn: str, autocommit: bool, settings: dict[str, Any]) -> Generator[Opened]:
    with psycopg.connect(dsn, autocommit=autocommit, **settings) as conn:
        yield Opened(conn, conn.commit, conn.rollback, conn.execute)
        if not conn.closed:
            conn.rollback()


def psycopg_cursor(dsn: str, autocommit: bool, name: str) -> Generator[Opened]:
    with psycopg.connect(dsn, autocommit=autocommit) as conn:
        with conn.cursor(name) as cursor:
            yield Opened(cursor, conn.commit, conn.rollback, conn.execute)
        if not conn.closed:
            conn.rollback()


def psycopg_transaction(dsn: str, autocommit: bool, pipeline: bool) -> Generator[Opened]:
    """In autocommit mode, where a transaction is what `conn.transaction()` makes."""
    with psycopg.connect(dsn, autocommit=True) as conn, ExitStack() as stack:
        if pipeline:
            stack.enter_context(conn.pipeline())
        transaction = ExitStack()
        if not autocommit:
            transaction.enter_context(conn.transaction())
        yield Opened(conn, transaction.close, lambda: leave(transaction), conn.execute)
        leave(transaction)


def leave(stack: ExitStack) -> None:
    stack.__exit__(psycopg.Rollback, psycopg.Rollback(), None)


def psycopg_pooled(dsn: str, autocommit: bool) -> Generator[Opened]:
    with (
        psycopg_pool.ConnectionPool(dsn, min_size=1, max_size=1, kwargs={"autocommit": autocommit}) as pool,
        pool.connection() as conn,
    ):
        yield Opened(conn, conn.commit, conn.rollback, conn.execute)
        if not conn.closed:
            conn.rollback()


async def psycopg_async_connection(dsn: str, autocommit: bool, settings: dict[str, Any]) -> AsyncGenerator[Opened]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=autocommit, **settings) as conn:
        yield Opened(conn, conn.commit, conn.rollback, conn.execute)
        if not conn.closed:
            await conn.rollback()


async def psycopg_async_cursor(dsn: str, autocommit: bool) -> AsyncGenerator[Opened]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=autocommit) as conn:
        yield Opened(conn.cursor(row_factory=dict_row), conn.commit, conn.rollback, conn.execute)
        if not conn.closed:
            await conn.rollback()


async def psycopg_async_transaction(dsn: str, autocommit: bool, pipeline: bool) -> AsyncGenerator[Opened]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn, AsyncExitStack() as stack:
        if pipeline:
            await stack.enter_async_context(conn.pipeline())
        if not autocommit:
            await conn.execute("BEGIN")  # of one's own making
        yield Opened(conn, conn.commit, conn.rollback, conn.execute)
        if not conn.closed:
            await conn.rollback()


async def psycopg_async_pooled(dsn: str, autocommit: bool) -> AsyncGenerator[Opened]:
    async with (
        psycopg_pool.AsyncConnectionPool(
            dsn, min_size=1, max_size=1, kwargs={"autocommit": autocommit}, open=False
        ) as pool,
        pool.connection() as conn,
    ):
        yield Opened(conn, conn.commit, conn.rollback, conn.execute)
        if not conn.closed:
            await conn.rollback()


# asyncpg


async def asyncpg_connection(dsn: str, autocommit: bool) -> AsyncGenerator[Opened]:
    conn = await asyncpg.connect(**where(dsn))
    try:
        async with asyncpg_transaction(conn, autocommit) as opened:
            yield opened
    finally:
        await conn.close()


async def asyncpg_pooled(dsn: str, autocommit: bool) -> AsyncGenerator[Opened]:
    async with (
        asyncpg.create_pool(**where(dsn), min_size=1, max_size=1) as pool,
        pool.acquire() as conn,
        asyncpg_transaction(conn, autocommit) as opened,
    ):
        yield opened


@asynccontextmanager
async def asyncpg_transaction(conn: Any, autocommit: bool) -> AsyncGenerator[Opened]:
    transaction = conn.transaction()
    if not autocommit:
        await transaction.start()
    yield Opened(conn, transaction.commit, transaction.rollback, conn.execute)
    if not conn.is_closed() and conn.is_in_transaction():
        await transaction.rollback()


# psycopg2, pg8000


def psycopg2_connection(dsn: str, autocommit: bool, settings: dict[str, Any], as_cursor: bool) -> Generator[Opened]:
    conn = psycopg2.connect(dsn, **settings)
    try:
        conn.autocommit = autocommit
        given = conn.cursor() if as_cursor else conn
        yield Opened(given, conn.commit, conn.rollback, lambda sql: conn.cursor().execute(sql))
    finally:
        conn.close()


def pg8000_connection(dsn: str, autocommit: bool, driver: Any, as_cursor: bool) -> Generator[Opened]:
    conn = driver.connect(**pg8000_place(dsn))
    try:
        conn.autocommit = autocommit
        given = conn.cursor() if as_cursor else conn
        yield Opened(given, conn.commit, conn.rollback, lambda sql: conn.cursor().execute(sql))
    finally:
        with suppress(pg8000.Error, OSError):  # a lost one cannot be closed
            conn.close()


# SQLAlchemy, SQLModel


def engine_settings(driver: str, dsn: str, autocommit: bool) -> dict[str, Any]:
    place = where(dsn) if driver in ("asyncpg", "psycopg2") else pg8000_place(dsn) if driver == "pg8000" else {}
    if driver == "psycopg":
        place = where(dsn)
        place["dbname"] = place.pop("database")
    settings = {"url": f"postgresql+{driver}://", "connect_args": place, "poolclass": NullPool}
    return {**settings, "isolation_level": "AUTOCOMMIT"} if autocommit else settings


def alchemy_connection(dsn: str, autocommit: bool, driver: str) -> Generator[Opened]:
    engine = sqlalchemy.create_engine(**engine_settings(driver, dsn, autocommit))
    with engine.connect() as conn:
        yield Opened(conn, conn.commit, conn.rollback, conn.exec_driver_sql)
    engine.dispose()


def alchemy_option(dsn: str, autocommit: bool) -> Generator[Opened]:
    """The isolation level set on the connection, not the engine."""
    engine = sqlalchemy.create_engine(**engine_settings("psycopg2", dsn, autocommit=False))
    with engine.connect() as conn:
        level = "AUTOCOMMIT" if autocommit else "READ COMMITTED"
        conn.execution_options(isolation_level=level)
        yield Opened(conn, conn.commit, conn.rollback, conn.exec_driver_sql)
    engine.dispose()


def alchemy_session(dsn: str, autocommit: bool, driver: str, cls: Any) -> Generator[Opened]:
    engine = sqlalchemy.create_engine(**engine_settings(driver, dsn, autocommit))
    with cls(engine) as session:
        yield Opened(session, session.commit, session.rollback, lambda sql: session.connection().exec_driver_sql(sql))
    engine.dispose()


def alchemy_scoped(dsn: str, autocommit: bool) -> Generator[Opened]:
    engine = sqlalchemy.create_engine(**engine_settings("psycopg", dsn, autocommit))
    scoped = scoped_session(sessionmaker(engine))
    yield Opened(scoped, scoped.commit, scoped.rollback, lambda sql: scoped.connection().exec_driver_sql(sql))
    scoped.remove()
    engine.dispose()


async def alchemy_async_connection(dsn: str, autocommit: bool, driver: str) -> AsyncGenerator[Opened]:
    engine = sa_asyncio.create_async_engine(**engine_settings(driver, dsn, autocommit))
    async with engine.connect() as conn:
        yield Opened(conn, conn.commit, conn.rollback, conn.exec_driver_sql)
    await engine.dispose()


async def alchemy_async_session(dsn: str, autocommit: bool, driver: str, cls: Any) -> AsyncGenerator[Opened]:
    engine = sa_asyncio.create_async_engine(**engine_settings(driver, dsn, autocommit))
    async with cls(engine) as session:

        async def execute(sql: str) -> None:
            await (await session.connection()).exec_driver_sql(sql)

        yield Opened(session, session.commit, session.rollback, execute)
    await engine.dispose()


async def alchemy_async_scoped(dsn: str, autocommit: bool) -> AsyncGenerator[Opened]:
    engine = sa_asyncio.create_async_engine(**engine_settings("asyncpg", dsn, autocommit))
    scoped = sa_asyncio.async_scoped_session(sa_asyncio.async_sessionmaker(engine), scopefunc=lambda: 1)

    async def execute(sql: str) -> None:
        await (await scoped.connection()).exec_driver_sql(sql)

    yield Opened(scoped, scoped.commit, scoped.rollback, execute)
    await scoped.remove()
    await engine.dispose()


# Django


def django_connection(dsn: str, autocommit: bool, pick: Callable[[], Any]) -> Generator[Opened]:
    with django_project.database(where(dsn)), ExitStack() as atomic:
        if not autocommit:
            atomic.enter_context(django_project.atomic())
        yield Opened(pick(), atomic.close, lambda: django_project.roll_back(atomic), django_project.execute)
        django_project.roll_back(atomic)


def django_without_autocommit(dsn: str, autocommit: bool) -> Generator[Opened]:
    """AUTOCOMMIT = False in its settings: Django leaves transactions to the application."""
    with django_project.database(where(dsn), AUTOCOMMIT=autocommit):
        conn = django_project.wrapper()
        yield Opened(conn, conn.commit, conn.rollback, django_project.execute)
        if not autocommit:
            conn.rollback()


FLAVOURS = [
    Flavour("psycopg", psycopg_connection, ({},)),
    Flavour("psycopg-dict-rows", psycopg_connection, ({"row_factory": dict_row, "prepare_threshold": 0},)),
    Flavour("psycopg-raw-cursors", psycopg_connection, ({"cursor_factory": psycopg.RawCursor},)),
    Flavour("psycopg-client-cursors", psycopg_connection,
            ({"cursor_factory": psycopg.ClientCursor, "prepare_threshold": None, "row_factory": namedtuple_row},)),
    Flavour("psycopg-cursor", psycopg_cursor, ("",)),
    Flavour("psycopg-server-cursor", psycopg_cursor, ("named",)),
    Flavour("psycopg-transaction", psycopg_transaction, (False,)),
    Flavour("psycopg-pipeline", psycopg_transaction, (True,)),
    Flavour("psycopg-pool", psycopg_pooled),
    Flavour("psycopg-async", psycopg_async_connection, ({},)),
    Flavour("psycopg-async-dict-rows", psycopg_async_connection, ({"row_factory": dict_row},)),
    Flavour("psycopg-async-raw-cursors", psycopg_async_connection, ({"cursor_factory": psycopg.AsyncRawCursor},)),
    Flavour("psycopg-async-cursor", psycopg_async_cursor),
    Flavour("psycopg-async-begin", psycopg_async_transaction, (False,)),
    Flavour("psycopg-async-pipeline", psycopg_async_transaction, (True,)),
    Flavour("psycopg-async-pool", psycopg_async_pooled),
    Flavour("asyncpg", asyncpg_connection),
    Flavour("asyncpg-pool", asyncpg_pooled),
    Flavour("psycopg2", psycopg2_connection, ({}, False)),
    Flavour("psycopg2-dict-rows", psycopg2_connection, ({"cursor_factory": psycopg2.extras.RealDictCursor}, False)),
    Flavour("psycopg2-cursor", psycopg2_connection, ({}, True)),
    Flavour("pg8000", pg8000_connection, (pg8000.dbapi, False)),
    Flavour("pg8000-cursor", pg8000_connection, (pg8000.dbapi, True)),
    Flavour("pg8000-legacy", pg8000_connection, (pg8000.legacy, False)),
    *(Flavour(f"sqlalchemy-{driver}", alchemy_connection, (driver,)) for driver in ("psycopg", "psycopg2", "pg8000")),
    Flavour("sqlalchemy-option", alchemy_option),
    *(
        Flavour(f"session-{driver}", alchemy_session, (driver, OrmSession))
        for driver in ("psycopg", "psycopg2", "pg8000")
    ),
    Flavour("scoped-session", alchemy_scoped),
    Flavour("sqlmodel-psycopg", alchemy_session, ("psycopg", sqlmodel.Session)),
    Flavour("sqlmodel-psycopg2", alchemy_session, ("psycopg2", sqlmodel.Session)),
    *(Flavour(f"sqlalchemy-async-{driver}", alchemy_async_connection, (driver,)) for driver in ("psycopg", "asyncpg")),
    *(
        Flavour(f"async-session-{driver}", alchemy_async_session, (driver, sa_asyncio.AsyncSession))
        for driver in ("psycopg", "asyncpg")
    ),
    Flavour("async-scoped-session", alchemy_async_scoped),
    Flavour("sqlmodel-async", alchemy_async_session, ("asyncpg", sqlmodel.ext.asyncio.session.AsyncSession)),
    Flavour("django", django_connection, (django_project.proxy,)),
    Flavour("django-wrapper", django_connection, (django_project.wrapper,)),
    Flavour("django-no-autocommit", django_without_autocommit),
]  # fmt: skip

# One for each way in which a driver speaks to the server and tells of its errors.
DRIVERS = [
    each
    for each in FLAVOURS
    if each.name
    in (
        "psycopg", "psycopg-async", "asyncpg", "psycopg2", "pg8000", "sqlalchemy-pg8000", "session-psycopg2",
        "sqlalchemy-async-psycopg", "async-session-asyncpg", "django",
    )
]  # fmt: skip
assert len(DRIVERS) == 10
