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
    JobKeyHeld,
    JobNotFinished,
    JobNotFound,
    UndecodableResult,
)
from piecework.base.ids import JobId
from piecework.model.snapshot import JobOutcome, JobSnapshot
from piecework.store.store import KeyHeld, RetryAnswer
from piecework.work.service import Service
from piecework.work.spans import Spanned, of_jobs

R = TypeVar("R", covariant=True, default=None)
T = TypeVar("T")

Read: TypeAlias = Callable[[msgspec.Raw], R]
"""Reads a stored result."""

_MOST_NAMED = 5


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
    """Return how a job ended; raise `UndecodableResult` if `read` refuses the result of one that completed."""
    result = result_of(snapshot, read) if snapshot.completed else _partial_result(snapshot, read)
    return JobOutcome(status=snapshot.status, result=result, error=snapshot.error)


def _partial_result(snapshot: JobSnapshot, read: Read[T]) -> T | None:
    """Return what the runs of a job had set that did not complete; its error counts more than a wrong type."""
    if snapshot.result is None:
        return None
    try:
        return read(snapshot.result)
    except Exception:
        return None


def retried(ids: Sequence[JobId], answers: Sequence[RetryAnswer]) -> list[bool]:
    """Return for each of the jobs whether it is pending again; raise `JobNotFound` or `JobKeyHeld` instead."""
    for id, answer in zip(ids, answers, strict=True):
        if answer == "unknown":
            raise not_found(id)
        if isinstance(answer, KeyHeld):
            raise JobKeyHeld(f"job {id} is not brought back: the live job {answer.holder} of its type has its key. "
                             "Wait for that one, or cancel it first")
    return [answer == "retried" for answer in answers]


def found_all(ids: Sequence[JobId], snapshots: Sequence[JobSnapshot | None]) -> list[JobSnapshot]:
    """Return the jobs; raise `JobNotFound` for the first that does not exist."""
    found: list[JobSnapshot] = []
    for id, snapshot in zip(ids, snapshots, strict=True):
        if snapshot is None:
            raise not_found(id)
        found.append(snapshot)
    return found


def not_found(id: JobId) -> JobNotFound:
    """Return the error for an id that names no job."""
    return JobNotFound(f"there is no job {id} in this schema, or it ended so long ago that it is no longer kept")


def _check_timeout(timeout: object) -> None:
    if not isinstance(timeout, timedelta):
        raise TypeError(f"timeout= takes a timedelta, not {timeout!r}: write timedelta(seconds=…)")


def _ended(ids: list[JobId], timeout: timedelta, snapshots: list[JobSnapshot | None]) -> list[JobSnapshot]:
    found = found_all(ids, snapshots)
    unfinished = list({snapshot.id: snapshot for snapshot in found if not snapshot.finished}.values())
    if not unfinished:
        return found
    first = unfinished[0]
    if len(unfinished) == 1:
        what = (f"job {first.id} of type {first.job_type} is still {first.status} after {timeout} "
                f"(attempt {first.attempt})")
    else:
        named = ", ".join(f"{job.id} ({job.job_type}, {job.status})" for job in unfinished[:_MOST_NAMED])
        more = f", and {len(unfinished) - _MOST_NAMED} more" if len(unfinished) > _MOST_NAMED else ""
        what = f"{len(unfinished)} of {len(set(ids))} jobs have not ended after {timeout}: {named}{more}"
    raise JobNotFinished(
        f"{what}: is a worker running that takes the queue {first.queue!r}? handle.explain() says why a job does not "
        "run. Wait again, or longer"
    )
