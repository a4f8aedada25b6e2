"""Why a job does not run, as far as the database knows."""

from __future__ import annotations

import msgspec

from piecework.base.ids import JobId
from piecework.model.explanation import JobExplanation, JobFacts, explained
from piecework.store.store import Store

_decode = msgspec.json.Decoder(JobFacts).decode


async def explain(store: Store, id: JobId) -> JobExplanation | None:
    """Say why this job does not run, or since when it does, or how it ended; None if there is no such job.

    Raises:
        DatabaseError
    """
    rows = await store.rows("explain", id)
    return explained(_decode(str(rows[0][0]))) if rows else None
