"""What the claimer knows of the lanes: which have due jobs, which will have, and when to look at the database again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from piecework.model.lanes import Lane

_FIRST_LOOK, _BUSY_LOOK, _IN_VAIN = 0.01, 1.0, 0.5
_IN_HAND = 0.005


class Agenda:
    """Lanes with work now or later, all in the loop's monotonic seconds. Every entry is a hint: a look replaces all.

    After a look that found nothing due the next one is made after 10 ms, doubling up to `longest`; while there is work,
    every second, to find lanes that nobody hinted at. Jobs that are seen and cannot be had, because somebody's open
    transaction holds their rows, are tried again after 10 ms, doubling up to half a second. After a look that had much
    to walk over there is a pause, unless something asks for the next one.
    """

    def __init__(self) -> None:
        self.due: set[Lane] = set()
        self._later: dict[Lane, float] = {}
        self._pause = self._vain = _FIRST_LOOK
        self._next_look = self._not_before = 0.0
        self._asked = self._soon = False

    @property
    def next_look(self) -> float:
        """When the next look is due."""
        return self._next_look if self._asked else max(self._next_look, self._not_before)

    def look_begins(self) -> None:
        """Note that a look is under way. What is hinted at from now on counts beside its answer, which may be older."""
        self.due.clear()
        self._asked = self._soon = False

    def promote(self, now: float) -> None:
        """Move the lanes whose time has come to the due ones."""
        for lane in [lane for lane, at in self._later.items() if at <= now]:
            del self._later[lane]
            self.due.add(lane)

    def expect(self, lane: Lane, at: float) -> None:
        """Note that a job of `lane` is due at `at`. The earliest is kept: after it is claimed there will be a look."""
        self._later[lane] = min(at, self._later.get(lane, at))

    def looked(
        self, found: Mapping[Lane, float], now: float, longest: float, *, calm: bool, pause: float = 0.0
    ) -> None:
        """Replace all by what a look found: lanes, and the seconds until their first job is due.

        Args:
            longest: seconds until the next look if nothing is due.
            calm: whether all that comes is hinted at: then there is no need to look sooner.
            pause: seconds until the next look, if nothing asks for one.
        """
        self.due = {lane for lane, wait in found.items() if wait <= 0}
        self._later = {lane: now + wait for lane, wait in found.items() if wait > 0}
        if self.due:
            self._next_look = now + _BUSY_LOOK
        else:
            self._vain = _FIRST_LOOK
            self._next_look = now + (longest if calm else min(self._pause, longest))
            self._pause = min(self._pause * 2, longest)
        self._not_before = now + pause
        if self._asked or self._soon:  # while it was under way
            self._next_look = 0.0

    def drained(self, lanes: Iterable[Lane], now: float, *, in_vain: bool) -> None:
        """Strike off lanes that gave less than was asked of them; when none is left, look again soon.

        Args:
            in_vain: they gave nothing at all.
        """
        self.due.difference_update(lanes)
        if not in_vain:
            self._vain = _FIRST_LOOK
        if not self.due:
            self._pause = _FIRST_LOOK
            self._next_look = min(self._next_look, now + self._vain)
            self._vain = min(self._vain * 2, _IN_VAIN)

    def postpone(self, lanes: Iterable[Lane], now: float, pause: float | None = None) -> None:
        """Leave lanes alone for a moment, or for `pause` seconds: their jobs are in other workers' hands."""
        for lane in lanes:
            self.due.discard(lane)
            self.expect(lane, now + (_IN_HAND if pause is None else pause))

    def look_now(self) -> None:
        """Make the next look due: after a reconnect, a new job type, a declaration."""
        self._next_look = 0.0
        self._asked = True

    def look_soon(self) -> None:
        """Make the next look due, or have it follow a pause that has to be."""
        self._next_look = 0.0
        self._soon = True

    def next_event(self) -> float:
        """Return when to wake up if no hint comes."""
        return min([self.next_look, *self._later.values()])
