"""The whole history of a schema, read in one snapshot and job by job; and the ledger that test jobs write."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import psycopg

from piecework.store.connection import AsyncConnection, connect, translated
from piecework.store.dsn import complete_dsn
from piecework.store.joining import joined, joined_sync
from piecework.store.run_writes import Request
from piecework.store.statements import Statements

_ROWS = 5000
"""So many jobs are fetched in one round trip."""


class Reader:
    """Reads in one snapshot. Every method raises what `connection.translated` does."""

    def __init__(self, dsn: str, conn: AsyncConnection, statements: Statements) -> None:
        self._dsn = dsn
        self._conn = conn
        self._statements = statements

    @classmethod
    @asynccontextmanager
    async def of(cls, dsn: str, schema: str) -> AsyncGenerator[Reader]:
        """Take a snapshot, and let go of it at the end."""
        dsn, statements = complete_dsn(dsn), Statements(schema)
        conn = await connect(dsn, statements.pins)
        try:
            with translated(dsn):
                await conn.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
                await conn.set_read_only(True)
                conn.server_cursor_factory = psycopg.AsyncRawServerCursor
                async with conn.transaction():
                    yield cls(dsn, conn, statements)
        finally:
            await conn.close()

    async def limits(self) -> list[tuple[str, str, int]]:
        """Return the operators' limits: queue, concurrency key, most."""
        rows = await (await self._conn.execute(self._statements.sql("history_limits"))).fetchall()
        return cast("list[tuple[str, str, int]]", rows)

    async def workers(self) -> list[str]:
        """Return the ids of the workers."""
        rows = await (await self._conn.execute(self._statements.sql("history_workers"))).fetchall()
        return [cast(str, id) for [id] in rows]

    async def jobs(self) -> AsyncIterator[str]:
        """Yield a JSON array for each job, in the order of the ids: see `sql/history_jobs.sql`."""
        async for text in self._stream("jobs", self._statements.sql("history_jobs")):
            yield text

    async def entries(self) -> AsyncGenerator[str]:
        """Yield a JSON array for each job that the ledger knows, in the order of the ids; nothing where none is."""
        [row] = await (await self._conn.execute(self._statements.sql("history_has_ledger"))).fetchall()
        if row[0]:
            async for text in self._stream("entries", self._statements.sql("history_entries")):
                yield text

    async def _stream(self, name: str, statement: bytes) -> AsyncIterator[str]:
        async with self._conn.cursor(name=f"piecework_{name}") as cursor:
            cursor.itersize = _ROWS
            await cursor.execute(statement)
            async for row in cursor:
                yield cast(str, row[0])


async def create_ledger(dsn: str, schema: str) -> None:
    """Make the ledger's table, unless it is there."""
    dsn, statements = complete_dsn(dsn), Statements(schema)
    conn = await connect(dsn, statements.pins)
    try:
        with translated(dsn):
            await conn.execute(statements.sql("history_create_ledger"))
    finally:
        await conn.close()


async def write_ledger(conn: object, schema: str, entry: str) -> None:
    """Write an entry (JSON, see `sql/history_write.sql`) in the transaction that is open on `conn`."""
    request = Request("history_write", entry)
    await joined(conn, Statements(schema), request.statement, request.payload)


def write_ledger_sync(conn: object, schema: str, entry: str) -> None:
    """Write as `write_ledger` does, on a blocking connection."""
    request = Request("history_write", entry)
    joined_sync(conn, Statements(schema), request.statement, request.payload)
