"""Brings a schema up to date while others work on it: waits for no lock for long, tries again, and says who has it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import NamedTuple, TypeVar, cast

import psycopg

from piecework.base.errors import DatabaseError
from piecework.store import migrating
from piecework.store.connection import AsyncConnection, Wire, translated
from piecework.store.dsn import describe
from piecework.store.migrating import Migration
from piecework.store.statements import Statements

T = TypeVar("T")

log = logging.getLogger("piecework.migration")

_PAUSES = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 5.0, 5.0)
"""Seconds between two tries, in which those go on who had to wait meanwhile."""
_FIRST_LOOK, _LOOK = 0.2, 0.1
_SHOWN = 3
_NOT_NOW = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
_STATEMENT = re.compile(r'^SQL statement "(.*?)"$', re.MULTILINE | re.DOTALL)
_MOST_OF_STATEMENT = 200


class Migrator:
    """Applies what a schema lacks, on connections of its own.

    Args:
        dsn: leads to the database.
        statements: of the schema.
        wire: opens the connections.
    """

    def __init__(self, dsn: str, statements: Statements, wire: Wire) -> None:
        self._dsn = dsn
        self._statements = statements
        self._schema = statements.schema
        self._wire = wire
        self._lookout = _Lookout(dsn, statements, wire)

    async def migrate(self) -> list[str]:
        """Bring the schema to this version, one migrator at a time, in one transaction but for indexes of large tables.

        A lock that others would have to wait behind is waited for half a second at a time, and asked for again after a
        growing pause.

        Returns:
            The names of the migrations and functions applied.

        Raises:
            DatabaseError: a lock was not to be had, in ten tries; says who has it. What was applied before stays.
            PermissionDenied: the schema is missing and the role may not create it.
            SchemaTooNew, DatabaseError: as `migrating.check`.
        """
        applied: list[str] = []
        async with AsyncExitStack() as stack:
            conn = await self._wire.connect(self._dsn, self._statements.pins)
            stack.push_async_callback(conn.close)
            await stack.enter_async_context(self._lookout)
            with translated(self._dsn):
                while migrating.pending(state := await migrating.schema_state(conn, self._statements)):
                    migrating.check_texts(state, self._schema)
                    index = migrating.next_index(migrating.next_parts(state), state)
                    if index is not None:
                        await self._tried(partial(self._make, conn, index))
                    applied += await self._tried(partial(self._apply, conn, index))
            migrating.check(state, self._schema)
        return applied

    async def _apply(self, conn: AsyncConnection, made: Migration | None) -> list[str]:
        """Apply what goes in one transaction; nothing where another index than the one `made` has to be made first."""
        async with conn.transaction():
            await self._limit(conn)
            try:
                await conn.execute(self._statements.sql("lock_migrations"), [self._schema])
            except psycopg.errors.LockNotAvailable as error:
                raise _Turn from error
            state = await migrating.schema_state(conn, self._statements)
            migrating.check_texts(state, self._schema)
            migrating.check_may_create(state, self._schema)
            parts = migrating.next_parts(state)
            if migrating.next_index(parts, state) not in (None, made):
                return []
            for statement in migrating.script(self._statements, parts) if parts else ():
                await conn.execute(statement.encode())
        return [part.name for part in parts]

    async def _make(self, conn: AsyncConnection, migration: Migration) -> None:
        """Make an index while others write, anew if what is there was interrupted."""
        async with conn.transaction():
            await self._limit(conn)
            await conn.execute(migrating.clearing_indexes(self._statements, [migration]).encode())
        self._lookout.pid = None  # it may take its time: nobody waits for it
        log.info("the index %s is made while work goes on, after the transactions that are open now", migration.index)
        await conn.execute(migrating.making_index(self._statements, migration).encode())

    async def _limit(self, conn: AsyncConnection) -> None:
        row = await (await conn.execute(self._statements.sql("limit_lock_waits"))).fetchone()
        assert row is not None
        self._lookout.pid = cast(int, row[0])

    async def _tried(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do a step again when a lock was not to be had.

        Raises:
            DatabaseError: after the last try.
        """
        for pause in (*_PAUSES, None):
            self._lookout.seen = []
            try:
                return await step()
            except (_Turn, *_NOT_NOW) as error:
                if pause is None:
                    raise self._given_up(error) from error
                self._tell(error, pause)
            await asyncio.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _tell(self, error: Exception, pause: float) -> None:
        why = self._lookout.report(error)
        if isinstance(error, _Turn):
            log.info("another one migrates the schema %r: %s; tried again in %.1f s", self._schema, why, pause)
        else:
            log.warning("the migration of the schema %r waits: %s; tried again in %.1f s", self._schema, why, pause)

    def _given_up(self, error: Exception) -> DatabaseError:
        return DatabaseError(
            f"the schema {self._schema!r} at {describe(self._dsn)} was not migrated, since a lock was not to be had in "
            f"{len(_PAUSES) + 1} tries: {self._lookout.report(error)}. Let that transaction end, or end it by "
            "pg_terminate_backend(PID), and run `piecework migrate` again: nothing is left half done"
        )


class _Turn(Exception):
    """Another migrator is at work."""


class _Blocker(NamedTuple):
    pid: int
    application: str
    state: str
    age: float
    query: str

    def __str__(self) -> str:
        if self.pid == 0:
            return "a prepared transaction (pg_prepared_xacts)"
        name = f" of {self.application!r}" if self.application else ""
        state = f", {self.state}" if self.state else ""
        query = " ".join(self.query.split())
        return f"session {self.pid}{name}{state}, in its transaction for {self.age:.1f} s: {query}"


class _Lookout:
    """Looks, from a connection of its own, for whom the migrating session waits. Most are done before it does."""

    def __init__(self, dsn: str, statements: Statements, wire: Wire) -> None:
        self._dsn = dsn
        self._statements = statements
        self._wire = wire
        self._task: asyncio.Task[None] | None = None
        self._failed = ""
        self.pid: int | None = None
        """The session's process; None: it waits for nobody."""
        self.seen: list[_Blocker] = []

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._look(), name="migration-lookout")

    async def __aexit__(self, *raised: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    def report(self, error: BaseException | None = None) -> str:
        """Say which statement waited, and for whom."""
        unseen = f"cannot be seen: {self._failed}" if self._failed else "was gone when looked for"
        who = "; ".join(map(str, self.seen[:_SHOWN])) or f"somebody who {unseen}"
        return f"{statement} waited for {who}" if (statement := _statement(error)) else who

    async def _look(self) -> None:
        await asyncio.sleep(_FIRST_LOOK)
        try:
            conn = await self._wire.connect(self._dsn, self._statements.pins)
            try:
                while True:
                    if (pid := self.pid) is not None:
                        cursor = await conn.execute(self._statements.sql("blockers"), [pid])
                        if rows := await cursor.fetchall():
                            self.seen = [_Blocker(*cast("tuple[int, str, str, float, str]", row)) for row in rows]
                    await asyncio.sleep(_LOOK)
            finally:
                await conn.close()
        except (DatabaseError, psycopg.Error) as error:
            self._failed = str(error)


def _statement(error: BaseException | None) -> str:
    """Return the statement inside of a function or block that PostgreSQL says it was at."""
    if not isinstance(error, psycopg.Error) or (found := _STATEMENT.search(error.diag.context or "")) is None:
        return ""
    return " ".join(found.group(1).split())[:_MOST_OF_STATEMENT]
