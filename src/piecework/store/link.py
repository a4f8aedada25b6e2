"""One reserved connection of a worker: re-made when it is lost, with a growing, jittered pause."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager

from piecework.base.errors import DatabaseError, DatabaseUnreachable
from piecework.base.threads import in_thread
from piecework.store.connection import (
    WIRE,
    AsyncConnection,
    ReadOnlyServer,
    Wire,
    condition,
    is_pooled,
    pinned,
    translated,
)
from piecework.store.dsn import describe
from piecework.store.statements import Statements

log = logging.getLogger("piecework.worker")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


class DatabaseHealth:
    """Whether a worker has its database: one log line per change, not one per try.

    Shared by all links of a worker, used on its loop only.
    """

    def __init__(self, dsn: str) -> None:
        self._where = describe(dsn)
        self._failing: set[object] = set()
        self._outages = 0
        self._opened: dict[object, int] = {}
        self._pooled = False
        self.epoch = 0
        """Rises when all connections are to be made anew."""

    def distrust(self) -> None:
        """Have all links connect anew: the server they are at has become read-only."""
        self.epoch += 1

    def pooled(self) -> None:
        """Note that a connection leads to a pooler."""
        if not self._pooled:
            self._pooled = True
            log.info("a pooler stands before the database at %s: nothing rests on its sessions", self._where)

    def opened(self, link: object) -> None:
        """Note that a link has a new connection."""
        self._opened[link] = self._outages

    def lost(self, link: object, error: Exception) -> None:
        """Note that a link cannot do its work."""
        if not self._failing:
            if self._opened.pop(link, self._outages) < self._outages:
                return  # its connection is from before the last outage, and broke in that
            self._outages += 1
            log.warning("the database is lost, running jobs go on and claiming waits: %s", error)
        self._failing.add(link)

    def back(self, link: object) -> None:
        """Note that a link works."""
        if link in self._failing:
            self._failing.remove(link)
            if not self._failing:
                log.warning("the database at %s is back, the worker goes on", self._where)


class Link:
    """A connection in autocommit mode that one loop of a worker uses alone (invariant H).

    Args:
        dsn: complete, from the store.
        statements: the SQL of the schema.
        health: told of every loss and return.
        deadline: seconds after which a statement without an answer is given up, and the connection with it.
        revive: called in a thread before a reconnect; brings the embedded server back.
        wire: opens the connection.
        listens_anyway: through a pooler as well: it was named for that, and may keep its sessions apart.
    """

    def __init__(
        self,
        dsn: str,
        statements: Statements,
        health: DatabaseHealth,
        deadline: float = 20.0,
        revive: Callable[[], object] | None = None,
        wire: Wire = WIRE,
        *,
        listens_anyway: bool = False,
    ) -> None:
        self.dsn = dsn
        self.listens_anyway = listens_anyway
        self.statements = statements
        self.health = health
        self._deadline = deadline
        self._revive = revive
        self._wire = wire
        self._epoch = health.epoch
        self._conn: AsyncConnection | None = None
        self._pause = _FIRST_PAUSE

    async def connection(self) -> AsyncConnection:
        """Return the open connection, opening it where needed.

        Raises:
            DatabaseUnreachable: a single try failed. Whoever retries calls `pause` in between.
        """
        if self.distrusted:
            self._epoch = self.health.epoch
            await self.drop()
        if self._conn is None or self._conn.closed:
            try:
                self._conn = await self._wire.connect(self.dsn, self.statements.pins)
            except DatabaseError as error:
                self.health.lost(self, error)
                if self._revive is not None:
                    await in_thread("embedded-postgres", self._try_to_revive)
                raise
            self.health.opened(self)
            if is_pooled(self._conn):
                self.health.pooled()
        return self._conn

    async def value(self, statement: str, *params: object) -> object:
        """Run the statement of `sql/<statement>.sql` and return the first value of its first row, None without one.

        Raises:
            DatabaseUnreachable: the connection cannot be opened, or broke: whether the statement ran is unknown.
            DatabaseError: the server cannot do it now; a later try may succeed.
        """
        conn = await self.connection()
        try:
            with translated(self.dsn), self.deadline(conn):
                async with pinned(conn):
                    cursor = await conn.execute(self.statements.sql(statement), params)
                    row = await cursor.fetchone() if cursor.description is not None else None
        except DatabaseError as error:
            self.health.lost(self, error)
            if isinstance(error, ReadOnlyServer):
                self.health.distrust()
            if isinstance(error, DatabaseUnreachable):
                await self.drop()
            raise
        self.works()
        return row[0] if row else None

    @contextmanager
    def deadline(self, conn: AsyncConnection) -> Generator[None]:
        """Sever `conn` if what is done with it here takes longer than the deadline.

        A timeout would ask a server that does not answer to cancel the statement, and wait for that.
        """
        given_up = asyncio.get_running_loop().call_later(self._deadline, self._wire.sever, conn)
        try:
            yield
        finally:
            given_up.cancel()

    @property
    def distrusted(self) -> bool:
        """Whether the connection is to be made anew."""
        return self._epoch != self.health.epoch

    @property
    def condition(self) -> str:
        """The state of the connection."""
        return condition(self._conn)

    def works(self) -> None:
        """Note that a statement was answered: pauses are short again."""
        self._pause = _FIRST_PAUSE
        self.health.back(self)

    async def pause(self) -> None:
        """Wait before the next try: 50 ms doubling to 2 s, each drawn between half and whole."""
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    async def drop(self) -> None:
        """Close the connection; the next use opens another."""
        if self._conn is not None:
            conn, self._conn = self._conn, None
            await conn.close()

    def _try_to_revive(self) -> None:
        assert self._revive is not None
        try:
            self._revive()
        except Exception as error:
            log.debug("the embedded server did not come back: %s", error)
