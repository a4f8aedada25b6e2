"""A job as it was at one moment, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, TypeAlias

import msgspec
from typing_extensions import TypeVar

from piecework.base.ids import JobId

R = TypeVar("R", covariant=True, default=object)

JobStatus: TypeAlias = Literal["pending", "running", "completed", "errored", "cancelled"]
TERMINAL: frozenset[JobStatus] = frozenset({"completed", "errored", "cancelled"})


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt failed, as it is stored."""

    type: str
    """The exception's qualified name, or a word of piecework's own such as `worker lost`."""
    message: str
    traceback: str = ""


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
    """The stored result, JSON text; None unless completed."""
    error: ErrorInfo | None
    """The error that ended the job, or that of the last failed attempt while it is retried."""

    @property
    def completed(self) -> bool:
        """Whether the job ended `completed`."""
        return self.status == "completed"

    @property
    def finished(self) -> bool:
        """Whether the job ended, in whatever way."""
        return self.status in TERMINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutcome(Generic[R]):
    """How a job ended."""

    status: JobStatus
    result: R | None
    """The typed result; None unless completed."""
    error: ErrorInfo | None
