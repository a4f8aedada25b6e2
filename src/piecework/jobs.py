"""The service: it builds the house and opens its doors, and holds no logic of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from piecework.base.errors import AlreadyOpen, ConfigurationError
from piecework.base.garbage import spare_what_stays
from piecework.base.ids import JobId
from piecework.base.texts import shown
from piecework.base.threads import named
from piecework.model.settings import WorkerSettings
from piecework.model.snapshot import JobSnapshot
from piecework.store.connection import Wire
from piecework.store.connections import AsyncPool
from piecework.store.limiting import set_concurrency_limit
from piecework.work import spawner
from piecework.work.connections import AsyncConn, SyncConn
from piecework.work.database import Database, DatabaseSettings
from piecework.work.definitions import Definitions
from piecework.work.ending import read_plain
from piecework.work.handle import JobHandle
from piecework.work.handles import JobHandles
from piecework.work.own_loop import OwnLoop
from piecework.work.placement import checked_id, checked_key_limit
from piecework.work.service import Service
from piecework.work.spawner import JobSpec

if TYPE_CHECKING:
    from piecework.engine.worker import Worker

T = TypeVar("T")

_DEFAULT_WORKER = WorkerSettings()


class Jobs(Definitions):
    """The jobs of one PostgreSQL schema: defines job types, spawns and finds jobs, and runs workers.

    Making one does no I/O. `async with jobs:` opens it on the running event loop; `with jobs:` opens it on an event
    loop in a thread of its own, for programs without asyncio. While it is open, it can be used from every thread and
    loop of the process. Opening it again while it is open raises `AlreadyOpen`: open it once, around everything that
    uses it. After it was closed it can be opened again.

    Args:
        dsn: any libpq connection string. Without it the environment's PIECEWORK_DATABASE_URL counts, and without that
            an embedded PostgreSQL is started, in `.piecework/` of the working directory.
        listen_dsn: where `dsn` leads to a pooler such as pgbouncer, the server's own address: workers listen there for
            new jobs, and send their heartbeats. Without it they look for jobs twice a second. If `dsn` is that of the
            environment, this may be too: PIECEWORK_LISTEN_URL.
        pool: a `psycopg_pool.AsyncConnectionPool` of yours instead: spawning and looking use its connections, and leave
            them as they were. One that is not open yet is opened and closed with this Jobs; an open one is used on the
            loop that opened it, so by `async with jobs:`. A worker opens connections of its own to the same place.
        schema: the schema that holds everything of piecework. Two schemas do not see each other.
        migrate: whether opening brings the schema up to date; else it only checks it. Without a word it does, unless
            there is a pool: then the database is the application's, and so are its migrations.
        max_config_size: the most bytes that the encoded config of a job may take.
        max_connections: the most connections that spawning and looking may use at once; opened when needed. A worker
            has its own, and a pool its own size; runs that complete on connections of ours (`job.completing()`) use up
            to as many besides, in the loop and in threads each.

    Raises:
        ConfigurationError: an argument is wrong, or both a `dsn` and a `pool` were given.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        listen_dsn: str | None = None,
        pool: AsyncPool | None = None,
        schema: str = "piecework",
        migrate: bool | None = None,
        max_config_size: int = 1_048_576,
        max_connections: int = 4,
    ) -> None:
        if type(max_config_size) is not int or max_config_size < 1:
            size = shown(max_config_size)
            raise ConfigurationError(f"Jobs(max_config_size={size}) takes a number of bytes, 1 or more")
        self._settings = DatabaseSettings(
            dsn=dsn, listen_dsn=listen_dsn, pool=pool, schema=schema, migrate=migrate, max_connections=max_connections
        )  # fmt: skip
        self._service = Service(schema=schema, max_config_size=max_config_size)
        self._database: Database | None = None
        self._own_loop: OwnLoop | None = None
        self._in_use = threading.Lock()

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    def __enter__(self) -> Self:
        self._settings.check_own_loop()
        own_loop = OwnLoop()
        try:
            own_loop.run(self._open)
        except BaseException:
            own_loop.stop()
            raise
        self._own_loop = own_loop
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        own_loop, self._own_loop = self._own_loop, None
        assert own_loop is not None, "left without having been entered"
        try:
            own_loop.run(self._close)
        finally:
            own_loop.stop()

    @property
    def dsn(self) -> str:
        """The libpq connection string of the database: for connections of your own, to the embedded server as well.

        Raises:
            NotOpen: this Jobs is not open.
        """
        return self._service.store.dsn

    async def _open(self) -> None:
        if not self._in_use.acquire(blocking=False):
            raise AlreadyOpen("this Jobs is open already: open it once, around everything that uses it")
        try:
            self._database = await Database.open(self._settings)
        except BaseException:
            self._in_use.release()
            raise
        self._service.open(self._database.store)

    async def _close(self) -> None:
        database, self._database = self._database, None
        assert database is not None, "left without having been entered"
        self._service.close()
        try:
            await database.close()
        finally:
            self._in_use.release()

    async def spawn_all(self, specs: Iterable[JobSpec[T]], /, *, conn: AsyncConn | None = None) -> JobHandles[T]:
        """Create many jobs, of any types, in one transaction: all of them or none.

        Up to 1,000 take one round trip; of more, the next 1,000 are made while the database inserts the ones before.

        Args:
            specs: as `send_email.spec(…)` makes them; at least one. A spec is one job: each can be spawned once. What
                makes them should not wait for anything: the transaction is open meanwhile. What it raises is raised
                here, and nothing is spawned.
            conn: the connection or session whose open transaction creates them, as in `options(conn=…)`.

        Raises:
            InvalidOptions: `specs` is empty, holds something else, or two of the same id.
            JobAlreadyExists: a job with one of the ids exists.
            NotOpen: this Jobs is not open, and no `conn` was given.
            DatabaseError: the database cannot be reached, or refuses.
            TransactionError: `conn` cannot be joined, as `JoinedSpawner.spawn` says.
        """
        return await spawner.spawn_all(self._service, specs, conn)

    def spawn_all_sync(self, specs: Iterable[JobSpec[T]], /, *, conn: SyncConn | None = None) -> JobHandles[T]:
        """Block as `spawn_all` waits."""
        return spawner.spawn_all_sync(self._service, specs, conn)

    def handle(self, id: JobId, /) -> JobHandle[object]:
        """Return a handle of the job of this id. Nothing is looked up; its result is read as plain JSON values.

        `send_email.handle(id)` gives a handle with the type of the result.
        """
        return JobHandle(self._service, checked_id(id, "jobs.handle(…)"), read_plain, created=False)

    def handles(self, ids: Iterable[JobId], /) -> JobHandles[object]:
        """Return handles of the jobs of these ids, in their order. Nothing is looked up."""
        return JobHandles(self._service, [self.handle(id) for id in ids])

    async def find(self, id: JobId, /) -> JobSnapshot | None:
        """Return the job of this id as it is now, live or finished; None if there is none."""
        ids = [checked_id(id, "jobs.find(…)")]
        return (await self._service.run(lambda store: store.load(ids)))[0]

    def find_sync(self, id: JobId, /) -> JobSnapshot | None:
        """Block as `find` waits."""
        ids = [checked_id(id, "jobs.find_sync(…)")]
        return self._service.run_sync(lambda store: store.load(ids), "find")[0]

    async def set_concurrency_limit(self, key: str, limit: int | None, /, *, queue: str = "") -> None:
        """Say how many jobs of a concurrency key may run at once. It counts at once: what has room now starts.

        Args:
            key: the key; or with an asterisk at the end the beginning of keys. The key itself counts first, then the
                longest beginning.
            limit: 0 or more; None takes the word back. It counts before the limits that jobs bring along.
            queue: only of this queue, which counts first; empty: of all queues.

        Raises:
            InvalidOptions: an argument is none of these.
            NotOpen, DatabaseError: as `find`.
        """
        checked = checked_key_limit(key, limit, queue)
        await self._service.run(lambda store: set_concurrency_limit(store, *checked))

    def set_concurrency_limit_sync(self, key: str, limit: int | None, /, *, queue: str = "") -> None:
        """Block as `set_concurrency_limit` waits."""
        checked = checked_key_limit(key, limit, queue)
        self._service.run_sync(lambda store: set_concurrency_limit(store, *checked), "set_concurrency_limit")

    @asynccontextmanager
    async def worker(self, settings: WorkerSettings = _DEFAULT_WORKER, /) -> AsyncGenerator[None]:
        """Run a worker in this process, `async with jobs, jobs.worker():`; leaving drains it.

        Raises:
            RegistrationError: a job function's annotations cannot be resolved.
            NotOpen: this Jobs is not open.
        """
        async with self._make_worker(settings):
            yield

    def run_worker(self, settings: WorkerSettings = _DEFAULT_WORKER, /) -> None:
        """Open this Jobs, run a worker until SIGTERM or SIGINT, drain it, and close again. Blocks.

        Called from the main thread, without a running event loop. The process is the worker's: its garbage collector
        passes over what was there before, and looks at the rest more seldom.

        Raises:
            RegistrationError: a job function's annotations cannot be resolved.
            AlreadyOpen: this Jobs is open.
        """

        async def work() -> None:
            async with self:
                worker = self._make_worker(settings)
                spare_what_stays()
                await worker.run_until_signalled()

        asyncio.run(named("job-worker", work))

    def _make_worker(self, settings: WorkerSettings) -> Worker:
        # The one lazy import of the house: a process that only spawns and reads loads no engine.
        from piecework.engine.worker import Worker

        if not self._service.on_owning_loop:
            raise ConfigurationError("jobs.worker() runs on the event loop that opened the Jobs: open it by "
                                     "`async with jobs, jobs.worker():`, not by `with jobs:` or on another loop")
        service = self._service
        return Worker(service, settings, service.waiters.hint)


@contextmanager
def over_wire(jobs: Jobs, wire: Callable[[str], Wire]) -> Generator[None]:
    """Have a `Jobs` that is opened in this block use connections of another kind than its database's: for tests.

    Args:
        jobs: not open.
        wire: makes what opens the connections; takes the schema.
    """
    own = jobs._settings  # pyright: ignore[reportPrivateUsage]
    jobs._settings = replace(  # pyright: ignore[reportPrivateUsage]
        own, dsn="host=nowhere", pool=None, migrate=False, wire=wire(own.schema)
    )
    try:
        yield
    finally:
        jobs._settings = own  # pyright: ignore[reportPrivateUsage]


def service_of(jobs: Jobs) -> Service:
    """Return what the spawners and handles of a `Jobs` share."""
    return jobs._service  # pyright: ignore[reportPrivateUsage]
