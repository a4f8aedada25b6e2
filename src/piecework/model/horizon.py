"""The horizon guard's decisions: who is to blame that dead rows stay, and when claims will suffer from them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import combinations, pairwise
from typing import NamedTuple

import msgspec

from piecework.base.texts import span
from piecework.model.cursors import SlowLane, slowest
from piecework.model.pins import Pin

SLOW_CLAIM = 0.1
"""Seconds. A claim over as many jobs as it may take has a tenth of that where nothing is wrong."""
_LOOK_FROM = 5_000
_HISTORY = 10
_TOO_OLD = 300.0
_MOST_SUSPECTS = 5
_PER_DEAD_ROW = 6e-8
_LEAST_PER_DEAD_ROW, _MOST_PER_DEAD_ROW = 1e-8, 1e-6
_TELLING = 50_000


@dataclass(slots=True)
class Claims:
    """What a worker's claims have cost since its process began, as the worker saw it: the round trip is in it."""

    calls: int = 0
    jobs: int = 0
    seconds: float = 0.0
    worst: float = 0.0
    slow: int = 0
    """How many took longer than `SLOW_CLAIM`."""
    slow_lanes: tuple[SlowLane, ...] = ()
    """Those that have a cursor now."""

    def add(self, seconds: float, jobs: int) -> None:
        """Count a claim that was answered."""
        self.calls += 1
        self.jobs += jobs
        self.seconds += seconds
        self.worst = max(self.worst, seconds)
        self.slow += seconds > SLOW_CLAIM


