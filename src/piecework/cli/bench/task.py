"""What a process that spawns is told to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["bulk", "one", "ten", "paced", "knock"]

CALLERS = 10
"""As many spawn at once in the role `ten`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one spawner does."""

    role: Role
    count: int
    """At most so many jobs."""
    seconds: float
    """For at most so long."""
    payload: int
    """Bytes of text in each job."""
    rate: float = 0.0
    """Jobs per second of the role `paced`."""

    def arguments(self) -> list[str]:
        """Return the command line that `piecework.cli.bench.spawner` takes."""
        return [self.role, str(self.count), str(self.seconds), str(self.payload), str(self.rate)]
