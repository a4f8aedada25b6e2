"""Connections that are lent to runs for their own writes, each in a transaction: some for loops, some for threads."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager

import psycopg
from psycopg.rows import tuple_row

from piecework.base.errors import DatabaseUnreachable
from piecework.store.connection import WIRE, AsyncConnection, Connection, Pins, Wire, transaction_pins, translated
from piecework.store.connections import Connections


class Lending:
    """At most `most` asynchronous connections and as many blocking ones, opened when needed and kept open.

    They are others than the `Connections` of the application's side: who holds one of these may ask for one of those,
    and never the other way round (invariant H).

    Args:
        dsn: where to, complete.
        pins: of the transactions that are lent.
        most: how many of each at once.
        revive: called in a thread when the server cannot be reached, before one further try.
        wire: opens them.
    """

    def __init__(
        self, dsn: str, pins: Pins, most: int, revive: Callable[[], object] | None = None, wire: Wire = WIRE
    ) -> None:
        self._dsn = dsn
        self._pins = pins
        self._connections = Connections(dsn, pins, most, revive, wire)
        self._revive = revive
        self._wire = wire
        self._room = threading.Semaphore(most)
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._closed = False

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncConnection]:
        """Lend a connection in a transaction, which is committed on return, or rolled back if an error is raised.

        Raises:
            DatabaseUnreachable, DatabaseError: it cannot be opened. What is wrong later is the driver's own error.
        """
        async with AsyncExitStack() as stack:
            yield await self._begun(stack)

    async def _begun(self, stack: AsyncExitStack) -> AsyncConnection:
        """Begin a transaction; on a new connection when an idle one was found dead."""
        for last in (False, True):
            try:
                async with AsyncExitStack() as attempt:
                    conn = await attempt.enter_async_context(self._connections.take())
                    conn.cursor_factory, conn.row_factory = psycopg.AsyncCursor, tuple_row
                    with translated(self._dsn):
                        await attempt.enter_async_context(conn.transaction())
                        if (pins := transaction_pins(conn)) is not None:
                            await conn.execute(pins)
                    stack.push_async_exit(attempt.pop_all())
                    return conn
            except DatabaseUnreachable:
                if last:
                    raise
                await self._connections.forget_idle()
        raise AssertionError("unreachable")

    @contextmanager
    def transaction_sync(self) -> Generator[Connection]:
        """Lend a blocking connection, as `transaction` does, to any thread."""
        with self._room, ExitStack() as stack:
            yield self._begun_sync(stack)

    def _begun_sync(self, stack: ExitStack) -> Connection:
        for last in (False, True):
            try:
                with ExitStack() as attempt:
                    conn = attempt.enter_context(self._taken())
                    conn.cursor_factory, conn.row_factory = psycopg.Cursor, tuple_row
                    with translated(self._dsn):
                        attempt.enter_context(conn.transaction())
                        if (pins := transaction_pins(conn)) is not None:
                            conn.execute(pins)
                    stack.push(attempt.pop_all())
                    return conn
            except DatabaseUnreachable:
                if last:
                    raise
                self._forget_idle()
        raise AssertionError("unreachable")

    @contextmanager
    def _taken(self) -> Generator[Connection]:
        with self._lock:
            conn = self._idle.pop() if self._idle else None
        if conn is None:
            conn = self._open()
        try:
            yield conn
        finally:
            if self._closed or conn.info.transaction_status != 0:
                conn.close()
            with self._lock:
                if not conn.closed:
                    self._idle.append(conn)

    def _open(self) -> Connection:
        try:
            return self._wire.connect_sync(self._dsn, self._pins)
        except DatabaseUnreachable:
            if self._revive is None:
                raise
            self._revive()
            return self._wire.connect_sync(self._dsn, self._pins)

    def _forget_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for conn in idle:
            conn.close()

    async def close(self) -> None:
        """Close the idle connections now, lent ones when they come back."""
        self._closed = True
        self._forget_idle()
        await self._connections.close()
