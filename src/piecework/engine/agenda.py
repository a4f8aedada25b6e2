"""What the claimer knows of the lanes: which have due jobs, which will have, and when to look at the database again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from piecework.model.lanes import Lane

_FIRST_LOOK, _BUSY_LOOK = 0.01, 1.0


class Agenda:
    """Lanes with work now or later, all in the loop's monotonic seconds. Every entry is a hint: a look replaces all.

    After a look that found nothing due the next one is made after 10 ms, doubling up to `longest`; while there is work,
    every second, to find lanes that nobody hinted at.
    """

    def __init__(self) -> None:
        self.due: set[Lane] = set()
        self._later: dict[Lane, float] = {}
        self._pause = _FIRST_LOOK
        self.next_look = 0.0

    def promote(self, now: float) -> None:
        """Move the lanes whose time has come to the due ones."""
        for lane in [lane for lane, at in self._later.items() if at <= now]:
            del self._later[lane]
            self.due.add(lane)

    def expect(self, lane: Lane, at: float) -> None:
        """Note that a job of `lane` is due at `at`. The earliest is kept: after it is claimed there will be a look."""
        self._later[lane] = min(at, self._later.get(lane, at))

    def looked(self, found: Mapping[Lane, float], now: float, longest: float, *, calm: bool) -> None:
        """Replace all by what a look found: lanes, and the seconds until their first job is due.

        Args:
            longest: seconds until the next look if nothing is due.
            calm: whether all that comes is hinted at: then there is no need to look sooner.
        """
        self.due = {lane for lane, wait in found.items() if wait <= 0}
        self._later = {lane: now + wait for lane, wait in found.items() if wait > 0}
        if self.due:
            self.next_look = now + _BUSY_LOOK
        else:
            self.next_look = now + (longest if calm else min(self._pause, longest))
            self._pause = min(self._pause * 2, longest)

    def drained(self, lanes: Iterable[Lane], now: float) -> None:
        """Strike off lanes that gave less than was asked of them; when none is left, look again soon."""
        self.due.difference_update(lanes)
        if not self.due:
            self._pause = _FIRST_LOOK
            self.next_look = min(self.next_look, now + _FIRST_LOOK)

    def look_now(self) -> None:
        """Make the next look due: after a reconnect, a new job type, a declaration."""
        self.next_look = 0.0

    def next_event(self) -> float:
        """Return when to wake up if no hint comes."""
        return min([self.next_look, *self._later.values()])
