"""A job on its way in (NewJob) and in the hands of a worker (ClaimedJob)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from piecework.base.ids import JobId


class NewJob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A job as it is handed to the database's `spawn` function: one element of its JSON array.

    `run_at` is microseconds since the epoch and excludes `delay`, microseconds from the insert by the database's
    clock; with neither the job is due at once.
    """

    id: JobId
    job_type: str
    config: msgspec.Raw
    queue: str = "default"
    priority: int = 0
    run_at: int | None = None
    delay: int | None = None
    tags: Sequence[str] = ()
    chosen: bool = False
    """The id is the caller's own: an existing job with it is an error, also one that ended."""
    key: str | None = None
    """While a live job of this type has it, this one is not created."""
    concurrency_key: str | None = None
    concurrency_limit: int | None = None
    """How many jobs of the concurrency key may run at once; None for 1."""
    trace_context: dict[str, str] | None = None


class ClaimedJob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A job that this worker claimed, with all that a run needs. One element of what `claim` answers."""

    id: str
    claim_no: int
    job_type: str
    queue: str
    priority: int
    run_at: int
    """Microseconds since the epoch, by the database's clock."""
    attempt: int
    failures: int
    """Failed attempts since the last completion or reschedule: what `n_attempts` caps."""
    crashes: int
    """Workers lost while they ran this job, since the last reschedule."""
    config: msgspec.Raw
    concurrency_key: str | None = None
    trace_context: msgspec.Raw = msgspec.Raw(b"null")
    """As the spawner stored it: not decoded here, since one that is odd must not spoil the claim of the others."""
    created_at: int = 0
    """Microseconds since the epoch; 0 where it was not asked for."""
    state: msgspec.Raw = msgspec.Raw(b"null")
    """What an earlier attempt saved."""
    inherited_state: msgspec.Raw = msgspec.Raw(b"null")
    """What was saved last under the job's key, of job types whose keys inherit it."""
