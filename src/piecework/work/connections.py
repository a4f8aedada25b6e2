"""Connections whose open transaction a spawn can join, told apart by their structure: no driver is imported."""

from __future__ import annotations

from typing import Protocol, TypeAlias


class AsyncCommit(Protocol):
    """psycopg's `AsyncConnection`, SQLAlchemy's `AsyncSession` and `AsyncConnection`."""

    async def commit(self) -> None:
        """Commit the open transaction."""

    async def rollback(self) -> None:
        """Roll the open transaction back."""


class AsyncpgLike(Protocol):
    """asyncpg's `Connection` and the proxy that its pool hands out."""

    def is_in_transaction(self) -> bool:
        """Whether a transaction is open."""
        ...

    async def fetchval(self, query: str, /, *args: object) -> object:
        """Run a statement and answer the first value of its first row."""


class SyncCommit(Protocol):
    """psycopg's and psycopg2's connections, SQLAlchemy's `Session` and `Connection`, Django's connection."""

    def commit(self) -> None:
        """Commit the open transaction."""

    def rollback(self) -> None:
        """Roll the open transaction back."""


class ConnProxy(Protocol):
    """A proxy that shows none of its methods in source: asyncpg's pool proxy, Django's `connection`."""

    def __getattr__(self, name: str, /) -> object: ...


AsyncConn: TypeAlias = AsyncCommit | AsyncpgLike | ConnProxy
SyncConn: TypeAlias = SyncCommit | ConnProxy
