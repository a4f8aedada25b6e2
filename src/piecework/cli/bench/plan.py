"""What a bench does: its shapes, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from piecework.cli.bench.task import CALLERS, Role, Task

Order: TypeAlias = Literal["spawn only", "spawn first", "work first"]


class Shape(NamedTuple):
    """One measurement."""

    name: str
    what: str
    role: Role
    order: Order
    callers: int = 1
    """Who spawn at once."""
    at_full_speed: bool = True
    """Whether something must be the limit."""


SHAPES = (
    Shape("bulk", "one caller, by spawn_all", "bulk", "spawn only"),
    Shape("spawn", "one caller, each spawn awaited", "one", "spawn only"),
    Shape("spawners", f"{CALLERS} callers at once, each spawn awaited", "ten", "spawn only", CALLERS),
    Shape("drain", "workers on a full table", "bulk", "spawn first"),
    Shape("steady", "spawning by spawn_all and working at once, at full speed", "bulk", "work first"),
    Shape("paced", "the same at a fixed rate", "paced", "work first", at_full_speed=False),
    Shape("latency", "now and then a spawn for idle workers", "knock", "work first", at_full_speed=False),
)
NAMES = tuple(shape.name for shape in SHAPES)

_KNOCKS = 1000
_PACE_UNKNOWN = 500.0
_PART = 0.5
"""The fixed rate is this part of the full speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    jobs: int
    """Of each shape, at most."""
    seconds: float
    """That each shape spawns, and that a full table is worked on, at most."""
    processes: int
    """That work."""
    concurrency: int
    payload: int
    """Bytes of text in each job."""
    shapes: Sequence[str]

    def task(self, shape: Shape, full_speed: float | None) -> Task:
        """Return what the spawner of a shape does.

        Args:
            shape: the shape.
            full_speed: jobs per second that were worked off before; None: not known.
        """
        rate = _PACE_UNKNOWN if full_speed is None else max(full_speed * _PART, 1.0)
        count = min(self.jobs, _KNOCKS) if shape.role == "knock" else self.jobs
        if shape.role == "paced":
            count = min(max(self.jobs, 1), int(rate * self.seconds) + 1)
        return Task(role=shape.role, count=count, seconds=self.seconds, payload=self.payload, rate=rate)

    def patience(self, shape: Shape) -> float:
        """Return for how many seconds workers may go on when all is spawned."""
        return self.seconds if shape.order == "spawn first" else self.seconds * 2 + 5
