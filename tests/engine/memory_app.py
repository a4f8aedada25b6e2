"""A worker process for `test_memory.py`: most jobs do nothing, one of a hundred fails, one tells of the collector."""

from __future__ import annotations

import gc
import logging
import sys

from piecework import JobFunction, Jobs, RetrySettings, WorkerSettings

ONE_FAILS = 100


def make(dsn: str) -> tuple[Jobs, JobFunction, JobFunction]:
    jobs = Jobs(dsn)

    @jobs.job
    async def collector() -> tuple[int, int]:
        return gc.get_freeze_count(), gc.get_threshold()[0]

    @jobs.job(retry=RetrySettings(n_attempts=1))
    async def mostly_succeeds(number: int) -> None:
        if number % ONE_FAILS == 0:
            raise RuntimeError(f"number {number}")

    return jobs, mostly_succeeds, collector


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    make(sys.argv[1])[0].run_worker(WorkerSettings(concurrency=1000))
