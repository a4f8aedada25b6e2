"""A job as it was at one moment, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, TypeAlias, cast

import msgspec
from typing_extensions import TypeVar

from piecework.base.errors import UndecodableConfig, UndecodableResult, UndecodableState
from piecework.base.ids import JobId
from piecework.base.serialization import decoder, qualified_name

R = TypeVar("R", covariant=True, default=object)
S = TypeVar("S")

JobStatus: TypeAlias = Literal["pending", "running", "completed", "errored", "cancelled"]
_MOST_SHOWN = 200
TERMINAL: frozenset[JobStatus] = frozenset({"completed", "errored", "cancelled"})


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt failed, as it is stored."""

    type: str
    """The exception's qualified name, or a word of piecework's own such as `worker lost`."""
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a run reported of itself last."""

    done: float | None
    """How much of the work is done, as the run counts it; None if it never said."""
    note: str
    reported_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSnapshot:
    """A job as it was when it was read, live or finished; one statement reads it, so it is never torn."""

    id: JobId
    job_type: str
    status: JobStatus
    queue: str
    priority: int
    attempt: int
    """Of a pending job the attempt to come, else the last one; numbered from 1, anew after a reschedule."""
    failures: int
    crashes: int
    claim_no: int
    worker_id: JobId | None
    run_at: datetime | None
    """When a pending job may run; None once it ended."""
    created_at: datetime
    claimed_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    tags: tuple[str, ...]
    config: msgspec.Raw
    """The stored config, JSON text."""
    result: msgspec.Raw | None
    """The stored result, JSON text: what the job returned, or what its runs have set so far, also if it errored."""
    error: ErrorInfo | None
    """The error that ended the job, or that of the last failed attempt while it is retried."""
    key: str | None = None
    """While the job is live, no other of its type has this key."""
    concurrency_key: str | None = None
    parked: bool = False
    """Whether it waits behind its concurrency key; its status is `pending` all the same."""
    progress: Progress | None = None
    """What its run reported last; None if nothing, and once the job has ended."""
    state: msgspec.Raw | None = None
    """The stored execution state, JSON text: read it by `execution_state`."""

    @property
    def completed(self) -> bool:
        """Whether the job ended `completed`."""
        return self.status == "completed"

    @property
    def finished(self) -> bool:
        """Whether the job ended, in whatever way."""
        return self.status in TERMINAL

    def config_as(self, type: type[S], /) -> S:
        """Return the config as a value of this type. Of a job function it is a record of the parameters.

        Raises:
            UndecodableConfig: the stored config is not of this type.
        """
        try:
            return _decoded(self.config, type)
        except Exception as error:
            raise UndecodableConfig(f"the config of job {self._named} is no {qualified_name(type)}: {error}. It is "
                                    f"{_shown(self.config)}") from error

    def result_as(self, type: type[S], /) -> S | None:
        """Return the result as a value of this type; None where none is stored.

        Raises:
            UndecodableResult: the stored result is not of this type.
        """
        if self.result is None:
            return None
        try:
            return _decoded(self.result, type)
        except Exception as error:
            raise UndecodableResult(f"the result of job {self._named} is no {qualified_name(type)}: {error}. It is "
                                    f"{_shown(self.result)}") from error

    def execution_state(self, type: type[S], /) -> S | None:
        """Return what the job's runs saved last, as a value of this type; None if nothing is stored.

        With the end of a job its state goes, unless its job type has `inherits_state=True`: then it stays until the
        next job of the key saves its own.

        Raises:
            UndecodableState: the stored state is not of this type.
        """
        if self.state is None:
            return None
        try:
            return _decoded(self.state, type)
        except Exception as error:
            raise UndecodableState(f"the execution state of job {self._named} is no {qualified_name(type)}: {error}. "
                                   f"It is {_shown(self.state)}") from error

    @property
    def _named(self) -> str:
        return f"{self.id} of type {self.job_type}"


def _decoded(stored: msgspec.Raw, wanted: type[S]) -> S:
    return cast("S", decoder(wanted).decode(stored))


def _shown(stored: msgspec.Raw) -> str:
    text = bytes(stored).decode()
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutcome(Generic[R]):
    """How a job ended."""

    status: JobStatus
    result: R | None
    """The typed result. Of a job that errored, what its runs had set, if it is of that type; else None."""
    error: ErrorInfo | None
