"""Worker processes whose jobs have concurrency keys: `python keys_app.py DSN LEDGER OPTIONS`."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
from datetime import timedelta
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from engine.app import settings
from engine.ledger import Ledger

from piecework import CurrentJob, JobFunction, Jobs, Reschedule, RetrySettings

QUICK = RetrySettings(min_backoff=timedelta(milliseconds=1), max_backoff=timedelta(milliseconds=10))


def make(dsn: str, ledger: Ledger, *, quick: bool = False) -> tuple[Jobs, JobFunction, JobFunction]:
    """Jobs that take 5 ms in the mean and fail now and then, or if `quick` no time and fail seldom."""
    jobs = Jobs(dsn)

    async def erratic(job: CurrentJob) -> Reschedule | None:
        with ledger.run_of(job):
            if not quick:
                await asyncio.sleep(random.random() * 0.01)
            match random.randrange(100 if quick else 12):
                case 0:
                    raise RuntimeError("bad luck")
                case 1:
                    return Reschedule.now()
                case 2:
                    return Reschedule.after(timedelta(milliseconds=random.randrange(20)))
                case _:
                    return None

    @jobs.job(concurrency_key="account:{account}", retry=QUICK)
    async def one_at_a_time(job: CurrentJob, account: int) -> Reschedule | None:
        return await erratic(job)

    @jobs.job(concurrency_key="account:{account}", concurrency_limit=3, retry=QUICK)
    async def three_at_a_time(job: CurrentJob, account: int) -> Reschedule | None:
        return await erratic(job)

    return jobs, one_at_a_time, three_at_a_time


if __name__ == "__main__":
    dsn, ledger, options = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    given = json.loads(options)
    quick = given.pop("quick", False)
    make(dsn, Ledger(Path(ledger)), quick=quick)[0].run_worker(settings(**given))
