"""Savepoints in a transaction that piecework lends: what fails inside is undone, and the transaction goes on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import psycopg
from psycopg.pq import TransactionStatus

from piecework.base.errors import TransactionError
from piecework.store.refusals import state_of

_CONFLICTS = ("40P01", "40001")
_UNKNOWN = ("08", "57", "40003")
"""Beginnings of the SQLSTATE of a COMMIT that may have happened: the connection broke, or the server was stopped."""


@asynccontextmanager
async def savepoint(conn: psycopg.AsyncConnection) -> AsyncGenerator[None]:
    """Undo what was written inside if it raises; the transaction itself is not ended.

    Raises:
        TransactionError: a statement inside failed, and its error was swallowed.
    """
    async with conn.transaction():
        yield
        if conn.info.transaction_status == TransactionStatus.INERROR:
            raise TransactionError(
                "a statement failed and its error was swallowed, so that nothing of this can be kept: let the error "
                "through, or have `async with conn.transaction():` around the statement"
            )


def intact(conn: psycopg.AsyncConnection) -> bool:
    """Whether the transaction can go on: after a savepoint was rolled back it can, unless the connection is lost."""
    return not conn.closed and conn.info.transaction_status == TransactionStatus.INTRANS


def is_conflict(error: BaseException) -> bool:
    """Whether another transaction was in the way: a deadlock, or a change that the isolation level does not bear."""
    return state_of(error) in _CONFLICTS


def rolled_back(error: BaseException) -> bool:
    """Whether an error of COMMIT means that nothing was committed; else it is not known."""
    state = state_of(error)
    return state != "" and not state.startswith(_UNKNOWN)
