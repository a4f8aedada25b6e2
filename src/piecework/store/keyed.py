"""Finding jobs by their keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from piecework.base.ids import JobId
from piecework.store.store import Store


async def find_keyed(store: Store, job_types: Sequence[str], key: str) -> JobId | None:
    """Return the live job of this key, else the one that was spawned last; None if none is kept.

    Args:
        job_types: the names of one job type.
    """
    rows = await store.rows("find_keyed", list(job_types), key)
    return cast(JobId, rows[0][0]) if rows else None


async def list_keyed(store: Store, job_types: Sequence[str]) -> list[JobId]:
    """Return the job of each key of a job type, as `find_keyed` finds it, by key."""
    return [cast(JobId, id) for _, id in await store.rows("list_keyed", list(job_types))]