class Point(NamedTuple):
    """What was counted at one time."""

    at: float
    """Seconds since 1970, by the database's clock."""
    dead: int
    """Dead rows of `jobs`."""
    calls: int
    """Claims of all workers so far."""
    seconds: float
    """What these took."""


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """A pin that is being watched."""

    pin: Pin
    since: float
    """When it was first seen holding on to the same transaction, by the database's clock."""
    least: int
    """The fewest dead rows of `jobs` since."""
    accused_at: float | None = None
    """When the log named it last."""


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """What the guard knows. It rides on the beats of the worker that looked, so that any other can go on from there."""

    at: float
    dead: int
    dead_keys: int
    vacuumed: float | None
    """Seconds since `jobs` was last vacuumed; None: never."""
    sees_all: bool
    """Whether the role may see what the sessions of others do."""
    history: Sequence[Point] = ()
    suspects: Sequence[Suspect] = ()
    """Those that hold the horizon back most come first."""
    slow_lanes: Sequence[SlowLane] = ()
    """Those in which some worker starts its claims at a cursor."""

    @property
    def culprit(self) -> Suspect | None:
        """Who is to blame; None while nothing is wrong."""
        return next((suspect for suspect in self.suspects if suspect.accused_at is not None), None)

    @property
    def forecast(self) -> Forecast:
        """What comes if it goes on like this."""
        return forecast(self.history, from_cursors=bool(self.slow_lanes))


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What the database says at one time."""

    at: float
    dead: int
    dead_keys: int
    vacuumed: float | None
    sees_all: bool
    claims: Claims
    """Of all workers."""
    watch: Watch | None
    """What whoever looked last wrote down; None: nobody, or they have all signed off."""


class Limits(NamedTuple):
    """From when on somebody is to blame."""

    age: float = 60.0
    """Seconds that the pin has lasted."""
    growth: int = 10_000
    """Dead rows that have come since it was first seen."""
    again: float = 600.0
    """Seconds until the same one is named again."""


LIMITS = Limits()


class Turn(NamedTuple):
    """What a look has led to."""

    watch: Watch
    accused: Suspect | None
    """Who is to be named now."""
    gone: Sequence[Suspect]
    """Those that had been named, and hold nothing back any more."""


def latest(watches: Iterable[Watch | None]) -> Watch | None:
    """Return what was written down last."""
    return max((watch for watch in watches if watch is not None), key=lambda watch: watch.at, default=None)


def worth_a_look(sample: Sample) -> bool:
    """Whether there are so many dead rows, or was somebody to blame, that it matters who holds on to them."""
    return sample.dead >= _LOOK_FROM or (sample.watch is not None and sample.watch.culprit is not None)


def watch(sample: Sample, pins: Sequence[Pin] | None, limits: Limits = LIMITS) -> Turn:
    """Go on from what is known.

    Args:
        sample: what the database says, with what was written down before.
        pins: who may keep dead rows; empty where it was not worth a look, None where it cannot be seen.
        limits: from when on somebody is to blame.
    """
    before = sample.watch
    if before is not None and not 0 <= sample.at - before.at <= _TOO_OLD:
        before = None
    point = Point(sample.at, sample.dead, sample.claims.calls, sample.claims.seconds)
    history = [point] if before is None else [*before.history[1 - _HISTORY :], point]
    known = () if before is None else before.suspects
    keeping = sorted((pin for pin in pins or () if pin.keeps_rows), key=lambda pin: -(pin.xids or 0))[:_MOST_SUSPECTS]
    suspects = [_suspected(pin, known, sample) for pin in keeping]
    accused = None
    if suspects and _to_blame(suspects[0], sample, limits):
        accused = suspects[0] = msgspec.structs.replace(suspects[0], accused_at=sample.at)
    named = [old for old in known if old.accused_at is not None and pins is not None]
    gone = [old for old in named if not any(old.pin.is_of(pin) for pin in pins or ())]
    found = Watch(
        at=sample.at, dead=sample.dead, dead_keys=sample.dead_keys, vacuumed=sample.vacuumed,
        sees_all=sample.sees_all, history=history if worth_a_look(sample) else [point], suspects=suspects,
        slow_lanes=slowest(sample.claims.slow_lanes),
    )  # fmt: skip
    return Turn(found, accused, gone)


def _suspected(pin: Pin, known: Iterable[Suspect], sample: Sample) -> Suspect:
    for old in known:
        if old.pin.is_of(pin):
            return msgspec.structs.replace(old, pin=pin, least=min(old.least, sample.dead))
    return Suspect(pin=pin, since=sample.at, least=sample.dead)


def _to_blame(suspect: Suspect, sample: Sample, limits: Limits) -> bool:
    # A transaction may be older than what it holds on to; rows that died before it was seen are not counted.
    age = max(suspect.pin.seconds or 0.0, sample.at - suspect.since)
    named = suspect.accused_at
    return (
        age >= limits.age
        and sample.dead - suspect.least > limits.growth
        and (named is None or sample.at - named >= limits.again)
    )


class Forecast(NamedTuple):
    """What comes if it goes on like this."""

    growth: float
    """Dead rows of `jobs` that come per second; 0: none."""
    claim: float | None
    """Seconds that a claim takes now; None: none was made of late."""
    doubled_in: float | None
    """Seconds until a claim takes twice as long; None: not for long, or not known."""
    tenfold_in: float | None


def forecast(history: Sequence[Point], *, from_cursors: bool = False) -> Forecast:
    """Say when claims will take 2 and 10 times as long as now, from the rate at which dead rows come.

    A claim steps over the dead entries of its lane, so it gets slower in proportion to them. How much for each is
    learned from the claims so far where these tell it, else assumed as it was measured (docs/design.md).

    Args:
        history: in the order of time.
        from_cursors: claims start at a cursor where they were slow, and so get hardly any slower.
    """
    rising = list(history)
    for at in range(len(rising) - 1, 0, -1):
        if rising[at].dead < rising[at - 1].dead:
            rising = rising[at:]  # vacuum came by
            break
    growth = 0.0
    if len(rising) > 1 and rising[-1].at > rising[0].at:
        growth = (rising[-1].dead - rising[0].dead) / (rising[-1].at - rising[0].at)
    claim = _cost(*history[-2:]) if len(history) > 1 else None
    if claim is None or growth <= 0 or from_cursors:
        return Forecast(growth, claim, None, None)
    for_one_more = claim / (_per_dead_row(rising) * growth)
    return Forecast(growth, claim, for_one_more, 9 * for_one_more)


def _cost(before: Point, after: Point) -> float | None:
    """Return what a claim took between the two; None where the counts do not tell: a worker may have gone."""
    calls, seconds = after.calls - before.calls, after.seconds - before.seconds
    return seconds / calls if calls > 0 and seconds > 0 else None


def _per_dead_row(rising: Sequence[Point]) -> float:
    costs = [(after.dead, cost) for before, after in pairwise(rising) if (cost := _cost(before, after)) is not None]
    slopes = [(c2 - c1) / (d2 - d1) for (d1, c1), (d2, c2) in combinations(costs, 2) if d2 - d1 >= _TELLING]
    if len(slopes) < 3:
        return _PER_DEAD_ROW
    return min(max(statistics.median(slopes), _LEAST_PER_DEAD_ROW), _MOST_PER_DEAD_ROW)


def foretold(expected: Forecast) -> str:
    """Say the forecast in words; empty where no dead rows come."""
    if expected.growth < 1:
        return ""
    comes = f"{expected.growth:.0f} come every second"
    if expected.claim is None:
        return comes
    now = f"{expected.claim * 1000:.1f} ms now"
    if expected.doubled_in is None or expected.tenfold_in is None:
        return f"{comes}; a claim takes {now}"
    double, tenfold = (span(timedelta(seconds=seconds)) for seconds in (expected.doubled_in, expected.tenfold_in))
    return f"{comes}; a claim takes {now}, twice as long in {double}, ten times as long in {tenfold}"
