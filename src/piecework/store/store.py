"""Everything that the application's side asks of the database."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeAlias, TypeVar
from uuid import UUID

import msgspec
import psycopg

from piecework.base.errors import DatabaseUnreachable, InvalidConfig, JobAlreadyExists
from piecework.base.ids import JobId
from piecework.model.job import NewJob
from piecework.model.snapshot import JobSnapshot
from piecework.store import migrating, reading
from piecework.store.connection import LIMIT_ERRORS, AsyncConnection, complete_dsn, translated
from piecework.store.connections import Connections
from piecework.store.statements import Statements

CancelAnswer: TypeAlias = Literal["cancelled", "requested", "finished", "unknown"]
RetryAnswer: TypeAlias = Literal["retried", "live", "unknown"]

T = TypeVar("T")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_DAYS_AHEAD = 7
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Store:
    """The database of one `Jobs`. Bound to the event loop that opened it.

    Args:
        dsn: any libpq connection string.
        schema: the schema that holds everything of piecework.
        max_connections: at most so many connections at once; they are opened when needed.
        revive: called in a thread when the server cannot be reached, before one further try.

    Raises:
        ConfigurationError: `dsn` or `schema` is no such thing.
    """

    def __init__(
        self,
        dsn: str,
        *,
        schema: str = "piecework",
        max_connections: int = 4,
        revive: Callable[[], object] | None = None,
    ) -> None:
        self.dsn = complete_dsn(dsn)
        self.schema = schema
        self.statements = Statements(schema)
        self.revive = revive
        self._most = max_connections
        self._connections: Connections | None = None

    async def open(self, *, migrate: bool) -> list[str]:
        """Check the connection and bring the schema up to date, or with `migrate=False` only check it.

        Returns:
            The names of the migrations and functions that were applied.

        Raises:
            DatabaseUnreachable, DatabaseError, PermissionDenied, MigrationsNeeded, SchemaTooNew
        """
        self._connections = Connections(self.dsn, self.statements.sql("pin_session"), self._most, self.revive)
        try:
            async with self._connections.take() as conn:
                with translated(self.dsn):
                    if migrate:
                        return await migrating.migrate(conn, self.statements)
                    migrating.check(await migrating.schema_state(conn, self.statements), self.schema)
                    return []
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connections. Calling it again does nothing."""
        if self._connections is not None:
            connections, self._connections = self._connections, None
            await connections.close()

    async def spawn(self, jobs: Sequence[NewJob]) -> None:
        """Insert jobs, all or none, in one round trip and one transaction.

        When the connection breaks before the answer, the same insert is sent once more. That it then meets its own jobs
        says that the first one landed.

        Raises:
            JobAlreadyExists: a job with an id that the caller chose exists, live or finished; names it.
            InvalidConfig: PostgreSQL refuses a value (a NUL in a text, for one).
            DatabaseUnreachable, PermissionDenied, MigrationsNeeded
        """
        payload = _encode(jobs).decode()
        sent = 0

        async def insert(conn: AsyncConnection) -> None:
            nonlocal sent
            sent += 1
            try:
                await conn.execute(self.statements.sql("spawn"), [payload])
            except psycopg.errors.UniqueViolation as error:
                raise JobAlreadyExists(
                    f"a job with this id exists already: {_id_in(error)}. Nothing was spawned; look "
                    "at it with jobs.handle(id), or leave the id out"
                ) from None
            except (psycopg.DataError, psycopg.errors.NotNullViolation, *LIMIT_ERRORS) as error:
                raise InvalidConfig(
                    f"PostgreSQL refuses a value of the job: {error.diag.message_primary}; "
                    f"{error.diag.message_detail or error.sqlstate}. Nothing was spawned"
                ) from None

        try:
            await self._call(insert)
        except JobAlreadyExists:
            if sent < 2 or not await self._are_there(jobs):
                raise

    async def _are_there(self, jobs: Sequence[NewJob]) -> bool:
        # A caller's id may have been another job's before the first sending, so the job itself is compared.
        found = await self.load([UUID(job.id) for job in jobs])
        return all(
            there is not None
            and (not job.chosen or (there.job_type == job.job_type and _decode(there.config) == _decode(job.config)))
            for there, job in zip(found, jobs, strict=True)
        )

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
        done = {UUID(str(row[0])) for row in await self.rows("retry_jobs", list(ids), reading.not_before(ids))}
        rest = await self.load([id for id in ids if id not in done])
        if older := [snapshot.id for snapshot in rest if snapshot is not None and snapshot.finished]:
            done |= {UUID(str(row[0])) for row in await self.rows("retry_jobs", older, reading.EVER)}
        live = {snapshot.id for snapshot in rest if snapshot is not None and not snapshot.finished}
        return ["retried" if id in done else "live" if id in live else "unknown" for id in ids]

    async def rows(self, statement: str, *params: object) -> list[tuple[object, ...]]:
        """Run the statement of `sql/<statement>.sql` and return its rows."""

        async def fetch(conn: AsyncConnection) -> list[tuple[object, ...]]:
            return await (await conn.execute(self.statements.sql(statement), params)).fetchall()

        return await self._call(fetch)

    async def _call(self, call: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `call` on a connection; once more on a fresh one when the first was found dead or broke."""
        connections = self._connections
        assert connections is not None, "the store is not open"
        for last in (False, True):
            try:
                async with connections.take() as conn:
                    with translated(self.dsn):
                        try:
                            return await call(conn)
                        except psycopg.errors.CheckViolation as error:
                            if "no partition" not in str(error):
                                raise
                            await conn.execute(self.statements.sql("add_partitions"), [_DAYS_AHEAD])
                            return await call(conn)
            except DatabaseUnreachable:
                if last:
                    raise
                await connections.forget_idle()
        raise AssertionError("unreachable")


def _id_in(error: psycopg.Error) -> str:
    detail = error.diag.message_detail or str(error)
    found = _UUID.search(detail)
    return found.group() if found else detail
