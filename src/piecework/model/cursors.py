"""Where a claim starts in a lane whose front is full of entries of rows that are gone.

Vacuum removes these, but none that an open transaction might still see, and until then each claim walks over them. A
lane in which that is slow gets a cursor: the place of what was claimed last, from which the next claim starts. What
appears behind it (a late commit, a job that was given back) is found by starting further back now and then, and at
times from the very start; how often goes by what that costs. All other lanes are claimed from the start each time:
nothing is missed there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from piecework.model.job import ClaimedJob
from piecework.model.lanes import Lane

SLOW, CHEAP = 10_000, 2_500
"""Index entries that a claim from the very start passes over: above SLOW the lane gets a cursor, below CHEAP it loses
it."""
BACK = 2_000_000
"""Microseconds that a claim starts before the cursor, now and then."""
SELDOM, OFTEN = 15.0, 0.1
"""Seconds between two walks of a kind, at most and at least."""
FIRST_ID = "00000000-0000-0000-0000-000000000000"
_SHARE = 20
_UNUSED = 60.0
_MOST_NAMED = 5


class Place(NamedTuple):
    """A place in the order of a lane."""

    run_at: int
    """Microseconds since the epoch."""
    id: str


class Walk(NamedTuple):
    """What a claim, or a look, went through."""

    passed: int
    """Index entries that were passed over: of rows that are gone, or that others hold."""
    seconds: float
    """How long it took on the server."""


class SlowLane(msgspec.Struct, frozen=True):
    """A lane that has a cursor."""

    queue: str
    job_type: str
    priority: int
    passed: int
    """Index entries that the last claim from the very start passed over."""
    seconds: float
    """What that took."""


def slowest(lanes: Iterable[SlowLane]) -> list[SlowLane]:
    """Return each lane once, as the worker saw it that had to pass over most; those come first."""
    most: dict[tuple[str, str, int], SlowLane] = {}
    for lane in sorted(lanes, key=lambda lane: (-lane.passed, lane.queue, lane.job_type, lane.priority)):
        most.setdefault((lane.queue, lane.job_type, lane.priority), lane)
    return list(most.values())


def named(lanes: Iterable[SlowLane]) -> str:
    """Say in words where claims start at a cursor; empty where there are no such lanes."""
    names = sorted({f"{lane.job_type} in queue {lane.queue}" for lane in lanes})
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"claims start at a cursor: {', '.join(names[:_MOST_NAMED])}{more}" if names else ""


def pause_after(walk: Walk) -> float:
    """Return the seconds until such a walk is repeated: it takes a twentieth of the time, but is not put off long."""
    return min(max(OFTEN, _SHARE * walk.seconds), SELDOM)


@dataclass(slots=True)
class Cursor:
    """The cursor of one lane. Times are seconds of one monotonic clock."""

    place: Place
    """What was claimed last."""
    front: Place
    """The farthest that was claimed."""
    whole: Walk
    """The last walk from the very start."""
    whole_at: float
    """When the next one may be."""
    back_at: float
    """When the next one from before the cursor may be."""
    back_pause: float = OFTEN

    def after(self, now: float) -> Place | None:
        """Say where the next claim starts; None: at the very start."""
        if now >= self.whole_at:
            return None
        return Place(self.place.run_at - BACK, FIRST_ID) if now >= self.back_at else self.place

    def claimed(self, after: Place | None, walk: Walk, last: Place | None, *, short: bool, now: float) -> None:
        """Note what a claim from `after` found.

        Args:
            last: of what it brought; None: nothing.
            short: it brought less than it asked for: whatever it could see is claimed.
        """
        if after is None:
            self.whole, self.whole_at = walk, now + pause_after(walk)
        elif after != self.place:
            self.back_pause = pause_after(walk)
        if after != self.place:
            self.back_at = now + self.back_pause
        if last is not None:
            # What lies before its start is brought by a claim only if the clock was turned back behind that.
            turned_back = after is not None and last <= after
            self.front = last if turned_back else max(self.front, last)
            self.place = last
        if short:
            self.place = self.front


class Cursors:
    """The lanes of a worker that have a cursor."""

    def __init__(self) -> None:
        self.of: dict[Lane, Cursor] = {}
        self._suspects: set[Lane] = set()

    @property
    def apart(self) -> Collection[Lane]:
        """The lanes to be claimed by calls of their own: those with a cursor, and those one of which seems slow."""
        return self.of.keys() | self._suspects

    @property
    def slow_lanes(self) -> Sequence[SlowLane]:
        """The lanes that have a cursor, for whoever looks."""
        return tuple(
            SlowLane(lane.queue, lane.job_type, lane.priority, cursor.whole.passed, cursor.whole.seconds)
            for lane, cursor in self.of.items()
        )

    def after(self, lanes: Sequence[Lane], now: float) -> Place | None:
        """Say where a claim from these lanes starts; None: at the very start."""
        cursor = self.of.get(lanes[0]) if len(lanes) == 1 else None
        return None if cursor is None else cursor.after(now)

    def claimed(
        self,
        lanes: Sequence[Lane],
        after: Place | None,
        walk: Walk,
        jobs: Sequence[ClaimedJob],
        now: float,
        *,
        short: bool,
    ) -> None:
        """Note what a claim from these lanes found. A lane may have a cursor from now on, or none any more.

        Args:
            after: where it started.
            jobs: what it brought, in their order.
            short: of one lane: it brought less than it was asked for.
        """
        if len(lanes) > 1:
            # If none of them were slow by itself, it could not be as much.
            if walk.passed > SLOW + CHEAP * (len(lanes) - 1):
                self._suspects.update(lanes)
            return
        [lane] = lanes
        cursor = self.of.get(lane)
        last = Place(jobs[-1].run_at, jobs[-1].id) if jobs else None
        slow = walk.passed > (CHEAP if lane in self._suspects else SLOW)
        self._suspects.discard(lane)
        if cursor is None:
            if slow and last is not None:
                self.of[lane] = Cursor(last, last, walk, whole_at=now + pause_after(walk), back_at=now + OFTEN)
        elif after is None and walk.passed < CHEAP:
            del self.of[lane]
        else:
            cursor.claimed(after, walk, last, short=short, now=now)

    def unfinished(self, spent: Sequence[Lane], after: Place | None) -> Iterator[tuple[Lane, float]]:
        """Yield the lanes that gave less than was asked, though not from the very start, and when that is walked."""
        for lane in spent:
            cursor = self.of.get(lane)
            if cursor is not None and after is not None:
                yield lane, cursor.whole_at

    def forget_unused(self, now: float) -> None:
        """Drop the cursors of lanes that were not claimed from for long: the next claim walks from the start anyway."""
        self._suspects.clear()
        for lane in [lane for lane, cursor in self.of.items() if now > cursor.whole_at + _UNUSED]:
            del self.of[lane]
