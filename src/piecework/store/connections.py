"""The few connections of the application's side: opened when needed, bound to one loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Protocol, cast

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo
from psycopg.rows import tuple_row

from piecework.base.errors import ConfigurationError, DatabaseUnreachable
from piecework.base.threads import in_thread
from piecework.store.connection import WIRE, AsyncConnection, Pins, Wire, translated
from piecework.store.dsn import describe


class Connections:
    """At most `most` connections, handed out one at a time and kept open.

    Nothing that holds one asks for a second, so waiting for one cannot deadlock (invariant H).

    Args:
        dsn: where to, complete.
        pins: of the statements that will run.
        most: how many at once.
        revive: called in a thread when the server cannot be reached, before one further try: how the embedded server
            comes back.
        wire: opens them.
    """

    def __init__(
        self, dsn: str, pins: Pins, most: int, revive: Callable[[], object] | None = None, wire: Wire = WIRE
    ) -> None:
        self._dsn = dsn
        self._pins = pins
        self._room = asyncio.Semaphore(most)
        self._idle: list[AsyncConnection] = []
        self._revive = revive
        self._wire = wire
        self._closed = False

    def take(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Lend a connection in autocommit mode. A broken one is thrown away on return."""
        return _Loan(self._lend, self._take_back)

    async def _lend(self) -> AsyncConnection:
        await self._room.acquire()
        try:
            return self._idle.pop() if self._idle else await self._open()
        except BaseException:
            self._room.release()
            raise

    async def _take_back(self, conn: AsyncConnection, failed: bool) -> None:
        try:
            if self._closed or (failed and not conn.closed and conn.info.transaction_status != 0):
                await conn.close()
        finally:
            if not conn.closed:
                self._idle.append(conn)
            self._room.release()

    async def _open(self) -> AsyncConnection:
        try:
            return await self._wire.connect(self._dsn, self._pins)
        except DatabaseUnreachable:
            if self._revive is None:
                raise
            await in_thread("embedded-postgres", self._revive)
            return await self._wire.connect(self._dsn, self._pins)

    async def forget_idle(self) -> None:
        """Close the idle connections: after one broke, the others are likely to be dead as well."""
        while self._idle:
            await self._idle.pop().close()

    async def close(self) -> None:
        """Close the idle connections now, lent ones when they come back."""
        self._closed = True
        await self.forget_idle()


class _Loan(AbstractAsyncContextManager[AsyncConnection]):
    """What `@asynccontextmanager` would make, at a third of the cost: each spawn takes a connection."""

    __slots__ = ("_conn", "_lend", "_take_back")

    def __init__(
        self,
        lend: Callable[[], Awaitable[AsyncConnection]],
        take_back: Callable[[AsyncConnection, bool], Awaitable[None]],
    ) -> None:
        self._lend = lend
        self._take_back = take_back

    async def __aenter__(self) -> AsyncConnection:
        self._conn = await self._lend()
        return self._conn

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._take_back(self._conn, error is not None)


class AsyncPool(Protocol):
    """psycopg_pool's `AsyncConnectionPool`."""

    @property
    def closed(self) -> bool:
        """Whether it lends nothing: not open yet, or not any more."""
        ...

    def connection(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection[object]]:
        """Lend a connection."""
        ...

    async def open(self) -> None:
        """Open it on the running loop."""

    async def close(self) -> None:
        """Close it, and the connections in it."""

    async def check(self) -> None:
        """Throw away the connections that are broken."""


class NoneFree(DatabaseUnreachable):
    """The pool has lent no connection within its timeout."""


class PooledConnections:
    """The application's own pool in the place of `Connections`.

    A connection is lent for one transaction, with the modes that piecework rests on, and goes back as it was found.

    Args:
        pool: open.
        dsn: where it leads to, for messages.
        transaction: the statement that pins a transaction's settings.
    """

    def __init__(self, pool: AsyncPool, dsn: str, transaction: bytes) -> None:
        self._pool = pool
        self._dsn = dsn
        self._transaction = transaction

    @asynccontextmanager
    async def take(self) -> AsyncGenerator[AsyncConnection]:
        """Lend a connection in a transaction, which is committed on return, or rolled back if an error is raised."""
        from psycopg_pool import PoolTimeout, TooManyRequests  # whoever has a pool has its package

        with translated(self._dsn):
            try:
                async with self._pool.connection() as conn, _as_ours(conn) as ours, ours.transaction():
                    await ours.execute(self._transaction)
                    yield ours
            except (PoolTimeout, TooManyRequests) as error:
                raise NoneFree(
                    f"the pool has lent no connection to PostgreSQL at {describe(self._dsn)}: {error}. Is the server "
                    "running? Or is the pool too small, or are its connections held while something is spawned?"
                ) from error

    async def forget_idle(self) -> None:
        """Throw away the idle connections that are dead."""
        await self._pool.check()

    async def close(self) -> None:
        """Leave the pool to the application."""


@asynccontextmanager
async def _as_ours(conn: psycopg.AsyncConnection[object]) -> AsyncGenerator[AsyncConnection]:
    """Lend a connection of the application's with piecework's modes: cursors, rows, and those of a transaction."""
    ours = cast(AsyncConnection, conn)
    cursors, rows = ours.cursor_factory, ours.row_factory
    isolation, read_only = ours.isolation_level, ours.read_only
    await ours.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
    await ours.set_read_only(False)
    ours.cursor_factory, ours.row_factory = psycopg.AsyncRawCursor, tuple_row
    try:
        yield ours
    finally:
        ours.cursor_factory, ours.row_factory = cursors, rows
        if not ours.closed:
            await ours.set_isolation_level(isolation)
            await ours.set_read_only(read_only)


def refuse_other_pools(pool: object) -> None:
    """Refuse what is no pool.

    Raises:
        ConfigurationError
    """
    names = [f"{each.__module__.partition('.')[0]}.{each.__name__}" for each in type(pool).__mro__]
    if "psycopg_pool.AsyncConnectionPool" not in names:
        raise ConfigurationError(
            f"Jobs(pool={pool!r}) takes a psycopg_pool.AsyncConnectionPool; for anything else give the database's DSN"
        )


async def open_pool(pool: AsyncPool) -> None:
    """Open a pool that was not open yet.

    Raises:
        ConfigurationError: it was closed before.
    """
    try:
        await pool.open()
    except psycopg.OperationalError as error:
        raise ConfigurationError(
            f"Jobs(pool={pool!r}): the pool was closed before, and a pool opens once: give an open one, or make it anew"
        ) from error


async def conninfo_of(pool: AsyncPool) -> str:
    """Return the connection string that leads where the pool's connections lead."""
    conninfo = await _resolved(getattr(pool, "conninfo", ""))
    kwargs = cast("Mapping[str, object]", await _resolved(getattr(pool, "kwargs", None)) or {})
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    return make_conninfo(str(conninfo or ""), **{name: str(kwargs[name]) for name in known & set(kwargs)})


async def _resolved(given: object) -> object:
    """Return what a pool was given, or what that returns where it is a function."""
    value = given() if callable(given) else given
    return await value if inspect.isawaitable(value) else value
