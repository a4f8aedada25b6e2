"""What a doctor asks of a database: facts, each by itself, without a judgement. Nothing is changed."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import msgspec

from piecework.model.horizon import Sample
from piecework.model.pins import Pin, PinKind
from piecework.store import migrating
from piecework.store.connection import AsyncConnection, connect, sever, translated
from piecework.store.migrating import SchemaState
from piecework.store.statements import Statements
from piecework.store.turning import DueClock

_DEADLINE = 10.0
_ROUNDS = 3
_HEARD_WITHIN = 3.0
_UNPINNED = None  # the session's own defaults are what is looked at


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A server, a database and a role, as a new session finds them."""

    version_num: int
    version: str
    database: str
    role: str
    standby: bool
    isolation: str
    read_only: bool
    encoding: str
    autovacuum: bool
    track_counts: bool
    toast_compression: str
    sees_all: bool
    """Whether the role may see what the sessions of others do."""
    max_connections: int
    """Those that this role may have; what is reserved for superusers is not counted."""
    connections: int
    free_connections: int
    """Of the server, the database or the role, whichever is the fewest."""
    clock: float
    """Seconds since 1970."""
    ahead: float = 0.0
    """Seconds by which the server's clock is ahead of the one here, give or take the round trip."""


@dataclass(frozen=True, slots=True)
class Pooling:
    """What stands between here and the server."""

    pooler: bool
    """The server's process is another than the connection was told: a pooler, or a proxy that speaks the protocol."""
    shared: bool
    """Statements of one connection ran in several sessions of the server: a pooler in transaction or statement mode."""


def as_pin(row: Sequence[object]) -> Pin:
    """Return a row of `examine_pins` as what it stands for."""
    return Pin(
        kind=cast(PinKind, row[0]), name=str(row[1] or ""), pid=cast("int | None", row[2]),
        role=cast("str | None", row[3]), state=cast("str | None", row[4]), seconds=cast("float | None", row[5]),
        query_start=cast("datetime | None", row[6]), xids=cast("int | None", row[7]),
        pinned=cast("str | None", row[8]), query=cast("str | None", row[9]), catalog_only=cast(bool, row[10]),
    )  # fmt: skip


class Examination:
    """Two connections, which belong to nobody else. Every method raises DatabaseError; 10 seconds are the longest."""

    def __init__(self, dsn: str, statements: Statements, first: AsyncConnection, second: AsyncConnection) -> None:
        self._dsn = dsn
        self.statements = statements
        self._first = first
        self._second = second

    @classmethod
    @asynccontextmanager
    async def of(cls, dsn: str, statements: Statements) -> AsyncGenerator[Examination]:
        """Connect, and close the connections at the end.

        Args:
            dsn: complete.

        Raises:
            DatabaseUnreachable, DatabaseError: as `connect`.
        """
        first = await connect(dsn, _UNPINNED)
        try:
            second = await connect(dsn, _UNPINNED)
            try:
                yield cls(dsn, statements, first, second)
            finally:
                await second.close()
        finally:
            await first.close()

    async def server(self) -> Server:
        """Return what there is to say of the server, the database and the role."""
        before = time.time()
        [row] = await self._rows(self.statements.sql("examine_server"))
        here = (before + time.time()) / 2
        facts = msgspec.json.decode(str(row[0]), type=Server)
        return msgspec.structs.replace(facts, ahead=facts.clock - here)

    async def schema(self) -> SchemaState:
        """Return what is there of the schema."""
        with self._bounded():
            return await migrating.schema_state(self._first, self.statements)

    async def lacking(self) -> list[str]:
        """Return the privileges that a worker needs and the role lacks, on what is there."""
        rows = await self._rows(self.statements.sql("examine_privileges"))
        return [str(name) for [name] in rows]

    async def missing_partitions(self, days: int) -> dict[str, int]:
        """Return the leaves that are missing, from today to `days` ahead, each with its distance from today."""
        rows = await self._rows(self.statements.sql("examine_partitions"), days)
        return {str(name): cast(int, distance) for name, distance in rows}

    async def pins(self) -> list[Pin]:
        """Return the transactions, slots and standbys that may pin the horizon of vacuum, the farthest back first."""
        rows = await self._rows(self.statements.sql("examine_pins"))
        return [as_pin(row) for row in rows]

    async def sample_horizon(self) -> Sample:
        """Return how many dead rows there are, what claims have cost, and what the guard of the workers knows."""
        [row] = await self._rows(self.statements.sql("sample_horizon"))
        return msgspec.json.decode(str(row[0]), type=Sample)

    async def pooling(self) -> Pooling:
        """Find out whether the sessions of the server are this client's alone."""
        told = self._first.info.backend_pid
        pids: set[object] = set()
        strangers = False
        for _ in range(_ROUNDS):
            for conn, mark in ((self._first, "first"), (self._second, "second")):
                [(before, pid, _mark)] = await self._rows(self.statements.sql("mark_session"), mark, conn=conn)
                strangers = strangers or (before or mark) != mark
                if conn is self._first:
                    pids.add(pid)
        return Pooling(pooler=pids != {told}, shared=strangers or len(pids) > 1)

    async def identity(self) -> tuple[object, ...]:
        """Return what tells this database of this server from every other one."""
        [row] = await self._rows(self.statements.sql("identify"))
        return row

    async def due_clock(self) -> DueClock:
        """Return by what due times go."""
        [(now, manual)] = await self._rows(self.statements.sql("read_clock"))
        return DueClock(cast(datetime, now), cast(bool, manual))

    async def hears(self) -> bool:
        """Say whether a connection that listens hears what another one sends."""
        channel = f"piecework_doctor_{secrets.token_hex(8)}"
        with self._bounded():
            await self._first.execute(b"LISTEN " + channel.encode())
        await self._rows(self.statements.sql("notify"), channel, conn=self._second)
        with self._bounded():
            heard = [notice async for notice in self._first.notifies(timeout=_HEARD_WITHIN, stop_after=1)]
            await self._first.execute(b"UNLISTEN *")
        return bool(heard)

    async def _rows(
        self, statement: bytes, *params: object, conn: AsyncConnection | None = None
    ) -> list[tuple[object, ...]]:
        with self._bounded():
            # Never prepared by name: a pooler may hand the next statement to another session.
            return await (await (conn or self._first).execute(statement, params, prepare=False)).fetchall()

    @contextmanager
    def _bounded(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        given_up = [loop.call_later(_DEADLINE, sever, conn) for conn in (self._first, self._second)]
        try:
            with translated(self._dsn):
                yield
        finally:
            for timer in given_up:
                timer.cancel()
