"""Run a statement in the transaction that is open on a connection of the caller's, and tell what came of it."""

from __future__ import annotations

import re

from piecework.base.errors import WrongConnection
from piecework.store.recognition import Driver, find
from piecework.store.refusals import translated
from piecework.store.statements import Statements

_NOT_ASCII = re.compile(r"[^\x00-\x7f]")

_ACCEPTED = (
    "a connection or cursor of psycopg (async or sync), psycopg2 or pg8000, a connection of asyncpg, a Connection, "
    "Session, AsyncConnection or AsyncSession of SQLAlchemy 2 or SQLModel, or Django's connection"
)


async def joined(conn: object, statements: Statements, statement: str, payload: str) -> str | None:
    """Run the statement of `sql/<statement>.sql` in the transaction open on `conn`, and return its single value.

    Where the driver begins transactions by itself, this is its first statement. Committing is the caller's part, and so
    is rolling back after an error: any error of the database's leaves the transaction aborted, as always.

    Args:
        conn: an asynchronous connection, cursor or session of a driver in `store/drivers.py`.
        statements: the SQL of the schema, which is in the database of `conn`.
        statement: has exactly one parameter, `$1::text`.
        payload: JSON.

    Raises:
        WrongConnection: `conn` cannot be joined, or is a blocking one.
        NoTransaction: `conn` is in autocommit mode, with no transaction open.
        TransactionError: the connection is closed or the transaction aborted, cannot write, met a deadlock, a lock
            that was not freed in time, or a concurrent change that its isolation level does not bear.
        JobAlreadyExists, InvalidConfig, MigrationsNeeded, PermissionDenied, DatabaseUnreachable, DatabaseError: what
            the database says; the driver's own error is their cause.
    """
    found, driver = _driver(conn)
    if driver.awaited is None:
        raise WrongConnection(f"{_named(conn)} is a blocking connection, and the call is an awaited one: call its twin "
                              "with the suffix _sync, or give an asynchronous connection")
    with translated():
        try:
            return _text(await driver.awaited(found, lambda style: statements.sql_for(statement, style), payload))
        except UnicodeEncodeError:  # the connection's client_encoding is not UTF-8
            ascii = _in_ascii(payload)
            return _text(await driver.awaited(found, lambda style: statements.sql_for(statement, style), ascii))


def joined_sync(conn: object, statements: Statements, statement: str, payload: str) -> str | None:
    """The blocking twin of `joined`, for a blocking connection."""
    found, driver = _driver(conn)
    if driver.blocking is None:
        raise WrongConnection(f"{_named(conn)} is an asynchronous connection, and the call is a blocking one: await "
                              "its twin without the suffix _sync, or give a blocking connection")
    with translated():
        try:
            return _text(driver.blocking(found, lambda style: statements.sql_for(statement, style), payload))
        except UnicodeEncodeError:
            ascii = _in_ascii(payload)
            return _text(driver.blocking(found, lambda style: statements.sql_for(statement, style), ascii))


def _driver(conn: object) -> tuple[object, Driver]:
    found = find(conn)
    if found is None:
        raise WrongConnection(f"{_named(conn)} is no connection that piecework knows: conn= takes {_ACCEPTED}")
    if found[1].instead:
        raise WrongConnection(f"{_named(conn)} is no connection: write {found[1].instead}")
    return found


def _named(conn: object) -> str:
    cls = type(conn)
    return f"{cls.__module__}.{cls.__qualname__}"


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    assert isinstance(value, bytes), f"the statement answered {value!r}"
    return value.decode()  # psycopg, where client_encoding is SQL_ASCII


def _in_ascii(json: str) -> str:
    """Write what is not ASCII as JSON's escapes, which any client_encoding can carry."""
    return _NOT_ASCII.sub(lambda found: "".join(f"\\u{unit:04x}" for unit in _utf16(found.group())), json)


def _utf16(character: str) -> list[int]:
    units = character.encode("utf-16-be")
    return [int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2)]
