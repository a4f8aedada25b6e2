"""Opens a transaction on what lends a connection without one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import Protocol, cast

from psycopg.pq import TransactionStatus

_PSYCOPG = ("psycopg.Connection", "psycopg.AsyncConnection")


class _Info(Protocol):
    transaction_status: TransactionStatus


class _Psycopg(Protocol):
    autocommit: bool
    info: _Info


def begun(conn: object) -> AbstractAsyncContextManager[object]:
    """Return what opens a transaction on an asynchronous connection for a block, and does nothing if there is one.

    Where the driver begins transactions by itself, whoever lends the connection ends them.
    """
    return cast("AbstractAsyncContextManager[object]", _begin(conn))


def begun_sync(conn: object) -> AbstractContextManager[object]:
    """Return the same for a blocking connection."""
    return cast("AbstractContextManager[object]", _begin(conn))


def _begin(conn: object) -> object:
    for inside, begin in (("is_in_transaction", "transaction"), ("in_transaction", "begin")):  # asyncpg; SQLAlchemy
        if hasattr(conn, inside) and hasattr(conn, begin):
            open_already = _called(conn, inside)
            return nullcontext() if open_already else _called(conn, begin)
    if any(f"{cls.__module__.partition('.')[0]}.{cls.__name__}" in _PSYCOPG for cls in type(conn).__mro__):
        joined = cast("_Psycopg", conn)
        if joined.autocommit and joined.info.transaction_status == TransactionStatus.IDLE:
            return _called(conn, "transaction")
    return nullcontext()


def _called(conn: object, method: str) -> object:
    return cast("Callable[[], object]", getattr(conn, method))()
