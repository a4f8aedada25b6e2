"""Look at, wait for, cancel one job, or many."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Generic, overload

from typing_extensions import TypeVar

from piecework.base.ids import JobId
from piecework.model.snapshot import JobOutcome, JobSnapshot
from piecework.work.ending import Read, cancelled, not_found, outcome_of, result_of, wait_for_end, wait_for_end_sync
from piecework.work.service import Service
from piecework.work.spans import Spanned, of_jobs

R = TypeVar("R", covariant=True, default=None)


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

    async def cancel(self) -> bool:
        """End the job as `cancelled`, unless it ended already. Does not wait for the end of a job that runs.

        A job that does not run ends here. Of one that runs it is requested, and its worker hears of it at once, or,
        should that message be lost, with its next heartbeat (5 seconds). An `async def` function is cancelled where it
        awaits. A `def` function cannot be stopped: `job.cancel_requested` tells it. Whatever the run ends with, and if
        it is lost with its worker, the job is `cancelled` then and runs no more. Only what completes all the same is
        `completed`: its work is done.

        Returns:
            True if it was cancelled or that was requested; False if the job had ended before.

        Raises:
            JobNotFound: there is no such job, or it ended so long ago that it is no longer kept.
        """
        with Spanned("job.handle.cancel", of_jobs([self.id])):
            return cancelled([self.id], await self._service.run(lambda store: store.cancel([self.id])))[0]

    def cancel_sync(self) -> bool:
        """Block as `cancel` waits."""
        with Spanned("job.handle.cancel", of_jobs([self.id])):
            return cancelled([self.id], self._service.run_sync(lambda store: store.cancel([self.id]), "cancel"))[0]

    async def retry(self) -> bool:
        """Run a job that ended once more, with the same config, due now and with its attempts counted anew.

        Returns:
            True if it is pending again; False if it had not ended, so that it will run anyway.

        Raises:
            JobNotFound: there is no such job, or it ended so long ago that it is no longer kept.
        """
        return self._retried(await self._service.run(lambda store: store.retry([self.id])))

    def retry_sync(self) -> bool:
        """Block as `retry` waits."""
        return self._retried(self._service.run_sync(lambda store: store.retry([self.id]), "retry"))

    def __repr__(self) -> str:
        return f"<JobHandle {self.id}>"

    async def _ended(self, timeout: timedelta) -> JobSnapshot:
        (snapshot,) = await wait_for_end(self._service, [self.id], timeout)
        return snapshot

    def _ended_sync(self, timeout: timedelta, verb: str) -> JobSnapshot:
        (snapshot,) = wait_for_end_sync(self._service, [self.id], timeout, verb)
        return snapshot

    def _found(self, loaded: list[JobSnapshot | None]) -> JobSnapshot:
        if loaded[0] is None:
            raise not_found(self.id)
        return loaded[0]

    def _retried(self, answers: Sequence[str]) -> bool:
        if answers[0] == "unknown":
            raise not_found(self.id)
        return answers[0] == "retried"


class JobHandles(Sequence[JobHandle[R]]):
    """Handles of many jobs, in the order in which they were spawned."""

    __slots__ = ("_members", "_service")

    def __init__(self, service: Service, members: Sequence[tuple[JobId, Read[R]]]) -> None:
        self._service = service
        self._members = members

    @overload
    def __getitem__(self, index: int) -> JobHandle[R]: ...
    @overload
    def __getitem__(self, index: slice) -> JobHandles[R]: ...
    def __getitem__(self, index: int | slice) -> JobHandle[R] | JobHandles[R]:
        if isinstance(index, slice):
            return JobHandles(self._service, self._members[index])
        id, read = self._members[index]
        return JobHandle(self._service, id, read, created=True)

    def __len__(self) -> int:
        return len(self._members)

    async def results(self, *, timeout: timedelta) -> list[R]:
        """Wait until all jobs ended, and return their results in order.

        Raises:
            JobErrored, JobCancelled: the first in order that ended otherwise than `completed`.
            JobNotFinished: not all ended within `timeout`; they go on.
            JobNotFound, UndecodableResult: as `JobHandle.result`.
        """
        return self._results_of(await wait_for_end(self._service, self._ids(), timeout))

    def results_sync(self, *, timeout: timedelta) -> list[R]:
        """Block as `results` waits."""
        return self._results_of(wait_for_end_sync(self._service, self._ids(), timeout, "results"))

    async def wait(self, *, timeout: timedelta) -> list[JobOutcome[R]]:
        """Wait until all jobs ended, in whatever way, and return how, in order.

        Raises:
            JobNotFinished: not all ended within `timeout`; they go on.
            JobNotFound, UndecodableResult: as `JobHandle.wait`.
        """
        return self._outcomes_of(await wait_for_end(self._service, self._ids(), timeout))

    def wait_sync(self, *, timeout: timedelta) -> list[JobOutcome[R]]:
        """Block as `wait` waits."""
        return self._outcomes_of(wait_for_end_sync(self._service, self._ids(), timeout, "wait"))

    async def cancel(self) -> list[bool]:
        """End all jobs as `cancelled` that have not ended; the answers are in order, as those of `JobHandle.cancel`.

        Raises:
            JobNotFound: one of them does not exist; the others are cancelled even so.
        """
        ids = self._ids()
        with Spanned("job.handle.cancel", of_jobs(ids)):
            return cancelled(ids, await self._service.run(lambda store: store.cancel(ids)))

    def cancel_sync(self) -> list[bool]:
        """Block as `cancel` waits."""
        ids = self._ids()
        with Spanned("job.handle.cancel", of_jobs(ids)):
            return cancelled(ids, self._service.run_sync(lambda store: store.cancel(ids), "cancel"))

    def _ids(self) -> list[JobId]:
        return [id for id, _ in self._members]

    def _results_of(self, snapshots: list[JobSnapshot]) -> list[R]:
        return [result_of(snapshot, read) for (_, read), snapshot in zip(self._members, snapshots, strict=True)]

    def _outcomes_of(self, snapshots: list[JobSnapshot]) -> list[JobOutcome[R]]:
        return [outcome_of(snapshot, read) for (_, read), snapshot in zip(self._members, snapshots, strict=True)]
