"""Connections to PostgreSQL: how they are opened, and what a driver's error means to a user."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple, TypeAlias

import psycopg

from piecework.base.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseUnreachable,
    MigrationsNeeded,
    PermissionDenied,
)
from piecework.store.dsn import describe

AsyncConnection: TypeAlias = psycopg.AsyncConnection[tuple[object, ...]]
Connection: TypeAlias = psycopg.Connection[tuple[object, ...]]


class ReadOnlyServer(DatabaseUnreachable):
    """The server is a standby, or is being failed over: what it is asked to write has to go elsewhere."""


def sever(conn: AsyncConnection | Connection) -> None:
    """Break a connection from outside, whatever it waits for: a frozen server, a network that swallows all.

    Whoever waits for an answer gets DatabaseUnreachable at once. Closing politely, or asking the server to cancel,
    would wait for the very peer that does not answer.
    """
    try:
        with socket.socket(fileno=os.dup(conn.pgconn.socket)) as wire:
            wire.shutdown(socket.SHUT_RDWR)
    except (OSError, psycopg.OperationalError):
        pass  # it is closed already


def condition(conn: AsyncConnection | Connection | None) -> str:
    """Say what a connection does, without asking it anything: any thread may."""
    if conn is None or conn.closed:
        return "not connected"
    try:
        return f"back end {conn.info.backend_pid}, {conn.info.transaction_status.name.lower()}"
    except psycopg.Error as error:  # it was closed meanwhile
        return str(error)


class Pins(NamedTuple):
    """What pins the settings that statements rest on, whatever the defaults of the database and the role are."""

    session: bytes
    """Run first. It leaves the session alone where that is a pooler's; `sql/pin_session.sql` says what it answers."""
    transaction: bytes
    """Run at the beginning of each transaction on a pooler's session that is not as it has to be."""


class _OwnAsync(psycopg.AsyncConnection[tuple[object, ...]]):
    pooled = False
    transaction_pins: bytes | None = None


class _Own(psycopg.Connection[tuple[object, ...]]):
    pooled = False
    transaction_pins: bytes | None = None


async def connect(dsn: str, pins: Pins | None) -> AsyncConnection:
    """Open an asynchronous connection in autocommit mode.

    Behind a pooler nothing is prepared by name and no session is touched, since the next statement may run in another
    one. There a transaction of the driver's says itself what it is, and a single statement goes into `pinned`.

    Args:
        pins: of the statements that will run; None: the session is left as it is found.

    Raises:
        ConfigurationError: the driver cannot use the DSN.
        DatabaseUnreachable, PermissionDenied: as `translated`.
    """
    with translated(dsn):
        with _usable():
            conn = await _OwnAsync.connect(dsn, autocommit=True, cursor_factory=psycopg.AsyncRawCursor)
        try:
            if pins is not None:
                row = await (await conn.execute(pins.session, [conn.info.backend_pid], prepare=False)).fetchone()
                if _is_pooled(conn, row, pins):
                    await conn.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
                    await conn.set_read_only(False)
        except BaseException:
            await conn.close()
            raise
        return conn


def connect_sync(dsn: str, pins: Pins) -> Connection:
    """The blocking twin of `connect`."""
    with translated(dsn):
        with _usable():
            conn = _Own.connect(dsn, autocommit=True, cursor_factory=psycopg.RawCursor)
        try:
            row = conn.execute(pins.session, [conn.info.backend_pid], prepare=False).fetchone()
            if _is_pooled(conn, row, pins):
                conn.isolation_level, conn.read_only = psycopg.IsolationLevel.READ_COMMITTED, False
        except BaseException:
            conn.close()
            raise
        return conn


@contextmanager
def _usable() -> Generator[None]:
    """Tell what the driver itself refuses of a DSN: a host that can be no name, for one. Its message may quote it."""
    try:
        yield
    except (psycopg.ProgrammingError, ValueError, OverflowError) as error:
        if isinstance(error, psycopg.Error) and error.sqlstate is not None:
            raise
        raise ConfigurationError(
            f"no connection can be made with this database URL: a part of it cannot be what it stands for "
            f"({type(error).__name__}). Look at its host, port and options"
        ) from None


class Wire:
    """How connections to the server are opened and broken: by the driver. Another one stands for another server."""

    async def connect(self, dsn: str, pins: Pins | None) -> AsyncConnection:
        """Open an asynchronous connection, as `connect`."""
        return await connect(dsn, pins)

    def connect_sync(self, dsn: str, pins: Pins) -> Connection:
        """Open a blocking connection, as `connect_sync`."""
        return connect_sync(dsn, pins)

    def sever(self, conn: AsyncConnection | Connection) -> None:
        """Break a connection, as `sever`."""
        sever(conn)


