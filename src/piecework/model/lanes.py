"""Which lanes the next claim looks at, and how many jobs it asks of each (invariant B)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, zip_longest
from typing import NamedTuple, TypeVar

_T = TypeVar("_T")


class Lane(NamedTuple):
    """What a claim looks at: the jobs of one type and priority in one queue, by (run_at, id)."""

    queue: str
    job_type: str
    priority: int
    keyed: bool = False
    """Those with a concurrency key: they are claimed under the locks of their keys."""


def allot(
    lanes: Sequence[Lane],
    budget: int,
    caps: Mapping[str, int],
    shared: tuple[frozenset[str], int] | None,
    rotation: int,
) -> list[tuple[Lane, int]]:
    """Divide a claim of at most `budget` jobs among the lanes that have work, in the order to look at them.

    Priority is strict within a queue: a lane is left out while one of a better priority in its queue could give more
    than this answer asks of it. Queues, and the lanes of one priority, share alike and take turns. So after a claim
    that brought less than `budget`, call again without the lanes that brought less than was asked of them, until
    nothing is returned.

    The asked sum may exceed `budget`, since a lane may have less than is asked of it: the claim stops at `budget`.
    It never exceeds the room of a job type or the shared room.

    Args:
        lanes: distinct lanes that may have due jobs, in any order.
        caps: room left per job type; a type that is absent has no limit.
        shared: job types that draw on one further room besides, and what is left of it.
        rotation: rises by one with each claim; who comes first changes with it.
    """
    rooms = _Rooms(budget, caps, shared)
    queues = _levels_by_queue(lanes, rooms)
    if not queues:
        return []
    share = _ceil_div(budget, len(queues))
    # Lanes turn once per full turn of the queues, else some lane would never be first in the first queue.
    turn = rotation // len(queues)
    going: list[list[list[Lane]]] = [
        [_rotated(level, turn) for level in levels] for levels in _rotated(queues, rotation)
    ]
    asked: list[tuple[Lane, int]] = []
    depth = 0
    while going:
        tops = [levels[depth] for levels in going]
        shares = {top[0].queue: _ceil_div(share, len(top)) for top in tops}
        in_turn = [lane for lane in chain.from_iterable(zip_longest(*tops)) if lane is not None]
        now = rooms.ask(in_turn, shares)
        asked += ((lane, n) for lane, n in now.items() if n > 0)
        depth += 1
        going = [
            levels
            for levels, top in zip(going, tops, strict=True)
            if depth < len(levels) and all(now[lane] == rooms.whole(lane.job_type) for lane in top)
        ]
    return asked


class Call(NamedTuple):
    """One claim: lanes that can be claimed from together."""

    asked: list[tuple[Lane, int]]
    batch: int
    """The jobs that the counts stand for: 1, or how many run together in a batch at most."""


def calls(
    asked: Sequence[tuple[Lane, int]], sizes: Mapping[str, int], apart: Collection[Lane] = ()
) -> list[Call]:
    """Divide what `allot` answered into claims, to be made in this order.

    Jobs with concurrency keys are claimed apart from others, and so are those of each batched job type, whose counts
    are batches. No lane comes before one of its queue whose priority is better.

    Args:
        asked: as `allot` returned it.
        sizes: of each batched job type, how many of its jobs run together at most.
        apart: lanes each of which is claimed by a call of its own.
    """
    divided: list[tuple[tuple[bool, str, Lane | None], Call]] = []
    for lane, count in asked:
        kind = lane.keyed, lane.job_type if lane.job_type in sizes else "", lane if lane in apart else None
        place: Call | None = None
        for other, call in reversed(divided):
            if other == kind:
                place = call
                break
            if any(each.queue == lane.queue and each.priority < lane.priority for each, _ in call.asked):
                break
        if place is None:
            place = Call([], sizes.get(lane.job_type, 1))
            divided.append((kind, place))
        place.asked.append((lane, count))
    return [call for _, call in divided]


class _Rooms:
    """How much lanes may be asked for, and what is left of the caps and of the shared room while they are."""

    def __init__(self, budget: int, caps: Mapping[str, int], shared: tuple[frozenset[str], int] | None) -> None:
        self._budget = budget
        self._caps = caps
        self._sharers, self._shared = shared if shared is not None else (frozenset[str](), 0)
        self._caps_left = dict(caps)
        self._shared_left = self._shared

    def whole(self, job_type: str) -> int:
        """The most that a lane of this type could be asked for if there were no other."""
        n = min(self._budget, self._caps.get(job_type, self._budget))
        return min(n, self._shared) if job_type in self._sharers else n

    def ask(self, lanes: Sequence[Lane], shares: Mapping[str, int]) -> dict[Lane, int]:
        """Ask each lane for the share of its queue, or for an equal part of a room that cannot hold that much."""
        drawing = Counter(lane.job_type for lane in lanes)
        sharing = sum(drawing[job_type] for job_type in drawing if job_type in self._sharers)
        asked: dict[Lane, int] = {}
        for lane in lanes:
            job_type, n = lane.job_type, shares[lane.queue]
            if job_type in self._caps:
                n = min(n, _ceil_div(self._caps_left[job_type], drawing[job_type]))
            if job_type in self._sharers:
                n = min(n, _ceil_div(self._shared_left, sharing))
                sharing -= 1
                self._shared_left -= n
            if job_type in self._caps:
                drawing[job_type] -= 1
                self._caps_left[job_type] -= n
            asked[lane] = n
        return asked


def _levels_by_queue(lanes: Sequence[Lane], rooms: _Rooms) -> list[list[list[Lane]]]:
    """The lanes whose job type has room: per queue its levels, best priority first; none of them is empty."""
    by_queue: dict[str, dict[int, list[Lane]]] = {}
    for lane in sorted(lanes):
        if rooms.whole(lane.job_type) > 0:
            by_queue.setdefault(lane.queue, {}).setdefault(lane.priority, []).append(lane)
    return [[levels[priority] for priority in sorted(levels)] for levels in by_queue.values()]


def _rotated(items: Sequence[_T], by: int) -> list[_T]:
    start = by % len(items)
    return [*items[start:], *items[:start]]


def _ceil_div(total: int, parts: int) -> int:
    return -(-total // parts)
