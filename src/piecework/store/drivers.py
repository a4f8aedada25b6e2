"""The drivers on whose connections a transaction of the caller's is joined: how each runs one statement.

None is imported here but psycopg: the others are there when a connection of theirs is. What a connection knows of its
transaction is looked at before the statement is sent; the rest the server says.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Protocol, TypeAlias, cast

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from piecework.base.errors import NoTransaction, TransactionError, WrongConnection
from piecework.store.connection import AsyncConnection, Connection

Sql: TypeAlias = Callable[[str], str]
"""Takes the driver's placeholder, answers the statement."""

_PSYCOPG2_STATUS = {status.value: status for status in TransactionStatus}


async def run_psycopg_async(conn: object, sql: Sql, payload: str) -> object:
    joined = cast("AsyncConnection", conn)
    if joined.autocommit and joined.pgconn.pipeline_status != PipelineStatus.OFF:
        async with joined.pipeline():  # what was sent is answered first: only then is known whether a transaction began
            pass
    _check_status(joined.closed, joined.autocommit, joined.info.transaction_status)
    # Not by its own cursor factory: that may want other placeholders and make other rows.
    async with psycopg.AsyncRawCursor(joined, row_factory=tuple_row) as cursor:
        await cursor.execute(sql("$1").encode(), [payload])
        return only(await cursor.fetchone())


def run_psycopg(conn: object, sql: Sql, payload: str) -> object:
    joined = cast("Connection", conn)
    if joined.autocommit and joined.pgconn.pipeline_status != PipelineStatus.OFF:
        with joined.pipeline():
            pass
    _check_status(joined.closed, joined.autocommit, joined.info.transaction_status)
    with psycopg.RawCursor(joined, row_factory=tuple_row) as cursor:
        cursor.execute(sql("$1").encode(), [payload])
        return only(cursor.fetchone())


def _check_status(closed: bool, autocommit: bool, status: TransactionStatus) -> None:
    if closed:
        raise TransactionError("the connection is closed: nothing can be done on it any more")
    if status == TransactionStatus.INERROR:
        raise aborted()
    if autocommit and status == TransactionStatus.IDLE:
        raise NoTransaction(
            "the connection is in autocommit mode and no transaction is open: begin one (`conn.transaction()`), or "
            "leave the connection out"
        )
    if autocommit and status == TransactionStatus.ACTIVE:
        raise TransactionError("the connection is in the middle of another statement: a connection serves one task")


def aborted() -> TransactionError:
    """The error of a transaction in which a statement has failed."""
    return TransactionError("the transaction is aborted: a statement before this one failed in it. Roll it back, or "
                            "back to a savepoint")


class _Asyncpg(Protocol):
    def is_closed(self) -> bool: ...
    def is_in_transaction(self) -> bool: ...
    async def fetchval(self, query: str, /, *args: object) -> object: ...


async def run_asyncpg(conn: object, sql: Sql, payload: str) -> object:
    joined = cast("_Asyncpg", conn)
    if joined.is_closed():
        raise TransactionError("the connection is closed: nothing can be done on it any more")
    if not joined.is_in_transaction():
        raise NoTransaction("no transaction is open on the asyncpg connection: write `async with conn.transaction():` "
                            "around the call, or leave the connection out")
    return await joined.fetchval(sql("$1"), payload)


class Cursor(Protocol):
    def execute(self, query: str, params: Sequence[object] | Mapping[str, object], /) -> object: ...
    def fetchone(self) -> Sequence[object] | None: ...
    def close(self) -> None: ...


class _Psycopg2Info(Protocol):
    transaction_status: int


class _Psycopg2(Protocol):
    autocommit: bool
    closed: int
    async_: int
    info: _Psycopg2Info

    def cursor(self, *, cursor_factory: object) -> Cursor: ...


def run_psycopg2(conn: object, sql: Sql, payload: str) -> object:
    joined = cast("_Psycopg2", conn)
    if joined.async_:
        raise WrongConnection("an asynchronous connection of psycopg2 has no transactions to join: give a plain one")
    _check_status(bool(joined.closed), joined.autocommit, _PSYCOPG2_STATUS[joined.info.transaction_status])
    plain = cast("object", sys.modules["psycopg2.extensions"].cursor)  # pyright: ignore[reportUnknownMemberType]
    with closing(joined.cursor(cursor_factory=plain)) as cursor:
        cursor.execute(sql("%s"), [payload])
        return only(cursor.fetchone())


class _Pg8000(Protocol):
    autocommit: bool

    def cursor(self) -> Cursor: ...


def run_pg8000(conn: object, sql: Sql, payload: str) -> object:
    joined = cast("_Pg8000", conn)
    status = cast("bytes", getattr(conn, "_transaction_status", b""))  # told by the server after each statement
    if status == b"E":
        raise aborted()
    if joined.autocommit and status != b"T":
        raise NoTransaction("the pg8000 connection is in autocommit mode and no transaction is open: set "
                            "`conn.autocommit = False`, or leave the connection out")
    refuse_unencodable(conn, payload)
    with closing(joined.cursor()) as cursor:
        style = str(getattr(cursor, "paramstyle", None) or getattr(sys.modules["pg8000.dbapi"], "paramstyle", "format"))
        placeholder = {"qmark": "?", "numeric": ":1", "named": ":payload"}.get(style, "%s")
        cursor.execute(sql(placeholder), {"payload": payload} if style == "named" else [payload])
        return only(cursor.fetchone())


def refuse_unencodable(conn: object, payload: str) -> None:
    """Raise the UnicodeEncodeError that pg8000 would raise halfway, its connection being of no use afterwards."""
    if (encoding := getattr(conn, "_client_encoding", None)) is not None:
        payload.encode(str(encoding))


def only(row: Sequence[object] | None) -> object:
    """Return the first value of a row, None without a row."""
    return None if row is None else row[0]
