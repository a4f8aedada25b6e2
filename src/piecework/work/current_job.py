"""What a job function that asks for it learns about the job it runs for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Generic, Protocol, cast, overload
from uuid import UUID

import psycopg
from typing_extensions import TypeVar

from piecework.base.ids import JobId
from piecework.base.latch import Latch
from piecework.model.completion import Reschedule
from piecework.model.job import ClaimedJob
from piecework.model.settlement import Settlement
from piecework.work.completing import Completing
from piecework.work.connections import AsyncConn, SyncConn
from piecework.work.run_context import RunContext

C = TypeVar("C", covariant=True, default=object)
S = TypeVar("S")
T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class OwnTransaction(Protocol):
    """What `job.completing()` returns: for `async with` in an `async def` job, for `with` in a `def` job."""

    async def __aenter__(self) -> psycopg.AsyncConnection: ...
    async def __aexit__(self, *raised: object) -> None: ...
    def __enter__(self) -> psycopg.Connection: ...
    def __exit__(self, *raised: object) -> None: ...


class CurrentJob(Generic[C]):
    """The job that runs now. A job function asks for it by a first parameter `job: CurrentJob`.

    It may be used in any thread. Every method with a name in `_sync` is the blocking twin of the one without it, for
    `def` jobs. What the run writes of its job is fenced: all of these methods raise `ClaimLost` when the job is not
    this run's any more, since its worker was given up for dead, and then nothing was written.
    """

    __slots__ = ("_cancel", "_claimed", "_config", "_id", "_open_run", "_run_open", "_shutdown")

    def __init__(
        self, claimed: ClaimedJob, shutdown: Latch, open_run: Callable[[], RunContext] | None = None
    ) -> None:
        self._claimed = claimed
        self._shutdown = shutdown
        self._open_run = open_run
        self._run_open: RunContext | None = None
        self._cancel = False
        self._id: JobId | None = None
        self._config: object = None

    @property
    def id(self) -> JobId:
        """The job's id: the same in every attempt."""
        if self._id is None:
            self._id = UUID(self._claimed.id)
        return self._id

    @property
    def job_type(self) -> str:
        """The name it was spawned under; an alias if it was spawned before the job type was renamed."""
        return self._claimed.job_type

    @property
    def queue(self) -> str:
        """The queue it was claimed from."""
        return self._claimed.queue

    @property
    def attempt(self) -> int:
        """The number of this attempt: from 1, anew after a reschedule or after a long healthy run."""
        return self._claimed.attempt

    @property
    def claim_no(self) -> int:
        """Which claim of the job this is: counts up from 1 and is never reset; the fence of its settle."""
        return self._claimed.claim_no

    @property
    def run_at(self) -> datetime:
        """The moment at which this run was due, by the database's clock: what the next one can be counted from."""
        return _EPOCH + timedelta(microseconds=self._claimed.run_at)

    @property
    def config(self) -> C:
        """The decoded config. Of a job function: a record of its parameters; what was not passed is not in it."""
        return cast("C", self._config)

    @property
    def shutdown_requested(self) -> bool:
        """Whether the worker wants to stop: end soon, best by `return Reschedule.now()`."""
        return self._shutdown.is_set()

    @property
    def cancel_requested(self) -> bool:
        """Whether this run is to end now: the job was cancelled, or the run is over its timeout.

        A `def` function has to look at it, since a thread cannot be stopped. An `async def` one is cancelled besides.
        """
        return self._cancel

    async def wait_for_shutdown(self) -> None:
        """Wait until the worker wants to stop. Whoever waits is told, and whoever comes later returns at once."""
        await self._shutdown.wait()

    def wait_for_shutdown_sync(self, timeout: timedelta | None = None) -> bool:
        """Block as `wait_for_shutdown` waits, or for `timeout`; return whether the worker wants to stop."""
        return self._shutdown.block(None if timeout is None else timeout.total_seconds())

    def execution_state(self, type: type[S], /) -> S | None:
        """Return what `save_state` saved last, in this run or an earlier one of the job, as a value of this type: each
        time a new one. None if nothing was saved.

        A job of a type with `inherits_state` begins with what the job before it with its key left. What was saved with
        `conn` is answered from the next run on: whether it was committed is not known here.

        Args:
            type: whatever a job's parameter can be: a dataclass, a TypedDict, `list[int]`.

        Raises:
            UndecodableState: what is saved is not of this type.
        """
        return self._run.execution_state(type)

    async def save_state(self, state: object, /, *, conn: AsyncConn | None = None) -> None:
        """Save what the next run of the job is to find: after a failed attempt, a crash, a reschedule. The last save
        counts, and with the end of the job it goes, unless the job type has `inherits_state`.

        Args:
            state: anything that can be a job's parameter; None: as if nothing had been saved.
            conn: a connection or session in whose open transaction it is saved, as in `options(conn=…)`. Until that
                ends, nobody can take the job away from a run that died.

        Raises:
            TypeError, ValueError: it cannot be written as JSON.
            ClaimLost: as above.
            TransactionError: `conn` cannot be joined.
            DatabaseError: the database cannot be reached, or an open transaction holds the job.
        """
        await self._run.write(self._run.saving(state), conn)

    def save_state_sync(self, state: object, /, *, conn: SyncConn | None = None) -> None:
        """Block as `save_state` waits."""
        self._run.write_sync(self._run.saving(state), conn)

    async def set_result(self, result: object, /, *, conn: AsyncConn | None = None) -> None:
        """Store the job's result so far: what whoever waits gets, also when the job ends `errored` or `cancelled`,
        unless the function returns a value that is not None. The last one counts; None takes it back. It outlives
        failed attempts. Arguments and errors are those of `save_state`.
        """
        await self._run.write(self._run.setting_result(result), conn)

    def set_result_sync(self, result: object, /, *, conn: SyncConn | None = None) -> None:
        """Block as `set_result` waits."""
        self._run.write_sync(self._run.setting_result(result), conn)

    async def progress(self, done: float, note: str = "") -> None:
        """Tell whoever looks at the job how far it is: `handle.load().progress`. The last report counts.

        Args:
            done: how much of the work is done, as you like to count it.
            note: a word about it.

        Raises:
            ValueError: `done` is no finite number, or `note` has a NUL.
            ClaimLost, DatabaseError: as `save_state`.
        """
        await self._run.write(self._run.reporting(done, note))

    def progress_sync(self, done: float, note: str = "") -> None:
        """Block as `progress` waits."""
        self._run.write_sync(self._run.reporting(done, note))

    async def complete_in(
        self, conn: AsyncConn, reschedule: Reschedule | None = None, /, *, result: object = None
    ) -> None:
        """Complete the job in the transaction that is open on `conn`: it commits together with what else is done there.

        Commit soon after: until then nobody else can settle the job or take it over. Return right after that, with
        nothing: what is returned once the completion is committed is not stored. If it is never committed, the attempt
        has failed. Around the whole, `completing` does the same and cannot be forgotten.

        In a transaction with savepoints call `guard` before the first: else one who swallows `ClaimLost` and rolls back
        to a savepoint commits without completing.

        Args:
            conn: a connection or session, as in `options(conn=…)`.
            reschedule: run again instead, attempts counted anew.
            result: the job's result; without it what `set_result` stored last.

        Raises:
            ClaimLost: as above; the transaction cannot be committed any more.
            TypeError: a resident job would complete, or a rescheduled one have a result.
            TransactionError, DatabaseError: as `save_state`.
        """
        await self._run.write(self._run.completing(reschedule, result), conn)

    def complete_in_sync(
        self, conn: SyncConn, reschedule: Reschedule | None = None, /, *, result: object = None
    ) -> None:
        """Block as `complete_in` waits."""
        self._run.write_sync(self._run.completing(reschedule, result), conn)

    async def guard(self, conn: AsyncConn, /) -> None:
        """Let the transaction that is open on `conn` be committed only if it completes or reschedules this job,
        whatever savepoints are rolled back in it and whatever errors are swallowed. Called at its begin, before
        `complete_in`. A COMMIT without the completion raises an error of the driver's, SQLSTATE PW001.

        Raises:
            ClaimLost: the claim is lost already.
            TransactionError, DatabaseError: as `save_state`.
        """
        await self._run.write(self._run.guarding(), conn)

    def guard_sync(self, conn: SyncConn, /) -> None:
        """Block as `guard` waits."""
        self._run.write_sync(self._run.guarding(), conn)

    @overload
    def completing(self, reschedule: Reschedule | None = None, /) -> OwnTransaction: ...
    @overload
    def completing(
        self, reschedule: Reschedule | None = None, /, *, begin: Callable[[], AbstractAsyncContextManager[T]]
    ) -> AbstractAsyncContextManager[T, None]: ...
    @overload
    def completing(
        self, reschedule: Reschedule | None = None, /, *, begin: Callable[[], AbstractContextManager[T]]
    ) -> AbstractContextManager[T, None]: ...
    def completing(self, reschedule: Reschedule | None = None, /, *, begin: object = None) -> object:
        """Complete the job together with what is written in the block: `async with job.completing() as conn:`, or
        `with` in a `def` job. Both are committed at its end, or neither; an error in it is a failed attempt. When the
        claim was lost meanwhile, nothing is committed, and `ClaimLost` is raised.

        Inside, give the block's connection to whatever belongs to it: `spawn`, `save_state(…, conn=conn)`,
        `set_result(…, conn=conn)`. Keep it short, it is a transaction. After it return nothing: a value that is
        returned after the completion was committed is not stored.

        Args:
            reschedule: run again instead, attempts counted anew.
            begin: called without arguments, it opens a connection or a transaction for a block and yields the
                connection or session, which the block gets: `engine.begin`, `Session.begin`, `pool.connection`,
                asyncpg's `pool.acquire`. A transaction is begun where it has begun none. Without it the connection is
                a psycopg one of piecework's own, in a READ COMMITTED transaction that ends by itself when it is idle
                for five minutes.

        Raises:
            ClaimLost: as above.
            TypeError: a resident job would complete, or `begin` opens nothing.
            RuntimeError: another such block of this job is open.
            TransactionError, DatabaseError: as `save_state`.
        """
        return Completing(self._run, reschedule, begin)

    @property
    def _run(self) -> RunContext:
        if self._run_open is None:
            if self._open_run is None:
                raise RuntimeError("this CurrentJob has no run behind it: in tests make one by testing.current_job(…)")
            self._run_open = self._open_run()
        return self._run_open

    def __repr__(self) -> str:
        return f"<CurrentJob {self.job_type} {self._claimed.id} attempt {self.attempt}>"


def claimed_of(job: CurrentJob) -> ClaimedJob:
    """Return the claim that `job` stands for."""
    return job._claimed  # pyright: ignore[reportPrivateUsage]


def sent_by(job: CurrentJob) -> Settlement | None:
    """Return how the run has ended `job` in a transaction, committed or not; None if it has not."""
    run = job._run_open  # pyright: ignore[reportPrivateUsage]
    return None if run is None else run.sent


def give_config(job: CurrentJob, config: object) -> None:
    """Set what `job.config` answers, once it is decoded."""
    job._config = config  # pyright: ignore[reportPrivateUsage]


def request_cancel(job: CurrentJob) -> None:
    """Have `job.cancel_requested` answer True from now on, in any thread."""
    job._cancel = True  # pyright: ignore[reportPrivateUsage]
