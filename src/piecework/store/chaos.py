"""What a chaos run asks of the server behind its back: by sessions of their own, which go past its proxies."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

import psycopg

from piecework.store.connection import connect, translated
from piecework.store.dsn import complete_dsn
from piecework.store.statements import Statements


class Console:
    """Each call opens a session and ends it: the server may have been another one before. All raise as `connect`.

    Args:
        dsn: past all proxies.
        schema: of the run.
    """

    def __init__(self, dsn: str, schema: str) -> None:
        self._dsn = complete_dsn(dsn)
        self._statements = Statements(schema)

    async def now(self) -> float:
        """Return the server's clock, in seconds since 1970."""
        return cast(float, (await self._run("chaos_now"))[0][0])

    async def version(self) -> str:
        """Return the server's version."""
        return cast(str, (await self._run("chaos_version"))[0][0])

    async def live(self) -> int:
        """Return how many jobs are live."""
        return cast(int, (await self._run("chaos_live"))[0][0])

    async def workers(self) -> set[str]:
        """Return the ids of the workers there are."""
        return {cast(str, id) for [id] in await self._run("history_workers")}

    async def sessions(self, application_name: str) -> list[tuple[int, str]]:
        """Return process id and last statement of the sessions of this name."""
        return cast("list[tuple[int, str]]", await self._run("chaos_sessions", application_name))

    async def end_session(self, pid: int) -> None:
        """End a session."""
        await self._run("chaos_end_session", pid)

    async def position(self) -> str:
        """Return how far the WAL is written."""
        return cast(str, (await self._run("chaos_position"))[0][0])

    async def senders(self, position: str) -> list[tuple[int, bool]]:
        """Return the process ids of what sends the WAL to standbys, and whether these have it up to a position."""
        return cast("list[tuple[int, bool]]", await self._run("chaos_senders", position))

    async def promote(self) -> bool:
        """Make a standby the primary; False: it was not within a minute."""
        return cast(bool, (await self._run("chaos_promote"))[0][0])

    @asynccontextmanager
    async def pinned(self) -> AsyncGenerator[None]:
        """Keep a snapshot and a transaction id in use."""
        conn = await connect(self._dsn, self._statements.pins)
        try:
            with translated(self._dsn):
                await conn.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
                async with conn.transaction():
                    await conn.execute(self._statements.sql("chaos_snapshot"))
                    yield
        except psycopg.Error:
            pass  # another fault has ended it
        finally:
            await conn.close()

    async def _run(self, statement: str, *params: object) -> list[tuple[object, ...]]:
        conn = await connect(self._dsn, self._statements.pins)
        try:
            with translated(self._dsn):
                return await (await conn.execute(self._statements.sql(statement), params or None)).fetchall()
        finally:
            await conn.close()
