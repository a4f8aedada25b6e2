"""Everything that the application's side asks of the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, TypeAlias, TypeVar
from uuid import UUID

import msgspec
import psycopg

from piecework.base.errors import ConfigurationError, DatabaseError, DatabaseUnreachable
from piecework.base.ids import JobId
from piecework.model.job import NewJob
from piecework.model.snapshot import JobSnapshot
from piecework.store import migrating, reading
from piecework.store.cancelling import CancelAnswer
from piecework.store.connection import (
    LIMIT_ERRORS,
    WIRE,
    AsyncConnection,
    Wire,
    connect,
    pinned,
    transaction_pins,
    translated,
)
from piecework.store.connections import AsyncPool, Connections, NoneFree, PooledConnections
from piecework.store.dsn import complete_dsn, describe
from piecework.store.inserting import Inserter
from piecework.store.lending import Lending
from piecework.store.migrator import Migrator
from piecework.store.run_writes import Request
from piecework.store.statements import Statements

T = TypeVar("T")
_decode = msgspec.json.Decoder().decode
_DAYS_AHEAD = 7


class KeyHeld(NamedTuple):
    """The job ended, and a live job of its type has its key."""

    holder: JobId


RetryAnswer: TypeAlias = Literal["retried", "live", "unknown"] | KeyHeld


class Store:
    """The database of one `Jobs`. Bound to the event loop that opened it.

    Args:
        dsn: any libpq connection string.
        schema: the schema that holds everything of piecework.
        max_connections: at most so many connections at once; they are opened when needed.
        revive: called in a thread when the server cannot be reached, before one further try.
        pool: open, and to the same database: its connections are used instead, and it is not closed.
        listen_dsn: leads to the same database past a pooler; None: `dsn` does for all.
        wire: opens the connections, also those of workers.

    Raises:
        ConfigurationError: `dsn`, `listen_dsn` or `schema` is no such thing.
    """

    def __init__(
        self,
        dsn: str,
        *,
        schema: str = "piecework",
        max_connections: int = 4,
        revive: Callable[[], object] | None = None,
        pool: AsyncPool | None = None,
        listen_dsn: str | None = None,
        wire: Wire = WIRE,
    ) -> None:
        self.dsn = complete_dsn(dsn)
        self.listen_dsn = None if listen_dsn is None else complete_dsn(listen_dsn)
        """Where workers listen and beat, if that is elsewhere."""
        self.schema = schema
        self.statements = Statements(schema)
        self.revive = revive
        self.wire = wire
        self._most = max_connections
        self._pool = pool
        self._connections: Connections | PooledConnections | None = None
        self._inserter = Inserter(self.statements, self._once, self.load)
        self.lending = Lending(self.dsn, self.statements.pins_of_lent, max_connections, revive, wire)
        """Lends connections to runs, also where there is a pool."""

    async def open(self, *, migrate: bool) -> list[str]:
        """Check the connection and bring the schema up to date, or with `migrate=False` only check it.

        Returns:
            The names of the migrations and functions that were applied.

        Raises:
            DatabaseUnreachable, DatabaseError, PermissionDenied, MigrationsNeeded, SchemaTooNew
        """
        connections: Connections | PooledConnections
        if self._pool is None:
            connections = Connections(self.dsn, self.statements.pins, self._most, self.revive, self.wire)
        else:
            connections = PooledConnections(self._pool, self.dsn, self.statements.sql("pin_transaction"))
        self._connections = connections
        try:
            async with connections.take() as conn:
                with translated(self.dsn):
                    state = await migrating.schema_state(conn, self.statements)
            if state.spawns_only:
                return []
            if migrate and migrating.pending(state):
                return await Migrator(self.dsn, self.statements, self.wire).migrate()
            migrating.check(state, self.schema)
            return []
        except BaseException:
            await self.close()
            raise

    async def check_listen_dsn(self) -> None:
        """Find out whether `listen_dsn` leads to the same database.

        Raises:
            ConfigurationError: to another one.
            DatabaseError
        """
        if self.listen_dsn is None:
            return
        [here] = await self.rows("identify")
        conn = await connect(self.listen_dsn, self.statements.pins)
        try:
            with translated(self.listen_dsn):
                there = await (await conn.execute(self.statements.sql("identify"))).fetchone()
        finally:
            await conn.close()
        if here != there:
            raise ConfigurationError(
                f"listen_dsn leads to {describe(self.listen_dsn)}, which is another database or server than that of "
                f"the DSN, {describe(self.dsn)}: name the same one, past the pooler"
            )

    async def close(self) -> None:
        """Close the connections, when what waits to be spawned has been. Calling it again does nothing."""
        await self._inserter.close()
        await self.lending.close()
        if self._connections is not None:
            connections, self._connections = self._connections, None
            await connections.close()

    async def spawn(self, jobs: Sequence[NewJob]) -> dict[int, UUID]:
        """Insert jobs, all or none, in one round trip and one transaction.

        When the connection breaks before the answer, the same insert is sent once more, unless it is found to have
        landed.

        Returns:
            By position, the live jobs that hold the keys of jobs which were therefore not created.

        Raises:
            JobAlreadyExists: a job with an id that the caller chose exists, live or finished; names it.
            InvalidConfig: PostgreSQL refuses a value (a NUL in a text, for one).
            DatabaseError: an open transaction of somebody's has held a key for too long.
            DatabaseUnreachable, PermissionDenied, MigrationsNeeded
        """
        return await self._inserter.spawn(jobs)

    async def spawn_parts(self, parts: Iterator[Sequence[NewJob]]) -> dict[int, UUID]:
        """Insert the jobs of all parts, all or none, each while the next one is made: as `spawn` does.

        Raises: as `spawn`, and whatever `parts` raises; then nothing is inserted.
        """
        return await self._inserter.spawn_parts(parts)

    async def load(self, ids: Sequence[JobId]) -> list[JobSnapshot | None]:
        """Return the jobs of these ids in their order, None for an unknown one.

        One statement reads all that are known, so that none is torn; a second one looks for the others in the whole
        history.
        """
        since = reading.not_before(ids)
        rows = await self.rows("load_jobs", list(ids), since)
        found = {snapshot.id: snapshot for snapshot in map(reading.snapshot, rows)}
        missing = [id for id in ids if id not in found]
        if missing and since > reading.EVER:
            rows = await self.rows("load_jobs", missing, reading.EVER)
            found |= {snapshot.id: snapshot for snapshot in map(reading.snapshot, rows)}
        return [found.get(id) for id in ids]

    async def cancel(self, ids: Sequence[JobId]) -> list[CancelAnswer]:
        """End the jobs of these ids that no worker holds, and request it of the others' workers; each id is answered.

        What was `requested` ends `cancelled`, unless it completes all the same.
        """
        done = {UUID(str(id)): str(answer) for id, answer in await self.rows("cancel_jobs", list(ids))}
        rest = await self.load([id for id in ids if id not in done])
        ended = {snapshot.id for snapshot in rest if snapshot is not None}

        def answer(id: JobId) -> CancelAnswer:
            if id in done:
                return "requested" if done[id] == "requested" else "cancelled"
            return "finished" if id in ended else "unknown"

        return [answer(id) for id in ids]

    async def retry(self, ids: Sequence[JobId]) -> list[RetryAnswer]:
        """Bring finished jobs back to pending, due now, counters anew; each id is answered."""
        answers = await self._bring_back(ids, reading.not_before(ids))
        rest = await self.load([id for id in ids if id not in answers])
        if older := [snapshot.id for snapshot in rest if snapshot is not None and snapshot.finished]:
            answers |= await self._bring_back(older, reading.EVER)
        live = {snapshot.id for snapshot in rest if snapshot is not None and not snapshot.finished}
        return [answers.get(id, "live" if id in live else "unknown") for id in ids]

    async def _bring_back(self, ids: Sequence[JobId], since: datetime) -> dict[JobId, RetryAnswer]:
        rows = await self.rows("retry_jobs", list(ids), since)
        return {UUID(str(id)): "retried" if holder is None else KeyHeld(UUID(str(holder))) for id, holder in rows}

    async def write(self, request: Request) -> str | None:
        """Write what a run asks to, in a transaction of its own, and return what the database answers.

        Raises:
            DatabaseError: an open transaction holds the job, or a value is refused.
            DatabaseUnreachable, PermissionDenied, MigrationsNeeded
        """

        async def send(conn: AsyncConnection) -> str | None:
            try:
                row = await (await conn.execute(self.statements.sql(request.statement), [request.payload])).fetchone()
            except psycopg.errors.LockNotAvailable as error:
                raise DatabaseError(
                    f"{request.statement}: an open transaction holds the job, or writes the same of it. If that is "
                    "this run's own, a completing block for one, write with its connection: conn=…"
                ) from error
            except (psycopg.DataError, *LIMIT_ERRORS) as error:
                raise DatabaseError(
                    f"{request.statement}: PostgreSQL refuses a value: {error.diag.message_primary or error}"
                ) from error
            return None if row is None or row[0] is None else str(row[0])

        return await self._call(send)

    async def rows(self, statement: str, *params: object) -> list[tuple[object, ...]]:
        """Run the statement of `sql/<statement>.sql` and return its rows."""

        async def fetch(conn: AsyncConnection) -> list[tuple[object, ...]]:
            return await (await conn.execute(self.statements.sql(statement), params)).fetchall()

        return await self._call(fetch)

    async def _call(self, call: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `call` on a connection, and once more after making the leaf of the history that it misses."""
        try:
            return await self._try(call)
        except psycopg.errors.CheckViolation as error:
            if "no partition" not in str(error):
                raise
        await self._try(lambda conn: conn.execute(self.statements.sql("add_partitions"), [_DAYS_AHEAD]))
        return await self._try(call)

    async def _try(self, call: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `call` on a connection; once more on a fresh one when the first was found dead or broke."""
        try:
            return await self._once(call)
        except DatabaseUnreachable as error:
            if isinstance(error, NoneFree):
                raise
        return await self._once(call)

    async def _once(self, call: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        connections = self._connections
        assert connections is not None, "the store is not open"
        try:
            async with connections.take() as conn:
                try:
                    if transaction_pins(conn) is None:
                        return await call(conn)
                    async with pinned(conn):
                        return await call(conn)
                except psycopg.Error:
                    with translated(self.dsn):
                        raise
        except NoneFree:
            raise
        except DatabaseUnreachable:
            await connections.forget_idle()
            raise
