"""A wire between a client and PostgreSQL that loses what it is told to lose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class Proxy:
    """Passes bytes on, on the loop of the test: so nothing that blocks the loop may connect through it."""

    def __init__(self, dsn: str) -> None:
        parts = conninfo_to_dict(dsn)
        self._socket = f"{parts['host']}/.s.PGSQL.{parts.get('port', 5432)}"
        self._dsn = dsn
        self._losing: asyncio.Event | None = None
        self._pipes: set[asyncio.StreamWriter] = set()
        self.dsn = ""
        """Leads through the proxy."""

    @classmethod
    @asynccontextmanager
    async def to(cls, dsn: str) -> AsyncIterator[Proxy]:
        proxy = cls(dsn)
        server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        proxy.dsn = make_conninfo(dsn, host="127.0.0.1", port=port)
        try:
            yield proxy
        finally:
            server.close()
            proxy.cut()

    def lose_next_answer(self) -> asyncio.Event:
        """Break the connection on which the server next says something, before it is heard; the event says when."""
        self._losing = asyncio.Event()
        return self._losing

    def cut(self) -> None:
        """Break all connections."""
        while self._pipes:
            self._pipes.pop().transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(self._socket)
        self._pipes |= {writer, up_writer}
        await asyncio.gather(self._pass(reader, up_writer, False), self._pass(up_reader, writer, True))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool) -> None:
        try:
            while data := await reader.read(1 << 16):
                if answers and self._losing is not None:
                    self._losing.set()
                    self._losing = None
                    self.cut()
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
