"""Look at, wait for, cancel many jobs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import overload

from typing_extensions import TypeVar

from piecework.base.ids import JobId
from piecework.model.snapshot import JobOutcome, JobSnapshot
from piecework.work.cancelling import cancel, cancel_sync
from piecework.work.connections import AsyncConn, SyncConn
from piecework.work.ending import (
    found_all,
    outcome_of,
    result_of,
    retried,
    wait_for_end,
    wait_for_end_sync,
)
from piecework.work.handle import JobHandle, read_of, service_of
from piecework.work.service import Service
from piecework.work.spans import Spanned, of_jobs

R = TypeVar("R", covariant=True, default=None)
X = TypeVar("X")


class JobHandles(Sequence[JobHandle[R]]):
    """Handles of many jobs, in the order in which they were spawned or named."""

    __slots__ = ("_members", "_service")

    def __init__(self, service: Service, members: Sequence[JobHandle[R]]) -> None:
        self._service = service
        self._members = members

    @overload
    def __getitem__(self, index: int) -> JobHandle[R]: ...
    @overload
    def __getitem__(self, index: slice) -> JobHandles[R]: ...
    def __getitem__(self, index: int | slice) -> JobHandle[R] | JobHandles[R]:
        if isinstance(index, slice):
            return JobHandles(self._service, self._members[index])
        return self._members[index]

    def __len__(self) -> int:
        return len(self._members)

    def __add__(self, other: Sequence[JobHandle[X]], /) -> JobHandles[R | X]:
        """Return these handles and those of `other`, a list for instance, of the same `Jobs`.

        Raises:
            ValueError: one of them is of another `Jobs`.
        """
        if any(service_of(handle) is not self._service for handle in other):
            raise ValueError("the handles are of two Jobs, so no one call can ask for all of them: keep them apart")
        return JobHandles(self._service, [*self._members, *other])

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

    async def cancel(self, *, conn: AsyncConn | None = None) -> list[bool]:
        """End all jobs as `cancelled` that have not ended; the answers are in order, as those of `JobHandle.cancel`.

        Raises:
            JobNotFound: one of them does not exist; the others are cancelled even so.
        """
        ids = self._ids()
        return await cancel(self._service, ids, conn)

    def cancel_sync(self, *, conn: SyncConn | None = None) -> list[bool]:
        """Block as `cancel` waits."""
        ids = self._ids()
        return cancel_sync(self._service, ids, conn)

    async def retry(self) -> list[bool]:
        """Run all jobs that ended once more; the answers are in order, as those of `JobHandle.retry`.

        Raises:
            JobKeyHeld, JobNotFound: as `JobHandle.retry`, for the first in order; the others are retried even so.
        """
        ids = self._ids()
        return retried(ids, await self._service.run(lambda store: store.retry(ids)))

    def retry_sync(self) -> list[bool]:
        """Block as `retry` waits."""
        ids = self._ids()
        return retried(ids, self._service.run_sync(lambda store: store.retry(ids), "retry"))

    async def load(self) -> list[JobSnapshot]:
        """Return the jobs as they are now, in order: one statement reads them all.

        Raises:
            JobNotFound: one of them does not exist, or ended so long ago that it is no longer kept; names it.
        """
        ids = self._ids()
        with Spanned("job.handles.load_all", of_jobs(ids)):
            return found_all(ids, await self._service.run(lambda store: store.load(ids)))

    def load_sync(self) -> list[JobSnapshot]:
        """Block as `load` waits."""
        ids = self._ids()
        with Spanned("job.handles.load_all", of_jobs(ids)):
            return found_all(ids, self._service.run_sync(lambda store: store.load(ids), "load"))

    def __repr__(self) -> str:
        return f"<JobHandles of {len(self._members)} jobs>"

    def _ids(self) -> list[JobId]:
        return [handle.id for handle in self._members]

    def _results_of(self, snapshots: list[JobSnapshot]) -> list[R]:
        return [result_of(each, read_of(handle)) for handle, each in zip(self._members, snapshots, strict=True)]

    def _outcomes_of(self, snapshots: list[JobSnapshot]) -> list[JobOutcome[R]]:
        return [outcome_of(each, read_of(handle)) for handle, each in zip(self._members, snapshots, strict=True)]
