"""What a measured process counts: executions, and how time and CPU stood at the first and at the last of them."""

from __future__ import annotations

import asyncio
import resource
import time
from typing import NamedTuple


class Moment(NamedTuple):
    """A point in the life of a process. The clock is the machine's monotonic one, the same in all its processes."""

    clock: float
    cpu: float
    """Seconds of CPU that the process has used, with all its threads."""

    @classmethod
    def now(cls) -> Moment:
        """How time and CPU stand."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return cls(time.monotonic(), usage.ru_utime + usage.ru_stime)


class Tally:
    """Counts the executions of the no-op job. Used on one event loop."""

    def __init__(self, goal: int) -> None:
        self.count = 0
        self.first: Moment | None = None
        self.reached = asyncio.Event()
        self._goal = goal

    def hit(self) -> None:
        """Count an execution."""
        if self.first is None:
            self.first = Moment.now()
        self.count += 1
        if self.count == self._goal:
            self.reached.set()
