"""A wire to PostgreSQL that is cut just when an answer arrives that was asked for by name: done, but not heard of."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from psycopg.conninfo import conninfo_to_dict, make_conninfo

CLAIMED = re.compile(rb'\[\["[0-9a-f]{8}-')
"""An answer that names jobs."""


@dataclass
class Ends:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    settles: bool = False

    def cut(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


class Wire:
    """Passes bytes on; `dsn` leads through it. `claims` and `settles` are how many answers are still to be lost."""

    def __init__(self, dsn: str) -> None:
        parts = conninfo_to_dict(dsn)
        self._socket = f"{parts['host']}/.s.PGSQL.{parts.get('port', 5432)}"
        self._ends: list[Ends] = []
        self.dsn = ""
        self.claims = 0
        self.settles = 0

    @classmethod
    @asynccontextmanager
    async def to(cls, dsn: str) -> AsyncIterator[Wire]:
        wire = cls(dsn)
        server = await asyncio.start_server(wire._serve, "127.0.0.1", 0)
        wire.dsn = make_conninfo(dsn, host="127.0.0.1", port=server.sockets[0].getsockname()[1])
        try:
            yield wire
        finally:
            server.close()
            for ends in wire._ends:
                ends.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._socket)
        ends = Ends(writer, server_writer)
        self._ends.append(ends)
        await asyncio.gather(self._ask(reader, ends), self._answer(server_reader, ends))

    async def _ask(self, reader: asyncio.StreamReader, ends: Ends) -> None:
        try:
            while data := await reader.read(1 << 16):
                ends.settles = ends.settles or b"settle_1" in data
                ends.server.write(data)
                await ends.server.drain()
        except OSError:
            pass
        finally:
            ends.server.close()

    async def _answer(self, reader: asyncio.StreamReader, ends: Ends) -> None:
        try:
            while data := await reader.read(1 << 16):
                if self.claims and CLAIMED.search(data):
                    self.claims -= 1
                    return ends.cut()
                if self.settles and ends.settles:
                    self.settles -= 1
                    return ends.cut()
                ends.client.write(data)
                await ends.client.drain()
        except OSError:
            pass
        finally:
            ends.client.close()
