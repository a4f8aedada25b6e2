"""Look at, wait for, cancel one job."""

from __future__ import annotations

from datetime import timedelta
from typing import Generic

from typing_extensions import TypeVar

from piecework.base.ids import JobId
from piecework.model.explanation import JobExplanation
from piecework.model.snapshot import JobOutcome, JobSnapshot
from piecework.store.explaining import explain
from piecework.work.cancelling import cancel, cancel_sync
from piecework.work.connections import AsyncConn, SyncConn
from piecework.work.ending import (
    Read,
    found_all,
    not_found,
    outcome_of,
    result_of,
    retried,
    wait_for_end,
    wait_for_end_sync,
)
from piecework.work.service import Service
from piecework.work.spans import Spanned, of_jobs

R = TypeVar("R", covariant=True, default=None)
T = TypeVar("T")
S = TypeVar("S")


class JobHandle(Generic[R]):
    """One job. `R` is the type of its result; the handle of a bare id reads plain JSON values.

    Every method with a name in `_sync` is the blocking twin of the one without it, for code that does not run on the
    event loop that opened the `Jobs`. All of them raise `NotOpen` if the `Jobs` is not open, and `DatabaseError`s.
    """

    __slots__ = ("_read", "_service", "created", "id")

    def __init__(self, service: Service, id: JobId, read: Read[R], *, created: bool) -> None:
        self._service = service
        self._read = read
        self.id = id
        self.created = created
        """Whether the call that answered this handle created the job; False for one that was looked up."""

    async def result(self, *, timeout: timedelta) -> R:
        """Wait until the job ended, and return its result. The worker may be any process.

        Raises:
            JobErrored, JobCancelled: it ended otherwise than `completed`.
            JobNotFinished: it did not end within `timeout`; it goes on.
            JobNotFound: there is no such job, or it ended so long ago that it is no longer kept.
            UndecodableResult: the result is not of the type that the job function declares.
        """
        return result_of(await self._ended(timeout), self._read)

    def result_sync(self, *, timeout: timedelta) -> R:
        """Block as `result` waits."""
        return result_of(self._ended_sync(timeout, "result"), self._read)

    async def wait(self, *, timeout: timedelta) -> JobOutcome[R]:
        """Wait until the job ended, in whatever way, and return how.

        Raises:
            JobNotFinished: it did not end within `timeout`; it goes on.
            JobNotFound: there is no such job, or it ended so long ago that it is no longer kept.
            UndecodableResult: the result is not of the type that the job function declares.
        """
        return outcome_of(await self._ended(timeout), self._read)

    def wait_sync(self, *, timeout: timedelta) -> JobOutcome[R]:
        """Block as `wait` waits."""
        return outcome_of(self._ended_sync(timeout, "wait"), self._read)

    async def load(self) -> JobSnapshot:
        """Return the job as it is now.

        Raises:
            JobNotFound: there is no such job, or it ended so long ago that it is no longer kept.
        """
        with Spanned("job.handle.load", of_jobs([self.id])):
            return self._found(await self._service.run(lambda store: store.load([self.id])))

    def load_sync(self) -> JobSnapshot:
        """Block as `load` waits."""
        with Spanned("job.handle.load", of_jobs([self.id])):
            return self._found(self._service.run_sync(lambda store: store.load([self.id]), "load"))

    async def execution_state(self, type: type[S], /) -> S | None:
        """Return what the job's runs have saved so far, as a value of this type; None if nothing is stored.

        Raises:
            JobNotFound: there is no such job, or it ended so long ago that it is no longer kept.
            UndecodableState: what is stored is not of this type.
        """
        with Spanned("job.handle.execution_state", of_jobs([self.id])):
            snapshot = self._found(await self._service.run(lambda store: store.load([self.id])))
            return snapshot.execution_state(type)

    def execution_state_sync(self, type: type[S], /) -> S | None:
        """Block as `execution_state` waits."""
        with Spanned("job.handle.execution_state", of_jobs([self.id])):
            loaded = self._service.run_sync(lambda store: store.load([self.id]), "execution_state")
            return self._found(loaded).execution_state(type)

    async def explain(self) -> JobExplanation:
        """Say why the job does not run; or since when it does, or how it ended.

        Raises:
            JobNotFound: there is no such job, or it ended so long ago that it is no longer kept.
        """
        return self._explained(await self._service.run(lambda store: explain(store, self.id)))

    def explain_sync(self) -> JobExplanation:
        """Block as `explain` waits."""
        return self._explained(self._service.run_sync(lambda store: explain(store, self.id), "explain"))

    async def cancel(self, *, conn: AsyncConn | None = None) -> bool:
        """End the job as `cancelled`, unless it ended already. Does not wait for the end of a job that runs.

        A job that does not run ends here. Of one that runs it is requested, and its worker hears of it at once, or,
        should that message be lost, with its next heartbeat (5 seconds). An `async def` function is cancelled where it
        awaits. A `def` function cannot be stopped: `job.cancel_requested` tells it. Whatever the run ends with, and if
        it is lost with its worker, the job is `cancelled` then and runs no more. Only what completes all the same is
        `completed`: its work is done.

        Args:
            conn: a connection or session in whose open transaction it is cancelled, as in `options(conn=…)`. The worker
                hears of it with the commit; until then it cannot settle the job.

        Returns:
            True if it was cancelled or that was requested; False if the job had ended before.

        Raises:
            JobNotFound: there is no such job, or it ended so long ago that it is no longer kept.
            TransactionError: `conn` cannot be joined.
        """
        return (await cancel(self._service, [self.id], conn))[0]

    def cancel_sync(self, *, conn: SyncConn | None = None) -> bool:
        """Block as `cancel` waits."""
        return cancel_sync(self._service, [self.id], conn)[0]

    async def retry(self) -> bool:
        """Run a job that ended once more, with the same config, due now and with its attempts counted anew.

        Returns:
            True if it is pending again; False if it had not ended, so that it will run anyway.

        Raises:
            JobKeyHeld: a live job of its type has its key; that one is named, and nothing is changed.
            JobNotFound: there is no such job, or it ended so long ago that it is no longer kept.
        """
        return retried([self.id], await self._service.run(lambda store: store.retry([self.id])))[0]

    def retry_sync(self) -> bool:
        """Block as `retry` waits."""
        return retried([self.id], self._service.run_sync(lambda store: store.retry([self.id]), "retry"))[0]

    def __repr__(self) -> str:
        return f"<JobHandle {self.id}>"

    async def _ended(self, timeout: timedelta) -> JobSnapshot:
        (snapshot,) = await wait_for_end(self._service, [self.id], timeout)
        return snapshot

    def _ended_sync(self, timeout: timedelta, verb: str) -> JobSnapshot:
        (snapshot,) = wait_for_end_sync(self._service, [self.id], timeout, verb)
        return snapshot

    def _found(self, loaded: list[JobSnapshot | None]) -> JobSnapshot:
        return found_all([self.id], loaded)[0]

    def _explained(self, explanation: JobExplanation | None) -> JobExplanation:
        if explanation is None:
            raise not_found(self.id)
        return explanation


def service_of(handle: JobHandle[object]) -> Service:
    """Return the service by which a handle asks."""
    return handle._service  # pyright: ignore[reportPrivateUsage]


def read_of(handle: JobHandle[T]) -> Read[T]:
    """Return what reads the stored result of the job."""
    return handle._read  # pyright: ignore[reportPrivateUsage]
