"""Moments that PostgreSQL and Python both can hold, and read again in any time zone."""

from __future__ import annotations

from datetime import UTC, datetime

EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
LATEST = datetime(9999, 12, 31, tzinfo=UTC)
"""PostgreSQL adds microseconds in floating point: behind this one it may round to the year 10000."""


def within_reach(moment: datetime) -> datetime:
    """Return an aware moment in UTC; one that is not readable everywhere becomes the nearest that is.

    Raises:
        ValueError: its time zone does not say how far it is from UTC, so that it names no moment.
    """
    if moment.utcoffset() is None:
        raise ValueError(f"{moment!r} has no time zone, so it names no moment: write datetime.now(UTC) or "
                         "value.astimezone()")
    return min(max(moment, EARLIEST), LATEST).astimezone(UTC)
