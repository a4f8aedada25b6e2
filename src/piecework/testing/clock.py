"""A clock that tests turn by hand: due times go by it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from types import TracebackType
from typing import TypeVar

from piecework.base.moments import within_reach
from piecework.jobs import Jobs, service_of
from piecework.store import turning
from piecework.store.store import Store

T = TypeVar("T")
_LONGEST = timedelta(days=36_525)


class ManualClock:
    """Turns the time by which jobs are due: that of `run_at` and `delay`, of a reschedule and of a retry's backoff.

    It is set in the database, so it counts in every process that works on the schema, until it is cleared; `piecework
    status` and `doctor` warn of it. A turn wakes all workers: what is due now runs at once, in the order of its due
    times as far as concurrency allows. Everything else goes by the real time all along: heartbeats, leases, timeouts,
    waits, and when a job was created, started and finished.

    `async with ManualClock(jobs) as clock:` (or `with`) stops the time at the present, or at `at`, and clears the clock
    at the end. Methods in `_sync` block as their twins wait. All raise `NotOpen` and `DatabaseError`s.

    Args:
        jobs: open; its schema is the one whose time is turned.
        at: where a `with` block begins; without it the present. An aware `datetime`.

    Raises:
        ValueError: `at` has no time zone.
    """

    def __init__(self, jobs: Jobs, *, at: datetime | None = None) -> None:
        self._service = service_of(jobs)
        self._at = None if at is None else _checked(at)

    async def __aenter__(self) -> ManualClock:
        await self._service.run(self._begin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.clear()

    def __enter__(self) -> ManualClock:
        self._service.run_sync(self._begin, "set")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear_sync()

    async def set(self, moment: datetime, /) -> datetime:
        """Set the clock to a moment, also an earlier one, and return it.

        Raises:
            ValueError: `moment` has no time zone.
        """
        return await self._service.run(_to(moment))

    def set_sync(self, moment: datetime, /) -> datetime:
        """Block as `set` waits."""
        return self._service.run_sync(_to(moment), "set")

    async def advance(self, by: timedelta, /) -> datetime:
        """Turn the clock on, from the present if it is not set, and return where it stands.

        What reschedules itself runs once per turn, however far that goes: `advance_to_next` goes from due time to due
        time.

        Raises:
            ValueError: `by` is negative, or more than a hundred years.
        """
        return await self._service.run(_on(by))

    def advance_sync(self, by: timedelta, /) -> datetime:
        """Block as `advance` waits."""
        return self._service.run_sync(_on(by), "advance")

    async def advance_to_next(self) -> datetime | None:
        """Turn the clock to when the next pending job is due, and return that; None, and no turn, if there is none.

        Jobs that are due already, and those that run, do not count.
        """
        return await self._service.run(turning.advance_clock_to_next)

    def advance_to_next_sync(self) -> datetime | None:
        """Block as `advance_to_next` waits."""
        return self._service.run_sync(turning.advance_clock_to_next, "advance_to_next")

    async def now(self) -> datetime:
        """Return the moment by which jobs are due; the present if the clock is not set."""
        return (await self._service.run(turning.read_clock)).now

    def now_sync(self) -> datetime:
        """Block as `now` waits."""
        return self._service.run_sync(turning.read_clock, "now").now

    async def clear(self) -> None:
        """Have due times go by the real time again. Without a clock that is set it does nothing."""
        await self._service.run(turning.clear_clock)

    def clear_sync(self) -> None:
        """Block as `clear` waits."""
        self._service.run_sync(turning.clear_clock, "clear")

    async def _begin(self, store: Store) -> None:
        if self._at is None:
            await turning.advance_clock(store, timedelta(0))
        else:
            await turning.set_clock(store, self._at)


def _to(moment: datetime) -> Callable[[Store], Coroutine[object, object, datetime]]:
    checked = _checked(moment)
    return lambda store: turning.set_clock(store, checked)


def _on(by: timedelta) -> Callable[[Store], Coroutine[object, object, datetime]]:
    if not timedelta(0) <= by <= _LONGEST:
        raise ValueError(f"ManualClock.advance({by!r}) turns the clock on, by a hundred years at most: set(moment) "
                         "goes back, or further")
    return lambda store: turning.advance_clock(store, by)


def _checked(moment: datetime) -> datetime:
    if moment.utcoffset() is None:
        raise ValueError(f"ManualClock got {moment!r}, which has no time zone: write datetime(…, tzinfo=UTC)")
    return within_reach(moment)
