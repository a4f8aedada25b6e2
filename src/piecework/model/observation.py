"""Invariant I: when a worker may say that another one is dead. No two machines' clocks are compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class _Sighting(NamedTuple):
    beat_no: int
    since: float


class Observer:
    """Watches the beat numbers of other workers from within one worker.

    A worker is dead when its beat number was seen unchanged for the lease that its own row states, in this worker's
    monotonic time, and this worker's own beats went through all that while. After an outage, when nobody could beat,
    every worker gets its whole lease again.

    Args:
        own_id: the worker that observes; it never finds itself dead.
        max_gap: seconds between two observations after which it had itself been cut off.
    """

    def __init__(self, own_id: str, max_gap: float) -> None:
        self._own_id = own_id
        self._max_gap = max_gap
        self._last: float | None = None
        self._sightings: dict[str, _Sighting] = {}

    def observe(self, now: float, others: Iterable[tuple[str, int, float]]) -> list[str]:
        """Look at all workers after an own beat that succeeded, and return the ids of the dead.

        A dead worker is returned again until its row is gone, so that an interrupted rescue is repeated.

        Args:
            now: monotonic seconds, read after the rows arrived. Read before, it would start a sighting earlier than
                the beat that it saw, and shorten the lease.
            others: (worker id, beat number, lease in seconds) of every row; those missing are forgotten.
        """
        cut_off = self._last is not None and now - self._last > self._max_gap
        known = {} if cut_off else self._sightings
        self._last = now
        self._sightings = {}
        dead: list[str] = []
        for worker_id, beat_no, lease in others:
            if worker_id == self._own_id:
                continue
            sighting = known.get(worker_id)
            if sighting is None or sighting.beat_no != beat_no:
                sighting = _Sighting(beat_no, now)
            elif now - sighting.since >= lease:
                dead.append(worker_id)
            self._sightings[worker_id] = sighting
        return dead
