"""Connections to the database in memory, with as much of psycopg's as piecework uses. Every statement runs at once."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple, cast

import psycopg

from piecework.store.connection import AsyncConnection, Connection, Pins, Wire
from piecework.store.statements import Statements
from piecework.testing.memory.database import Database
from piecework.testing.memory.rows import Transaction
from piecework.testing.memory.statements import STATEMENTS, Rows


class _Notice(NamedTuple):
    payload: str


class _Info(NamedTuple):
    transaction_status: psycopg.pq.TransactionStatus
    backend_pid: int = 0


class MemoryServer(Wire):
    """Stands for a server, and for the way to it. Used from any thread.

    Args:
        schema: of the `Jobs` that it is for.
    """

    def __init__(self, schema: str = "piecework") -> None:
        self.database = Database()
        statements = Statements(schema)
        self.names = {statements.sql(name): name for name in STATEMENTS}
        self.listen = b"LISTEN " + statements.channel.encode()
        self.lock = threading.RLock()

    async def connect(self, dsn: str, pins: Pins | None) -> AsyncConnection:
        """Open a connection for an event loop."""
        return cast("AsyncConnection", _AsyncConnection(self))

    def connect_sync(self, dsn: str, pins: Pins) -> Connection:
        """Open a connection for a thread."""
        return cast("Connection", _BlockingConnection(self))

    def sever(self, conn: AsyncConnection | Connection) -> None:
        """Close a connection."""
        cast("_Session", conn).end()


class _Session:
    """What both kinds of connections are made of: one statement after the other, in transactions."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._txn: Transaction | None = None
        self._failed = False
        self.closed = False
        self.cursor_factory: object = None
        self.row_factory: object = None

    @property
    def info(self) -> _Info:
        status = psycopg.pq.TransactionStatus
        return _Info(status.IDLE if self._txn is None else status.INERROR if self._failed else status.INTRANS)

    def end(self) -> None:
        with self._server.lock:
            self.closed = True
            if self._txn is not None:
                self._server.database.abort(self._txn)
                self._txn = None

    def begin(self) -> None:
        if self._txn is not None:
            raise psycopg.NotSupportedError("the database in memory has no savepoints")
        self._txn = self._server.database.begin()

    def over(self, *, commit: bool) -> None:
        """End the transaction."""
        with self._server.lock:
            txn, self._txn = self._txn, None
            failed, self._failed = self._failed, False
            if txn is not None:
                (self._server.database.commit if commit and not failed else self._server.database.abort)(txn)

    def run(self, sql: bytes | str, params: Sequence[Any] = ()) -> Rows:
        """Run a statement, in a transaction of its own unless one was begun."""
        text = sql.encode() if isinstance(sql, str) else sql
        name = self._server.names.get(text)
        if self.closed:
            raise psycopg.OperationalError("the connection is closed")
        if text in (b"SELECT 1", self._server.listen):
            return [(1,)]
        if name is None:
            raise psycopg.NotSupportedError(
                f"the database in memory does not know this statement, test it with PostgreSQL: {text.decode()[:200]}"
            )
        with self._server.lock:
            database = self._server.database
            txn = database.begin() if self._txn is None else self._txn
            try:
                rows = _run(STATEMENTS[name](database, txn, *params))
            except BaseException:
                if self._txn is None:
                    database.abort(txn)
                self._failed = self._txn is not None
                raise
            if self._txn is None:
                database.commit(txn)
            return rows


def _run(steps: Generator[Any, None, Rows]) -> Rows:
    try:
        wait = next(steps)
        while True:
            # Nobody else goes on meanwhile, so there is no waiting for whoever holds a lock.
            wait = next(steps) if wait is None else steps.throw(
                psycopg.errors.LockNotAvailable("an open transaction holds the row, and in memory nobody waits")
            )  # fmt: skip
    except StopIteration as end:
        return cast("Rows", end.value)


class _Cursor:
    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.description = True

    def fetchall(self) -> Rows:
        return self._rows

    def fetchone(self) -> tuple[object, ...] | None:
        return self._rows[0] if self._rows else None


class _AsyncCursor:
    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.description = True

    async def fetchall(self) -> Rows:
        return self._rows

    async def fetchone(self) -> tuple[object, ...] | None:
        return self._rows[0] if self._rows else None


class _AsyncConnection(_Session):
    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)
        self._inbox: deque[str] = deque()
        self._loop = asyncio.get_running_loop()
        self._heard = asyncio.Event()
        self._hear: Callable[[str], None] | None = None

    async def execute(self, sql: bytes | str, params: Sequence[Any] = ()) -> _AsyncCursor:
        rows = self.run(sql, params)
        if sql == self._server.listen and self._hear is None:
            self._hear = self._receive
            self._server.database.listeners.append(self._hear)
        await asyncio.sleep(0)  # a server takes its time as well, in which others have their turn
        return _AsyncCursor(rows)

    def _receive(self, payload: str) -> None:
        self._inbox.append(payload)
        try:
            self._loop.call_soon_threadsafe(self._heard.set)
        except RuntimeError:
            pass  # the loop is closed

    async def close(self) -> None:
        self.end()

    def end(self) -> None:
        super().end()
        if self._hear is not None:
            self._server.database.listeners.remove(self._hear)
            self._hear = None
        self._heard.set()

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[None]:
        self.begin()
        try:
            yield
        except BaseException:
            self.over(commit=False)
            raise
        self.over(commit=True)

    async def notifies(self, *, timeout: float) -> AsyncGenerator[_Notice]:
        try:
            async with asyncio.timeout(timeout):
                while not self.closed:
                    self._heard.clear()
                    while self._inbox:
                        yield _Notice(self._inbox.popleft())
                    await self._heard.wait()
        except TimeoutError:
            return
        raise psycopg.OperationalError("the connection is closed")


class _BlockingConnection(_Session):
    def execute(self, sql: bytes | str, params: Sequence[Any] = ()) -> _Cursor:
        return _Cursor(self.run(sql, params))

    def close(self) -> None:
        self.end()

    @contextmanager
    def transaction(self) -> Generator[None]:
        self.begin()
        try:
            yield
        except BaseException:
            self.over(commit=False)
            raise
        self.over(commit=True)
