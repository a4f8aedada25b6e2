"""What a chaos run is asked for, and which fault comes when: all of it drawn from the seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from piecework.cli.chaos.fleet import Crew
from piecework.cli.chaos.scene import Kind

_ALONE = 0.7
_REST_EVERY = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """A chaos run."""

    seconds: float
    seed: int
    crew: Crew
    faults: Sequence[str]
    """The names of those that may be done."""


@dataclass(frozen=True, slots=True)
class Step:
    """One fault of a run."""

    kind: Kind
    chance: Random
    """What it draws whom it hits from."""
    before: float
    """Seconds until it begins."""
    rest: bool
    """Whether nothing new breaks for longer afterwards than it may take to give back what a lost worker held."""
    alone: bool
    """Whether it is waited for, and what it has broken given time to recover."""


def steps(seed: int, kinds: Sequence[Kind]) -> Iterator[Step]:
    """Yield the faults of a seed without end: each kind once in a round, in another order each time.

    A step is the same for a seed whatever came of those before it.
    """
    number = 0
    while True:
        order = list(kinds)
        Random(f"{seed} round {number}").shuffle(order)
        for kind in order:
            chance = Random(f"{seed} {number}")
            number += 1
            before, alone = chance.uniform(0.1, 1.0), chance.random() < _ALONE
            yield Step(kind, chance, before, number % _REST_EVERY == 0, alone)
