"""The few connections of the application's side: opened when needed, bound to one loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from piecework.base.errors import DatabaseUnreachable
from piecework.base.threads import in_thread
from piecework.store.connection import AsyncConnection, connect


class Connections:
    """At most `most` connections, handed out one at a time and kept open.

    Nothing that holds one asks for a second, so waiting for one cannot deadlock (invariant H).

    Args:
        dsn: where to, complete.
        session: the statement that pins a new session's defaults.
        most: how many at once.
        revive: called in a thread when the server cannot be reached, before one further try: how the embedded server
            comes back.
    """

    def __init__(self, dsn: str, session: bytes, most: int, revive: Callable[[], object] | None = None) -> None:
        self._dsn = dsn
        self._session = session
        self._room = asyncio.Semaphore(most)
        self._idle: list[AsyncConnection] = []
        self._revive = revive
        self._closed = False

    @asynccontextmanager
    async def take(self) -> AsyncGenerator[AsyncConnection]:
        """Lend a connection in autocommit mode. A broken one is thrown away on return."""
        async with self._room:
            conn = self._idle.pop() if self._idle else await self._open()
            try:
                yield conn
            except BaseException:
                if not conn.closed and conn.info.transaction_status != 0:
                    await conn.close()
                raise
            finally:
                if self._closed:
                    await conn.close()
                elif not conn.closed:
                    self._idle.append(conn)

    async def _open(self) -> AsyncConnection:
        try:
            return await connect(self._dsn, self._session)
        except DatabaseUnreachable:
            if self._revive is None:
                raise
            await in_thread("embedded-postgres", self._revive)
            return await connect(self._dsn, self._session)

    async def forget_idle(self) -> None:
        """Close the idle connections: after one broke, the others are likely to be dead as well."""
        while self._idle:
            await self._idle.pop().close()

    async def close(self) -> None:
        """Close the idle connections now, lent ones when they come back."""
        self._closed = True
        await self.forget_idle()
