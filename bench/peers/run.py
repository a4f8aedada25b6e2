"""One run of the comparison: all contestants in turns, several rounds; what cannot run is named with the reason."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypedDict, TypeVar

from bench.peers import measure
from bench.peers.build import build
from bench.peers.contestants import CONTESTANTS, Contestant
from bench.server import Server
from bench.shapes import Figures

T = TypeVar("T")
OWN = tuple(each.name for each in CONTESTANTS if each.environment is None)
"""Piecework and its yardstick: a measurement of theirs that fails is a fault of ours."""


def in_turn(all: Sequence[T], turn: int, rounds: int) -> list[T]:
    """The order of a round: each begins somewhere else, so that nobody always has the first place, and every other one
    goes backwards, so that nobody always has the same one before him."""
    first, step = turn * len(all) // rounds, -1 if turn % 2 else 1
    return [all[(first + step * place) % len(all)] for place in range(len(all))]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured. The default takes about ten minutes a round on two quiet cores."""

    rounds: int = 3
    scale: float = 1.0
    """Of the jobs of a drain and of a steady state at full speed."""
    singles: int = 400
    shared: int = 800
    latency_jobs: int = 100
    rates: Sequence[int] = (200, 5_000)
    """Jobs per second of the steady states at a rate; the higher one only for those that can."""
    rate_seconds: float = 3
    idle_seconds: float = 15


class Outcome(TypedDict):
    """All that is kept of a contestant."""

    version: str
    setting: str
    history: str
    jobs: int
    figures: dict[str, list[Figures | None]]
    """By measurement, once per round; none where it failed."""
    failures: list[str]


class Shape(NamedTuple):
    """A measurement of the comparison."""

    name: str
    measure: Callable[[measure.Ring, Contestant], Figures]
    only_fast: bool = False
    once: bool = False


def shapes(plan: Plan) -> Iterator[Shape]:
    """What is measured in a round. In each shape the contestants take turns, so that they meet in similar weather."""
    yield Shape("drain 1", lambda ring, who: measure.drain(ring, who, 1))
    yield Shape("drain 2", lambda ring, who: measure.drain(ring, who, 2))
    yield Shape("steady", lambda ring, who: measure.steady(ring, who, 0, 0))
    for rate in plan.rates:
        at_rate = partial(measure.steady, rate=rate, seconds=plan.rate_seconds)
        yield Shape(f"steady {rate}/s", at_rate, only_fast=rate != min(plan.rates))
    yield Shape("serial", lambda ring, who: measure.spawn(ring, who, "serial", plan.singles))
    yield Shape("c10", lambda ring, who: measure.spawn(ring, who, "c10", plan.shared))
    yield Shape("latency", lambda ring, who: measure.latency(ring, who, plan.latency_jobs))
    yield Shape("idle", lambda ring, who: measure.idle(ring, who, plan.idle_seconds), once=True)


class Comparison:
    """The contestants that could be built, and what has been measured of them."""

    def __init__(
        self, server: Server, plan: Plan, only: Sequence[str] = (), shape: str | None = None,
        keep: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """`keep` is called after each measurement."""
        self.outcomes: dict[str, Outcome] = {}
        self.missing: dict[str, str] = {}
        """Why a contestant does not take part."""
        self._ring = measure.Ring(server)
        self._plan = plan
        self._only = only
        self._shape = shape
        self._keep = keep
        self._start = time.monotonic()

    def measure(self) -> None:
        """Build what is missing, let the contestants enter, and go through all rounds."""
        chosen = [each for each in CONTESTANTS if not self._only or each.name in self._only]
        unbuilt = build({each.environment for each in chosen if each.environment is not None}, again=False)
        entered = [each for each in chosen if self._enter(each, unbuilt)]
        try:
            for turn in range(self._plan.rounds):
                print(f"round {turn + 1} of {self._plan.rounds}")
                for shape in shapes(self._plan):
                    if (shape.once and turn) or self._shape not in (None, shape.name):
                        continue
                    for contestant in in_turn(entered, turn, self._plan.rounds):
                        if contestant.fast or not shape.only_fast:
                            self._add(contestant, shape, turn)
        finally:
            self._ring.close()

    def _enter(self, contestant: Contestant, unbuilt: Mapping[str, str]) -> bool:
        if contestant.environment in unbuilt:
            self.missing[contestant.name] = unbuilt[str(contestant.environment)]
            return False
        try:
            version = self._ring.enter(contestant)
        except Exception as error:
            self.missing[contestant.name] = _said(error)
            print(f"  {contestant.name} does not take part: {_said(error)}")
            return False
        self.outcomes[contestant.name] = Outcome(
            version=version, setting=contestant.setting, history=contestant.history, jobs=self._jobs(contestant),
            figures={}, failures=[],
        )  # fmt: skip
        return True

    def _jobs(self, contestant: Contestant) -> int:
        return int(contestant.jobs * self._plan.scale)

    def _add(self, contestant: Contestant, shape: Shape, turn: int) -> None:
        outcome = self.outcomes[contestant.name]
        sized = contestant.sized(self._jobs(contestant))
        figures: Figures | None = None
        try:
            figures = shape.measure(self._ring, sized)
        except Exception as error:  # whatever it is, the others go on
            outcome["failures"].append(f"round {turn + 1}, {shape.name}: {_said(error)}")
            shown = f"FAILED: {_said(error)}"
        else:
            shown = ", ".join(f"{key} {value:,.5g}" for key, value in list(figures.items())[:5])
        outcome["figures"].setdefault(shape.name, []).append(figures)
        print(f"  {time.monotonic() - self._start:5.0f} s  {shape.name:13} {contestant.name:28} {shown}", flush=True)
        self._keep()


def _said(error: Exception) -> str:
    """One line; an error that no measurement foresees with its kind."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, measure.MeasureError) else f"{type(error).__name__}: {text}"
