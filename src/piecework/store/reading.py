"""Reading jobs: rows in, snapshots out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias, cast
from uuid import UUID

import msgspec

from piecework.base.ids import JobId
from piecework.model.snapshot import ErrorInfo, JobSnapshot, JobStatus, Progress

Row: TypeAlias = tuple[object, ...]

_decode_error = msgspec.json.Decoder(ErrorInfo).decode
_UUID_MS_SHIFT = 80
_CLOCK_SKEW = timedelta(days=1)
_MOST_SHOWN = 200
EVER = datetime.min.replace(tzinfo=UTC)
"""Before every moment at which a job may have ended."""


def stored_error(text: object) -> ErrorInfo | None:
    """Return an error as it is stored; of one that has another form, written by hand, what stands there."""
    if text is None:
        return None
    try:
        return _decode_error(str(text))
    except (msgspec.DecodeError, RecursionError):
        return ErrorInfo(type="unreadable error", message=str(text)[:_MOST_SHOWN])


def _raw(text: object) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(str(text).encode())


def _utc(moment: object) -> datetime | None:
    """Return a moment in UTC: a session of a pooler's may have another zone."""
    return None if moment is None else cast(datetime, moment).astimezone(UTC)


def snapshot(row: Row) -> JobSnapshot:
    """Build a snapshot from a row of `sql/load_jobs.sql` or `sql/list_jobs.sql`."""
    config = _raw(row[16])
    return JobSnapshot(
        id=cast(UUID, row[0]),
        job_type=cast(str, row[1]),
        status=cast(JobStatus, row[2]),
        queue=cast(str, row[3]),
        priority=cast(int, row[4]),
        attempt=cast(int, row[5]),
        failures=cast(int, row[6]),
        crashes=cast(int, row[7]),
        claim_no=cast(int, row[8]),
        worker_id=cast("UUID | None", row[9]),
        run_at=_utc(row[10]),
        created_at=cast(datetime, _utc(row[11])),
        claimed_at=_utc(row[12]),
        started_at=_utc(row[13]),
        finished_at=_utc(row[14]),
        tags=tuple(map(str, cast("list[object] | None", row[15]) or ())),
        config=msgspec.Raw(b"null") if config is None else config,
        result=_raw(row[17]),
        error=stored_error(row[18]),
        key=cast("str | None", row[19]),
        concurrency_key=cast("str | None", row[20]),
        parked=cast(bool, row[21]),
        state=_raw(row[22]),
        progress=_progress(row),
    )


def _progress(row: Row) -> Progress | None:
    """Return what was reported; a run that only set a result so far has reported nothing."""
    done, note = cast("float | None", row[23]), cast("str | None", row[24])
    if done is None and not note:
        return None
    return Progress(done=done, note=note or "", reported_at=cast(datetime, _utc(row[25])))


def not_before(ids: Sequence[JobId]) -> datetime:
    """Return a moment before which no job of these ids is likely to have ended, to spare leaves of the history.

    A UUIDv7 tells when it was made; a day is left for clocks that differ. But a caller may have chosen it, or have made
    it by a wrong clock: who does not find a job has to look from `EVER` on. Any other id may be of any age.
    """
    if not ids or any(id.version != 7 for id in ids):
        return EVER
    ms = min(id.int >> _UUID_MS_SHIFT for id in ids)
    try:
        return datetime.fromtimestamp(ms / 1000, UTC) - _CLOCK_SKEW
    except (OverflowError, ValueError, OSError):
        return EVER
