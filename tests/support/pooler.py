"""A pooler of PostgreSQL connections, as small as one can be: it lets all clients in and says nothing of its own."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_ENCRYPT = (80877103, 80877104)  # SSLRequest, GSSENCRequest


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)


class _Session:
    """A connection to the server."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.greeting = b""

    async def open(self, socket: str, user: str, database: str) -> None:
        self.reader, self.writer = await asyncio.open_unix_connection(socket)
        body = struct.pack("!i", 196608) + f"user\0{user}\0database\0{database}\0\0".encode()
        self.writer.write(struct.pack("!i", len(body) + 4) + body)
        self.greeting = b"".join([m for m in await self._answers() if m[:1] != b"K"])

    async def ask(self, question: bytes) -> bytes:
        async with self.lock:
            self.writer.write(question)
            return b"".join(await self._answers())

    async def _answers(self) -> list[bytes]:
        answers = [await _message(self.reader)]
        while answers[-1][:1] != b"Z":
            answers.append(await _message(self.reader))
        return answers


class Pooler:
    """Serves on the loop of the test: so nothing that blocks the loop may connect through it.

    Args:
        shared: all clients have one session of the server, statement by statement; else each has one of its own.
    """

    def __init__(self, dsn: str, *, shared: bool) -> None:
        parts = conninfo_to_dict(dsn)
        self._socket = f"{parts['host']}/.s.PGSQL.{parts.get('port', 5432)}"
        self._user, self._database = str(parts["user"]), str(parts["dbname"])
        self._shared = _Session() if shared else None
        self._writers: list[asyncio.StreamWriter] = []
        self.dsn = ""

    @classmethod
    @asynccontextmanager
    async def to(cls, dsn: str, *, shared: bool) -> AsyncIterator[Pooler]:
        pooler = cls(dsn, shared=shared)
        if pooler._shared is not None:
            await pooler._open(pooler._shared)
        server = await asyncio.start_server(pooler._serve, "127.0.0.1", 0)
        pooler.dsn = make_conninfo(dsn, host="127.0.0.1", port=server.sockets[0].getsockname()[1])
        try:
            yield pooler
        finally:
            server.close()
            for writer in pooler._writers:
                writer.transport.abort()

    async def _open(self, session: _Session) -> None:
        await session.open(self._socket, self._user, self._database)
        self._writers.append(session.writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            while True:
                size, code = struct.unpack("!ii", await reader.readexactly(8))
                await reader.readexactly(size - 8)
                if code not in _ENCRYPT:
                    break
                writer.write(b"N")
            session = self._shared or _Session()
            if session is not self._shared:
                await self._open(session)
            key = b"K" + struct.pack("!iii", 12, 1, 1)
            writer.write(session.greeting[:-6] + key + session.greeting[-6:])
            await self._pass(reader, writer, session)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, session: _Session) -> None:
        question = b""
        while (message := await _message(reader))[:1] != b"X":
            question += message
            if message[:1] in b"QS":
                writer.write(await session.ask(question))
                question = b""
