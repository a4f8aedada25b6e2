"""What a bench asks of the server: its counters, the waits of a commit and a round trip, and what came of all jobs."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import cast

import msgspec
import psycopg

from piecework.store.connection import AsyncConnection, connect, translated
from piecework.store.statements import Statements

_PROBES = 50
_WARM = 6
"""The driver prepares a statement that it has seen so often."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A server, a database and a role."""

    version: str
    database: str
    role: str
    may_create: bool
    """Whether the role may create a schema."""
    pid: int
    """Of the session that asks, as the server's machine knows it."""
    since: float
    """When that session began, in seconds since 1970."""


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What came of all jobs of a schema. Seconds are by the server's clock."""

    live: int
    finished: int
    different: int
    """Jobs among those that finished: fewer than `finished` if one did so twice."""
    completed: int
    seconds: float
    """From the first start to the last end."""
    seconds_since_created: float
    """From the first spawn to the last end."""
    seconds_together: float
    """From when each worker had started a job to the last end."""
    finished_together: int
    """What finished in that time."""
    waits: tuple[float, float, float, float, float] | None
    """Seconds from the insert of a job to its start: 50, 90, 99, 99.9 and 100 %. None: nothing finished."""


@dataclass(frozen=True, slots=True)
class Counters:
    """As they stand."""

    commits: int
    """Of the whole database."""
    dead_rows: int
    wal_bytes: int | None
    """Of the whole server; None: it does not say."""
    statements: int | None
    """That name the schema; None: there is no pg_stat_statements."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Medians, in seconds."""

    round_trip: float
    commit: float
    """What a small write waits for besides its round trip."""


class Gauge:
    """A connection of its own, which outlives the schema that is measured. Every method raises DatabaseError."""

    def __init__(self, dsn: str, statements: Statements, conn: AsyncConnection) -> None:
        self._dsn = dsn
        self._statements = statements
        self._conn = conn

    @classmethod
    @asynccontextmanager
    async def of(cls, dsn: str, statements: Statements) -> AsyncGenerator[Gauge]:
        """Connect, and close the connection at the end.

        Args:
            dsn: complete.
            statements: those of the schema that is measured; it need not be there yet.

        Raises:
            DatabaseUnreachable, DatabaseError: as `connect`.
        """
        conn = await connect(dsn, statements.pins)
        try:
            yield cls(dsn, statements, conn)
        finally:
            await conn.close()

    async def server(self) -> Server:
        """Return what there is to say of the server, the database and the role."""
        return msgspec.json.decode(str(await self._value(self._statements.sql("measure_server"))), type=Server)

    async def counters(self) -> Counters:
        """Read the counters. What another session did is in them at the latest when it has ended."""
        await self._rows(self._statements.sql("measure_flush"))
        [(commits, dead)] = await self._rows(self._statements.sql("measure_counters"))
        return Counters(
            commits=cast(int, commits), dead_rows=cast(int, dead),
            wal_bytes=await self._if_allowed(self._statements.sql("measure_wal")),
            statements=await self._if_allowed(self._statements.sql("measure_statements")),
        )  # fmt: skip

    async def sessions(self) -> int:
        """Return how many sessions bear the schema's name."""
        return cast(int, await self._value(self._statements.sql("measure_sessions")))

    async def waits(self) -> Waits:
        """Find out how long a round trip and a commit take. In a schema that is thrown away."""
        round_trip = await self._timed(self._statements.sql("measure_round_trip"))
        commit = await self._timed(self._statements.sql("measure_commit"))
        return Waits(round_trip, max(commit - round_trip, 0.0))

    async def vacuum(self) -> None:
        """Vacuum and analyze the table of live jobs."""
        with translated(self._dsn):
            await self._conn.execute(self._statements.sql("measure_vacuum"))

    async def drained(self) -> bool:
        """Say whether no job is live."""
        return cast(bool, await self._value(self._statements.sql("measure_drained")))

    async def history(self) -> History:
        """Return what came of all jobs."""
        return msgspec.json.decode(str(await self._value(self._statements.sql("measure_history"))), type=History)

    async def _timed(self, statement: bytes) -> float:
        seconds: list[float] = []
        for _ in range(_WARM + _PROBES):
            start = time.perf_counter()
            with translated(self._dsn):
                await self._conn.execute(statement)
            seconds.append(time.perf_counter() - start)
        return median(seconds[_WARM:])

    async def _if_allowed(self, statement: bytes) -> int | None:
        with translated(self._dsn):
            try:
                row = await (await self._conn.execute(statement)).fetchone()
            except psycopg.Error:
                if self._conn.closed:
                    raise
                return None
        assert row is not None
        return cast(int, row[0])

    async def _value(self, statement: bytes) -> object:
        [row] = await self._rows(statement)
        return row[0]

    async def _rows(self, statement: bytes) -> list[tuple[object, ...]]:
        with translated(self._dsn):
            return await (await self._conn.execute(statement)).fetchall()
