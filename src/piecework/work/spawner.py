"""Create jobs of one type, or many of any types at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Generic, ParamSpec, cast, overload

import msgspec
from typing_extensions import TypeVar, Unpack

from piecework.base.errors import InvalidOptions
from piecework.base.ids import JobId, new_id
from piecework.model.job import NewJob
from piecework.store import joining, spawning
from piecework.work.connections import AsyncConn, SyncConn
from piecework.work.ending import Read
from piecework.work.handle import JobHandle
from piecework.work.handles import JobHandles
from piecework.work.key_lookups import KeyLookups
from piecework.work.placement import Placement, SpawnOptions, checked_id
from piecework.work.registry import RegisteredJob
from piecework.work.service import Service
from piecework.work.spans import listened_to, spawn_span

P = ParamSpec("P")
R = TypeVar("R", covariant=True, default=None)
X = TypeVar("X", covariant=True)
T = TypeVar("T")
Conn = TypeVar("Conn", covariant=True)
_PART = 1000
"""Jobs that are inserted by one statement; the next ones are made meanwhile."""


# Not looked at by the garbage collector: with many jobs it would take as long as making them.
class JobSpec(msgspec.Struct, Generic[R], eq=False, gc=False):
    """A job that is not spawned yet: encoded, checked, with its id. `jobs.spawn_all` spawns it, once."""

    id: JobId
    new: NewJob
    read: Read[R]

    @property
    def job_type(self) -> str:
        """The job type."""
        return self.new.job_type

    def __repr__(self) -> str:
        return f"<JobSpec {self.job_type} {self.id}>"


class JobSpawner(KeyLookups[R], Generic[P, R]):
    """Creates jobs of one type. `P` are the parameters of the job, `R` is the type of its result."""

    def __init__(self, service: Service, job: RegisteredJob, placement: Placement) -> None:
        super().__init__(service, job)
        self._placement = placement

    @property
    def job_type(self) -> str:
        """The name under which its jobs are stored, and by which a worker finds what runs them."""
        return self._job.job_type

    async def spawn(self, /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Create a job with these arguments. When this returns, the job is committed and will run.

        Raises:
            InvalidConfig: the arguments do not fit the job, or cannot be stored.
            ConfigTooLarge: they take more bytes than `Jobs(max_config_size=…)`.
            InvalidOptions: the key that they make is no text of 1 to 200 characters.
            JobAlreadyExists: a job with the id of `options(id=…)` exists.
            NotOpen: the `Jobs` is not open.
            DatabaseError: the database cannot be reached, or refuses.
        """
        spec = self.spec(*args, **kwargs)
        held = await _spawn(self._service, (spec.new,))
        return _handle(self._service, spec, held)

    def spawn_sync(self, /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Block as `spawn` waits."""
        spec = self.spec(*args, **kwargs)
        with spawn_span((spec.new,)) as jobs:
            held = self._service.run_sync(lambda store: store.spawn(jobs), "spawn")
        return _handle(self._service, spec, held)

    def spec(self, /, *args: P.args, **kwargs: P.kwargs) -> JobSpec[R]:
        """Return a job with these arguments for `jobs.spawn_all`; nothing is spawned, no `Jobs` need be open.

        Raises:
            InvalidConfig, ConfigTooLarge, InvalidOptions: as `spawn`.
        """
        job, placed = self._job, self._placement
        text, config = job.encode_config(args, kwargs, self._service.max_config_size)
        key, concurrency_key = placed.key, placed.concurrency_key
        if key is None and job.make_key is not None:
            key = job.make_key(config)
        if concurrency_key is None and job.make_concurrency_key is not None:
            concurrency_key = job.make_concurrency_key(config)
        id = new_id() if placed.id is None else placed.id
        new = NewJob(
            id=id,
            job_type=job.job_type,
            config=msgspec.Raw(text),
            queue=placed.queue,
            priority=placed.priority,
            run_at=placed.run_at,
            delay=placed.delay,
            tags=placed.tags,
            chosen=placed.id is not None,
            key=key,
            concurrency_key=concurrency_key,
            concurrency_limit=None if concurrency_key is None else placed.concurrency_limit,
        )
        return JobSpec(id, new, self._read)

    @overload
    def options(self, **options: Unpack[SpawnOptions]) -> JobSpawner[P, R]: ...
    @overload
    def options(self, *, conn: T, **options: Unpack[SpawnOptions]) -> JoinedSpawner[P, R, T]: ...
    def options(self, **options: object) -> object:
        """Return a spawner whose jobs differ from the settings of the job type by these options.

        May be chained: what a later call names replaces what an earlier one or the settings said. With `conn`, a
        connection or session with an open transaction, the jobs are created in that, and only if it commits.

        Raises:
            InvalidOptions: an option is unknown, out of range, of the wrong type, or contradicts another.
        """
        joins, conn = "conn" in options, options.pop("conn", None)
        placement = self._placement.overlaid(cast("SpawnOptions", options))
        _check_keys(self._job, placement, options)
        spawner = JobSpawner[P, R](self._service, self._job, placement)
        return JoinedSpawner(self._service, spawner, conn) if joins else spawner

    def handle(self, id: JobId) -> JobHandle[R]:
        """Return a typed handle of a job of this type that was spawned elsewhere. Nothing is looked up."""
        return JobHandle(self._service, checked_id(id, "handle(…)"), self._read, created=False)

    def handles(self, ids: Iterable[JobId]) -> JobHandles[R]:
        """Return typed handles of jobs of this type that were spawned elsewhere, in order. Nothing is looked up."""
        return JobHandles(self._service, [self.handle(id) for id in ids])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.job_type}>"


class JoinedSpawner(Generic[P, X, Conn]):
    """Creates jobs in the transaction that is open on a connection of the caller's: if that commits, they will run.

    It takes connections, cursors and sessions of psycopg, asyncpg, psycopg2, pg8000, SQLAlchemy, SQLModel and Django,
    in the database where the jobs are. The statement is the connection's own: the `Jobs` need not be open. A SQLAlchemy
    session is not flushed by it, and where a driver begins transactions by itself, it may be the first statement.
    """

    def __init__(self, service: Service, spawner: JobSpawner[P, X], conn: Conn) -> None:
        self._service = service
        self._spawner = spawner
        self._conn = conn

    async def spawn(self: JoinedSpawner[P, X, AsyncConn], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[X]:
        """Create a job with these arguments, on an asynchronous connection. It will run once you have committed.

        An error of the database's leaves your transaction aborted, as any failed statement does: roll it back, or have
        a savepoint around the call. It has the driver's own error as its cause.

        Raises:
            WrongConnection: `conn` is none of the above, or a blocking one.
            NoTransaction: it is in autocommit mode, and no transaction is open.
            TransactionError: its transaction is aborted, reads only, or met a deadlock or a lock that was not freed.
            InvalidConfig, ConfigTooLarge, InvalidOptions, JobAlreadyExists, DatabaseError: as `JobSpawner.spawn`.
        """
        spec = self._spawner.spec(*args, **kwargs)
        return _handle(self._service, spec, await _join(self._service, [spec], self._conn))

    def spawn_sync(self: JoinedSpawner[P, X, SyncConn], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[X]:
        """Create a job as `spawn` does, on a blocking connection."""
        spec = self._spawner.spec(*args, **kwargs)
        return _handle(self._service, spec, _join_sync(self._service, [spec], self._conn))


def _check_keys(job: RegisteredJob, placement: Placement, options: Mapping[str, object]) -> None:
    if job.resident and "key" in options:
        raise InvalidOptions(f"options(key={options['key']!r}): there is one job of the resident type {job.job_type} "
                             "in any case, so it takes no key: leave it out")
    if "concurrency_limit" in options and placement.concurrency_key is None and job.make_concurrency_key is None:
        raise InvalidOptions(f"options(concurrency_limit={options['concurrency_limit']!r}): the jobs of type "
                             f"{job.job_type} have no concurrency key to limit: give concurrency_key= with it")


async def spawn_all(service: Service, specs: Iterable[JobSpec[T]], conn: object) -> JobHandles[T]:
    """Spawn all or none; `Jobs.spawn_all` says what is promised and raised."""
    if conn is None and service.on_owning_loop and not listened_to():
        made: list[JobSpec[T]] = []
        held = await service.run(lambda store: store.spawn_parts(_parts(specs, made)))
        return _handles(service, made, held)
    batch = _batch(specs)
    if conn is not None:
        return _handles(service, batch, await _join(service, batch, conn))
    held = await _spawn(service, [spec.new for spec in batch])
    return _handles(service, batch, held)


def spawn_all_sync(service: Service, specs: Iterable[JobSpec[T]], conn: object) -> JobHandles[T]:
    """Block as `spawn_all` waits."""
    batch = _batch(specs)
    if conn is not None:
        return _handles(service, batch, _join_sync(service, batch, conn))
    with spawn_span([spec.new for spec in batch]) as jobs:
        held = service.run_sync(lambda store: store.spawn(jobs), "spawn_all")
    return _handles(service, batch, held)


async def _spawn(service: Service, new: Sequence[NewJob]) -> dict[int, JobId]:
    if not listened_to():
        return await service.run(lambda store: store.spawn(new))
    with spawn_span(new) as jobs:
        return await service.run(lambda store: store.spawn(jobs))


async def _join(service: Service, batch: Sequence[JobSpec[object]], conn: object) -> Mapping[int, JobId]:
    with spawn_span([spec.new for spec in batch]) as jobs:
        payload = spawning.payload(jobs)
        return spawning.holders(await joining.joined(conn, service.statements, "spawn", payload))


def _join_sync(service: Service, batch: Sequence[JobSpec[object]], conn: object) -> Mapping[int, JobId]:
    with spawn_span([spec.new for spec in batch]) as jobs:
        payload = spawning.payload(jobs)
        return spawning.holders(joining.joined_sync(conn, service.statements, "spawn", payload))


def _handle(service: Service, spec: JobSpec[T], held: Mapping[int, JobId]) -> JobHandle[T]:
    return JobHandle(service, held.get(0, spec.id), spec.read, created=not held)


def _handles(service: Service, batch: Sequence[JobSpec[T]], held: Mapping[int, JobId]) -> JobHandles[T]:
    return JobHandles(service, [
        JobHandle(service, held.get(position, spec.id), spec.read, created=position not in held)
        for position, spec in enumerate(batch)
    ])  # fmt: skip


def _batch(specs: Iterable[JobSpec[T]]) -> list[JobSpec[T]]:
    batch: list[JobSpec[T]] = []
    for _ in _parts(specs, batch):
        pass
    return batch


def _parts(specs: Iterable[JobSpec[T]], made: list[JobSpec[T]]) -> Iterator[Sequence[NewJob]]:
    """Yield the jobs of the specs part by part, checked, and gather the specs in `made`."""
    if isinstance(specs, JobSpec):
        raise InvalidOptions("spawn_all takes a list of specs and got one spec: write spawn_all([…])")
    ids: set[JobId] = set()
    each = iter(specs)
    while part := list(islice(each, _PART)):
        for position, spec in enumerate(part, len(made)):
            _check_spec(spec, position)
        made += part
        ids.update(spec.id for spec in part)
        if len(ids) < len(made):
            raise InvalidOptions("spawn_all got a spec twice, or two with the same id: a spec is one job, so call "
                                 ".spec(…) once per job")
        yield [spec.new for spec in part]
    if not made:
        raise InvalidOptions("spawn_all got no specs, so there is nothing to spawn: if that can happen, ask for it "
                             "before the call, as in `if specs:`")


def _check_spec(spec: object, position: int) -> None:
    if not isinstance(spec, JobSpec):
        hint = ": write .spec(…) behind it" if isinstance(spec, JobSpawner) else ""
        raise InvalidOptions(f"spawn_all takes specs, as send_email.spec(…) makes them; number {position} is "
                             f"{spec!r}{hint}")
