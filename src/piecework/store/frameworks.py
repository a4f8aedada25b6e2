"""SQLAlchemy (and SQLModel, which is on it) and Django: how a statement is run in the transaction that they manage."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Protocol, cast

from piecework.base.errors import NoTransaction, WrongConnection
from piecework.store.drivers import Cursor, Sql, aborted, only, refuse_unencodable


class _Scalar(Protocol):
    def scalar(self) -> object: ...


class _Named(Protocol):
    name: str


class _DbApi(Protocol):
    dbapi_connection: object


class _Alchemy(Protocol):
    closed: bool
    dialect: _Named
    connection: _DbApi

    def execute(self, statement: object, parameters: Mapping[str, object], /) -> _Scalar: ...


class _AlchemySession(Protocol):
    def connection(self) -> _Alchemy: ...


class _Greened(Protocol):
    async def run_sync(self, call: Callable[[object, Sql, str], object], sql: Sql, payload: str, /) -> object: ...


def run_alchemy(conn: object, sql: Sql, payload: str) -> object:
    joined = cast("_Alchemy", conn)
    if joined.dialect.name != "postgresql":
        raise WrongConnection(f"the SQLAlchemy connection is to {joined.dialect.name}: the jobs are in PostgreSQL, and "
                              "what joins a transaction has to be in the same database")
    if not joined.closed:
        driven = joined.connection.dbapi_connection
        if getattr(driven, "autocommit", False):
            raise NoTransaction("the SQLAlchemy connection has the isolation level AUTOCOMMIT, so it has no "
                                "transaction to join: take one with another level, or leave the connection out")
        refuse_unencodable(driven, payload)
    text = cast("Callable[[str], object]", sys.modules["sqlalchemy"].text)  # pyright: ignore[reportUnknownMemberType]
    return joined.execute(text(sql(":payload")), {"payload": payload}).scalar()


def run_alchemy_session(conn: object, sql: Sql, payload: str) -> object:
    # The session's connection, not its `execute`: that may flush, and asks the hooks of the session.
    return run_alchemy(cast("_AlchemySession", conn).connection(), sql, payload)


def run_alchemy_scoped(conn: object, sql: Sql, payload: str) -> object:
    return run_alchemy_session(cast("Callable[[], object]", conn)(), sql, payload)


async def run_alchemy_async(conn: object, sql: Sql, payload: str) -> object:
    return await cast("_Greened", conn).run_sync(run_alchemy, sql, payload)


async def run_alchemy_async_session(conn: object, sql: Sql, payload: str) -> object:
    return await cast("_Greened", conn).run_sync(run_alchemy_session, sql, payload)


async def run_alchemy_async_scoped(conn: object, sql: Sql, payload: str) -> object:
    return await run_alchemy_async_session(cast("Callable[[], object]", conn)(), sql, payload)


class _Django(Protocol):
    alias: str
    vendor: str
    in_atomic_block: bool
    needs_rollback: bool

    def get_autocommit(self) -> bool: ...
    def cursor(self) -> Cursor: ...


def run_django(conn: object, sql: Sql, payload: str) -> object:
    joined = cast("_Django", conn)
    if joined.vendor != "postgresql":
        raise WrongConnection(f"Django's connection {joined.alias!r} is to {joined.vendor}: the jobs are in "
                              "PostgreSQL, and what joins a transaction has to be in the same database")
    if joined.in_atomic_block and joined.needs_rollback:
        raise aborted()
    if not joined.in_atomic_block and joined.get_autocommit():
        raise NoTransaction(f"no transaction is open on Django's connection {joined.alias!r}: write "
                            "`with transaction.atomic():` around the call, or leave the connection out")
    with closing(joined.cursor()) as cursor:
        cursor.execute(sql("%s"), [payload])
        return only(cursor.fetchone())
