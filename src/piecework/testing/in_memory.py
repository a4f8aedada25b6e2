"""Jobs without PostgreSQL: for fast unit tests of an application."""

from __future__ import annotations

from types import TracebackType

from piecework.jobs import Jobs, over_wire
from piecework.testing.memory.connection import MemoryServer


class in_memory:
    """Open a `Jobs` on an empty database in memory: `async with in_memory(jobs), jobs.worker():`.

    `with in_memory(jobs):` is for code without asyncio. Job functions, spawning, handles, workers, keys, concurrency
    keys, retries, cancelling, saved states and the `ManualClock` are as on PostgreSQL: the same tests hold for both.
    What is not there: transactions of your own (`conn=`, `job.completing`, `complete_in`), the command line, other
    processes. All is gone at the end of the block.

    Args:
        jobs: not open; whichever database it was made for is not looked at.

    Raises:
        AlreadyOpen: `jobs` is open.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def __aenter__(self) -> Jobs:
        with over_wire(self._jobs, MemoryServer):
            return await self._jobs.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._jobs.__aexit__(kind, error, trace)

    def __enter__(self) -> Jobs:
        with over_wire(self._jobs, MemoryServer):
            return self._jobs.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._jobs.__exit__(kind, error, trace)
