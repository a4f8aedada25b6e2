"""End jobs from outside: in a transaction of piecework's own, or of the caller's."""

from __future__ import annotations

from collections.abc import Sequence

from piecework.base.ids import JobId
from piecework.store import cancelling, joining
from piecework.store.cancelling import CancelAnswer
from piecework.work.connections import AsyncConn, SyncConn
from piecework.work.ending import not_found
from piecework.work.service import Service
from piecework.work.spans import Spanned, of_jobs


async def cancel(service: Service, ids: Sequence[JobId], conn: AsyncConn | None) -> list[bool]:
    """Cancel jobs, and return for each whether it was cancelled, or that was requested.

    Raises:
        JobNotFound: one of them does not exist; the others are cancelled even so.
        TransactionError: `conn` cannot be joined.
    """
    with Spanned("job.handle.cancel", of_jobs(ids)):
        if conn is None:
            return _told(ids, await service.run(lambda store: store.cancel(ids)))
        asked = cancelling.request(ids)
        return _told(ids, cancelling.answers(
            await joining.joined(conn, service.statements, asked.statement, asked.payload)))  # fmt: skip


def cancel_sync(service: Service, ids: Sequence[JobId], conn: SyncConn | None) -> list[bool]:
    """Block as `cancel` waits."""
    with Spanned("job.handle.cancel", of_jobs(ids)):
        if conn is None:
            return _told(ids, service.run_sync(lambda store: store.cancel(ids), "cancel"))
        asked = cancelling.request(ids)
        return _told(ids, cancelling.answers(
            joining.joined_sync(conn, service.statements, asked.statement, asked.payload)))  # fmt: skip


def _told(ids: Sequence[JobId], answers: Sequence[CancelAnswer]) -> list[bool]:
    for id, answer in zip(ids, answers, strict=True):
        if answer == "unknown":
            raise not_found(id)
    return [answer in ("cancelled", "requested") for answer in answers]
