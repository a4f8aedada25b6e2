"""What one `Jobs` opens: its store, and under it the application's pool, or the embedded server where none is named."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass

from piecework.base.errors import ConfigurationError
from piecework.base.texts import shown
from piecework.base.threads import in_thread
from piecework.store.connection import WIRE, Wire
from piecework.store.connections import AsyncPool, conninfo_of, open_pool, refuse_other_pools
from piecework.store.embedded import EmbeddedServer, acquire
from piecework.store.statements import Statements
from piecework.store.store import Store

DSN_VARIABLE = "PIECEWORK_DATABASE_URL"
LISTEN_VARIABLE = "PIECEWORK_LISTEN_URL"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """Which database, and how it is used; checked when it is made, without I/O."""

    dsn: str | None
    listen_dsn: str | None = None
    pool: AsyncPool | None = None
    schema: str
    migrate: bool | None
    """None: yes, unless there is a pool."""
    max_connections: int
    wire: Wire = WIRE
    """Opens the connections."""

    def __post_init__(self) -> None:
        if self.pool is not None:
            if self.dsn is not None:
                raise ConfigurationError("Jobs(dsn=…, pool=…): each names a database, so one of them has to go")
            refuse_other_pools(self.pool)
        if not isinstance(self.dsn, str | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"Jobs(dsn=…) got a {type(self.dsn).__name__}: the DSN is a text, as in Jobs('postgresql://…')")
        if not isinstance(self.listen_dsn, str | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            kind = type(self.listen_dsn).__name__
            raise ConfigurationError(f"Jobs(listen_dsn=…) got a {kind}: the DSN is a text, as in postgresql://…")
        if type(self.max_connections) is not int or self.max_connections < 1:
            raise ConfigurationError(f"Jobs(max_connections={shown(self.max_connections)}) takes an int of 1 or more")
        Statements(self.schema)  # refuses what cannot be a schema's name

    def check_own_loop(self) -> None:
        """Refuse to be opened on a loop made for it.

        Raises:
            ConfigurationError: the pool is in use on another loop.
        """
        if self.pool is not None and not self.pool.closed:
            raise ConfigurationError(
                f"Jobs(pool={self.pool!r}) cannot be opened by `with jobs:`, since the pool is open on another loop: "
                "write `async with jobs:` there, or give the pool as it was made, with open=False"
            )


class Database:
    """An open store, with what has to be closed after it. Used on one loop."""

    def __init__(self, store: Store, applied: Sequence[str], below: AsyncExitStack) -> None:
        self.store = store
        self.applied = tuple(applied)
        """The migrations and functions that opening applied."""
        self._below = below

    @classmethod
    async def open(cls, settings: DatabaseSettings) -> Database:
        """Connect: by the pool or the DSN of the settings, else that of the environment, else to the embedded server.

        Raises:
            ConfigurationError: the pool was closed before.
            EmbeddedError: the embedded server cannot be found or started.
            DatabaseUnreachable, PermissionDenied, MigrationsNeeded, SchemaTooNew: as `Store.open`.
        """
        pool = settings.pool
        async with AsyncExitStack() as below:
            listen_dsn = settings.listen_dsn
            if pool is None:
                if settings.dsn is None:  # the environment's go together
                    listen_dsn = listen_dsn or os.environ.get(LISTEN_VARIABLE) or None
                dsn, revive = await _named(settings.dsn, below)
            else:
                if pool.closed:
                    await open_pool(pool)
                    below.push_async_callback(pool.close)
                dsn, revive = await conninfo_of(pool), None
            store = Store(
                dsn, schema=settings.schema, max_connections=settings.max_connections, revive=revive, pool=pool,
                listen_dsn=listen_dsn if revive is None else None,  # nothing stands before the embedded server
                wire=settings.wire,
            )  # fmt: skip
            applied = await store.open(migrate=pool is None if settings.migrate is None else settings.migrate)
            return cls(store, applied, below.pop_all())

    async def close(self) -> None:
        """Close the connections, then a pool that this opened, and give the embedded server back."""
        async with self._below:
            await self.store.close()


async def _named(dsn: str | None, below: AsyncExitStack) -> tuple[str, Callable[[], object] | None]:
    """Return the DSN, and what brings its server back, if that is for us to do."""
    if dsn is None:
        dsn = os.environ.get(DSN_VARIABLE) or None
    if dsn is not None:
        return dsn, None
    server = below.enter_context(closing(await _lease()))
    return server.dsn, server.ensure


async def _lease() -> EmbeddedServer:
    leasing = asyncio.create_task(in_thread("embedded-postgres", acquire), name="embedded-postgres")
    try:
        return await asyncio.shield(leasing)
    except asyncio.CancelledError:
        # The thread cannot be stopped: what it gets in the end is given back.
        leasing.add_done_callback(lambda task: None if task.cancelled() or task.exception() else task.result().close())
        raise
