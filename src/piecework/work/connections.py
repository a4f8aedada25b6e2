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


class AsyncCursorLike(Protocol):
    """psycopg's `AsyncCursor`."""

    @property
    def connection(self) -> AsyncCommit:
        """The connection it is on, which is what is joined."""
        ...

    async def fetchone(self) -> object:
        """Answer the next row."""


class CursorLike(Protocol):
    """The cursors of psycopg, psycopg2 and pg8000."""

    @property
    def connection(self) -> SyncCommit:
        """The connection it is on, which is what is joined."""
        ...

    def fetchone(self) -> object:
        """Answer the next row."""


class ConnProxy(Protocol):
    """A proxy that shows none of its methods in source: asyncpg's pool proxy, Django's `connection`."""

    def __getattr__(self, name: str, /) -> object: ...


AsyncConn: TypeAlias = AsyncCommit | AsyncpgLike | AsyncCursorLike | ConnProxy
SyncConn: TypeAlias = SyncCommit | CursorLike | ConnProxy
