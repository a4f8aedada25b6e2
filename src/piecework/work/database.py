"""What one `Jobs` opens: its store, and the embedded server under it where no DSN says otherwise."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

from piecework.base.errors import ConfigurationError
from piecework.base.threads import in_thread
from piecework.store.embedded import EmbeddedServer, acquire
from piecework.store.statements import Statements
from piecework.store.store import Store

DSN_VARIABLE = "PIECEWORK_DATABASE_URL"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """Which database, and how it is used; checked when it is made, without I/O."""

    dsn: str | None
    schema: str
    migrate: bool
    max_connections: int

    def __post_init__(self) -> None:
        if not isinstance(self.dsn, str | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"Jobs({self.dsn!r}): the DSN is a text, as in Jobs('postgresql://…')")
        if type(self.max_connections) is not int or self.max_connections < 1:
            raise ConfigurationError(f"Jobs(max_connections={self.max_connections!r}) takes an int of 1 or more")
        Statements(self.schema)  # refuses what cannot be a schema's name


class Database:
    """An open store, with the lease of the embedded server if it is on that. Used on one loop."""

    def __init__(self, store: Store, server: EmbeddedServer | None, applied: Sequence[str]) -> None:
        self.store = store
        self.applied = tuple(applied)
        """The migrations and functions that opening applied."""
        self._server = server

    @classmethod
    async def open(cls, settings: DatabaseSettings) -> Database:
        """Connect: to the DSN of the settings, else that of the environment, else to the embedded server.

        Raises:
            EmbeddedError: the embedded server cannot be found or started.
            DatabaseUnreachable, PermissionDenied, MigrationsNeeded, SchemaTooNew: as `Store.open`.
        """
        dsn, server = settings.dsn, None
        if dsn is None:
            dsn = os.environ.get(DSN_VARIABLE) or None
        if dsn is None:
            server = await _lease()
            dsn = server.dsn
        try:
            store = Store(
                dsn,
                schema=settings.schema,
                max_connections=settings.max_connections,
                revive=None if server is None else server.ensure,
            )
            applied = await store.open(migrate=settings.migrate)
        except BaseException:
            if server is not None:
                server.close()
            raise
        return cls(store, server, applied)

    async def close(self) -> None:
        """Close the connections, and give the embedded server back."""
        try:
            await self.store.close()
        finally:
            if self._server is not None:
                self._server.close()


async def _lease() -> EmbeddedServer:
    leasing = asyncio.create_task(in_thread("embedded-postgres", acquire), name="embedded-postgres")
    try:
        return await asyncio.shield(leasing)
    except asyncio.CancelledError:
        # The thread cannot be stopped: what it gets in the end is given back.
        leasing.add_done_callback(lambda task: None if task.cancelled() or task.exception() else task.result().close())
        raise
