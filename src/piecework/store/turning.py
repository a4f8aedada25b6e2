"""The clock by which due times go: the real time, or one that tests turn by hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple, cast

from piecework.store.store import Store


class DueClock(NamedTuple):
    """By what due times go."""

    now: datetime
    manual: bool
    """It stands still until somebody turns it: nothing becomes due by itself."""


async def read_clock(store: Store) -> DueClock:
    """Return the moment by which jobs are due or not."""
    [(now, manual)] = await store.rows("read_clock")
    return DueClock(cast(datetime, now), cast(bool, manual))


async def set_clock(store: Store, moment: datetime) -> datetime:
    """Have due times go by this moment, and all workers look."""
    return cast(datetime, (await store.rows("turn_clock", moment, timedelta(0)))[0][0])


async def advance_clock(store: Store, by: timedelta) -> datetime:
    """Turn the manual clock on, from the present if it is not set, and have all workers look."""
    return cast(datetime, (await store.rows("turn_clock", None, by))[0][0])


async def advance_clock_to_next(store: Store) -> datetime | None:
    """Turn the manual clock to when the next pending job is due; None, and nothing, if none is due later."""
    rows = await store.rows("turn_clock_to_next")
    return cast(datetime, rows[0][0]) if rows else None


async def clear_clock(store: Store) -> None:
    """Have due times go by the real time again."""
    await store.rows("clear_clock")
