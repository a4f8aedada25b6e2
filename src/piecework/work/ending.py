"""How a job ended, as whoever waits for it is told: a typed result, an outcome, or the error that fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeAlias, cast

import msgspec
from typing_extensions import TypeVar

from piecework.base.errors import (
    JobCancelled,
    JobErrored,
    JobNotFinished,
    JobNotFound,
    UndecodableResult,
)
from piecework.base.ids import JobId
from piecework.model.snapshot import JobOutcome, JobSnapshot
from piecework.work.service import Service
from piecework.work.spans import Spanned, of_jobs

R = TypeVar("R", covariant=True, default=None)
T = TypeVar("T")

Read: TypeAlias = Callable[[msgspec.Raw], R]
"""Reads a stored result."""


def read_plain(stored: msgspec.Raw) -> object:
    """Return a stored result as plain JSON values, where its type is not known."""
    return msgspec.json.decode(stored)


async def wait_for_end(service: Service, ids: list[JobId], timeout: timedelta) -> list[JobSnapshot]:
    """Return the jobs once all of them ended.

    Raises:
        JobNotFinished: not all ended within `timeout`.
        JobNotFound: one of them does not exist.
    """
    _check_timeout(timeout)
    with Spanned("job.handle.wait", of_jobs(ids)):
        return _ended(ids, timeout, await service.run(lambda store: service.waiters.wait(store, ids, timeout)))


def wait_for_end_sync(service: Service, ids: list[JobId], timeout: timedelta, verb: str) -> list[JobSnapshot]:
    """Block as `wait_for_end` waits; `verb` is the method that the user called."""
    _check_timeout(timeout)
    with Spanned("job.handle.wait", of_jobs(ids)):
        return _ended(ids, timeout, service.run_sync(lambda store: service.waiters.wait(store, ids, timeout), verb))


def result_of(snapshot: JobSnapshot, read: Read[T]) -> T:
    """Return the result of a job that ended.

    Raises:
        JobErrored, JobCancelled: it ended otherwise than `completed`.
        UndecodableResult: `read` refuses the stored result.
    """
    if snapshot.status == "cancelled":
        raise JobCancelled(f"job {snapshot.id} of type {snapshot.job_type} was cancelled")
    if snapshot.status != "completed":
        why = "" if snapshot.error is None else f": {snapshot.error.type}: {snapshot.error.message}"
        raise JobErrored(f"job {snapshot.id} of type {snapshot.job_type} errored in attempt {snapshot.attempt}{why}")
    if snapshot.result is None:
        return cast("T", None)
    try:
        return read(snapshot.result)
    except Exception as error:
        raise UndecodableResult(
            f"the result of job {snapshot.id} is not of the type that {snapshot.job_type} declares: {error}; read it "
            "as it is stored by jobs.handle(id)"
        ) from error


def outcome_of(snapshot: JobSnapshot, read: Read[T]) -> JobOutcome[T]:
    """Return how a job ended; raise `UndecodableResult` if `read` refuses the stored result."""
    result = result_of(snapshot, read) if snapshot.completed else None
    return JobOutcome(status=snapshot.status, result=result, error=snapshot.error)


def cancelled(ids: Sequence[JobId], answers: Sequence[str]) -> list[bool]:
    """Return for each of the jobs whether it was cancelled, or that was requested; raise `JobNotFound` instead."""
    for id, answer in zip(ids, answers, strict=True):
        if answer == "unknown":
            raise not_found(id)
    return [answer in ("cancelled", "requested") for answer in answers]


def not_found(id: JobId) -> JobNotFound:
    """Return the error for an id that names no job."""
    return JobNotFound(f"there is no job {id} in this schema, or it ended so long ago that it is no longer kept")


def _check_timeout(timeout: object) -> None:
    if not isinstance(timeout, timedelta):
        raise TypeError(f"timeout= takes a timedelta, not {timeout!r}: write timedelta(seconds=…)")


def _ended(ids: list[JobId], timeout: timedelta, snapshots: list[JobSnapshot | None]) -> list[JobSnapshot]:
    found: list[JobSnapshot] = []
    for id, snapshot in zip(ids, snapshots, strict=True):
        if snapshot is None:
            raise not_found(id)
        found.append(snapshot)
    unfinished = [snapshot for snapshot in found if not snapshot.finished]
    if unfinished:
        first = unfinished[0]
        others = f", and {len(unfinished) - 1} others have not ended either" if len(unfinished) > 1 else ""
        raise JobNotFinished(
            f"job {first.id} of type {first.job_type} is still {first.status} after {timeout} (attempt {first.attempt})"
            f"{others}: is a worker running that takes the queue {first.queue!r}? Wait again, or longer"
        )
    return found