WIRE = Wire()
"""To PostgreSQL."""


def _is_pooled(conn: _OwnAsync | _Own, row: tuple[object, ...] | None, pins: Pins) -> bool:
    assert row is not None
    own, plain = row[:2]
    if own:
        return False
    conn.pooled = True
    conn.prepare_threshold = None
    conn.transaction_pins = None if plain else pins.transaction
    return True


def is_pooled(conn: AsyncConnection | Connection) -> bool:
    """Say whether a connection that `connect` opened leads to a pooler of server sessions."""
    return isinstance(conn, _OwnAsync | _Own) and conn.pooled


def transaction_pins(conn: AsyncConnection | Connection) -> bytes | None:
    """Return the statement that each transaction on this connection has to begin with; None where none is needed."""
    return conn.transaction_pins if isinstance(conn, _OwnAsync | _Own) else None


@asynccontextmanager
async def pinned(conn: AsyncConnection) -> AsyncGenerator[None]:
    """Run single statements under the settings they rest on: in a transaction, where the session does not have them."""
    if (pins := transaction_pins(conn)) is None:
        yield
        return
    async with conn.transaction():
        await conn.execute(pins)
        yield


@contextmanager
def pinned_sync(conn: Connection) -> Generator[None]:
    """The blocking twin of `pinned`."""
    if (pins := transaction_pins(conn)) is None:
        yield
        return
    with conn.transaction():
        conn.execute(pins)
        yield


_PASSWORD = re.compile(r"password=\S+|://[^@/\s]*@")


def _message(error: psycopg.Error) -> str:
    return _PASSWORD.sub("…", " ".join(str(error).split())).rstrip(".?")


@contextmanager
def translated(dsn: str) -> Generator[None]:
    """Turn the driver's errors into piecework's, where a user can do something about them.

    What is wrong with a value (DataError, `LIMIT_ERRORS`) is left to the caller.

    Raises:
        DatabaseUnreachable: the server cannot be reached, refuses connections, is starting, or the connection broke;
            ReadOnlyServer where it cannot write.
        PermissionDenied: the role may not do it.
        MigrationsNeeded: the schema, a table or a function of piecework is missing.
        DatabaseError: the database or the role of the DSN does not exist, the password is wrong, or the server has no
            room or time (a full disk, a lock, a deadlock).
    """
    try:
        yield
    except (
        psycopg.errors.InvalidPassword,
        psycopg.errors.InvalidAuthorizationSpecification,
        psycopg.errors.InvalidCatalogName,
    ) as error:
        raise _refused_login(dsn, error) from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise ReadOnlyServer(
            f"PostgreSQL at {describe(dsn)} is read-only: a standby, or in the middle of a failover. "
            "Name all hosts in the DSN, with target_session_attrs=read-write"
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise PermissionDenied(
            f"the database role lacks a privilege: {_message(error)}. "
            "Grant it, or run `piecework migrate` once with a role that may create the schema"
        ) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName) as error:
        raise MigrationsNeeded(
            f"the schema is not there or not complete: {_message(error)}. Run `piecework migrate`"
        ) from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        state = error.sqlstate
        if _is_login(str(error)) and state is None:
            raise _refused_login(dsn, error) from error
        if isinstance(error, LIMIT_ERRORS):
            raise
        if state is None or state.startswith(_CONNECTION_STATES):
            raise DatabaseUnreachable(
                f"no connection to PostgreSQL at {describe(dsn)}: {_message(error)}. "
                "Is the server running, and does the DSN lead to it?"
            ) from error
        raise DatabaseError(f"PostgreSQL at {describe(dsn)} cannot do it now: {_message(error)} ({state})") from error


# Class 54, operational errors to the driver: a value is too long or too deeply nested, now and the next time.
LIMIT_ERRORS = (psycopg.errors.ProgramLimitExceeded, psycopg.errors.StatementTooComplex)

# Class 08: the connection; 57P: the server stops, crashed or starts; 53300: all connections are taken.
_CONNECTION_STATES = ("08", "57P", "53300")


def _refused_login(dsn: str, error: psycopg.Error) -> DatabaseError:
    return DatabaseError(
        f"PostgreSQL at {describe(dsn)} refuses the login: {_message(error)}. "
        "Check user, password and database of the DSN"
    )


_LOGIN_TEXTS = (
    "password authentication failed", "no pg_hba.conf entry", "fe_sendauth", "does not exist",
    "no such database", "no such user",  # pgbouncer's
)  # fmt: skip


def _is_login(message: str) -> bool:
    # Errors while connecting carry no SQLSTATE, only the server's text.
    return any(part in message for part in _LOGIN_TEXTS)
