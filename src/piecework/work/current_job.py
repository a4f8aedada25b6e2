"""What a job function that asks for it learns about the job it runs for."""

from __future__ import annotations

import threading
from typing import Generic, cast
from uuid import UUID

from typing_extensions import TypeVar

from piecework.base.ids import JobId
from piecework.model.job import ClaimedJob

C = TypeVar("C", covariant=True, default=object)


class CurrentJob(Generic[C]):
    """The job that runs now. A job function asks for it by a first parameter `job: CurrentJob`.

    It may be read from any thread.
    """

    __slots__ = ("_cancel", "_claimed", "_config", "_id", "_shutdown")

    def __init__(self, claimed: ClaimedJob, shutdown: threading.Event) -> None:
        self._claimed = claimed
        self._shutdown = shutdown
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

    def __repr__(self) -> str:
        return f"<CurrentJob {self.job_type} {self._claimed.id} attempt {self.attempt}>"


def claimed_of(job: CurrentJob) -> ClaimedJob:
    """Return the claim that `job` stands for."""
    return job._claimed  # pyright: ignore[reportPrivateUsage]


def give_config(job: CurrentJob, config: object) -> None:
    """Set what `job.config` answers, once it is decoded."""
    job._config = config  # pyright: ignore[reportPrivateUsage]


def request_cancel(job: CurrentJob) -> None:
    """Have `job.cancel_requested` answer True from now on, in any thread."""
    job._cancel = True  # pyright: ignore[reportPrivateUsage]
