"""What a system under measurement has to offer, and the jobs that all of them get."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

CONCURRENCY = 1000
BATCH = 1000
"""Jobs per insert, where a producer inserts in bulk."""
TEXT = "x" * 72
"""Makes a stored config of about 100 bytes: {"number": 123456, "text": "xxx…"}."""


class System(Protocol):
    """A job queue in a database of its own. Each process makes one, and calls it on one event loop."""

    async def prepare(self) -> None:
        """Make the tables."""

    async def produce(self, count: int, until: float) -> int:
        """Insert `count` no-op jobs in batches, until the monotonic clock says `until`; return how many it were."""
        ...

    def working(self) -> AbstractAsyncContextManager[None]:
        """Run a worker that hits the tally once per job."""
        ...

    async def drained(self) -> bool:
        """Whether every job that was inserted has ended, durably."""
        ...

    async def finished(self) -> tuple[int, int]:
        """How many jobs the history has, and how many different ones."""
        ...


def batches(count: int, until: float) -> Iterator[range]:
    """Cut `count` jobs into batches, and stop when time is up."""
    for start in range(0, count, BATCH):
        if time.monotonic() >= until:
            return
        yield range(start, min(start + BATCH, count))
