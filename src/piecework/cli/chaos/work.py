"""The jobs of a chaos run. Workers are started on `piecework.cli.chaos.work:jobs`."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from piecework.cli.chaos import variables
from piecework.cli.chaos.ledger import recorded
from piecework.jobs import Jobs
from piecework.model.completion import Fail, Reschedule
from piecework.model.retry import RetrySettings
from piecework.testing.history import Ledger
from piecework.work.batch import BatchItem, BatchOutcomes, CurrentBatch
from piecework.work.current_job import CurrentJob

SCHEMA = os.environ.get(variables.SCHEMA, "piecework_chaos")
ATTEMPTS = 30
_RETRY = RetrySettings(
    n_attempts=ATTEMPTS, n_warn_attempts=None, min_backoff=timedelta(milliseconds=1), max_backoff=timedelta(seconds=1)
)
_UNLUCKY = 7
"""Numbers that it divides are failed on purpose."""

jobs = Jobs(schema=SCHEMA, migrate=False, max_connections=8)
_effects = Ledger(SCHEMA)


@jobs.job("chaos-erratic", retry=_RETRY)
async def erratic(job: CurrentJob, number: int) -> int | Reschedule | Fail:
    """Complete, fail, retry or ask for another run, by chance."""
    with recorded(job):
        await asyncio.sleep(random.random() * 0.02)
        match random.randrange(8):
            case 0 | 1:
                raise RuntimeError("bad luck")
            case 2:
                return Reschedule.now()
            case 3:
                return Reschedule.after(timedelta(milliseconds=random.randrange(20)))
            case _:
                return Fail("unlucky number") if number % _UNLUCKY == 0 else number


@jobs.job("chaos-nap", retry=_RETRY)
async def nap(job: CurrentJob, seconds: float) -> None:
    """Take a while."""
    with recorded(job):
        await asyncio.sleep(seconds)


@jobs.job("chaos-nap-in-thread", retry=_RETRY)
def nap_in_thread(job: CurrentJob, seconds: float) -> None:
    """Take a while in a thread, which nobody can stop."""
    with recorded(job):
        time.sleep(seconds)


@jobs.job("chaos-block", retry=_RETRY)
async def block(job: CurrentJob, seconds: float) -> None:
    """Stop the event loop of the worker."""
    with recorded(job):
        time.sleep(seconds)  # noqa: ASYNC251


@jobs.job("chaos-pay", retry=_RETRY, concurrency_key="account:{account}")
async def pay(job: CurrentJob, account: int) -> None:
    """Complete in a transaction with an effect; one at a time of an account, in their order."""
    with recorded(job):
        async with job.completing() as conn:
            await _effects.write(conn, job, "effect")
            await asyncio.sleep(random.random() * 0.02)


@jobs.job("chaos-pay-in-thread", retry=_RETRY)
def pay_in_thread(job: CurrentJob) -> None:
    """Complete in a transaction with an effect, in a thread."""
    with recorded(job), job.completing() as conn:
        _effects.write_sync(conn, job, "effect")
        time.sleep(random.random() * 0.02)


@jobs.job("chaos-pay-slowly", retry=_RETRY)
async def pay_slowly(job: CurrentJob, seconds: float) -> None:
    """Complete in a transaction that is open for a while, with an effect at its beginning."""
    with recorded(job):
        async with job.completing() as conn:
            await _effects.write(conn, job, "effect")
            await asyncio.sleep(seconds)


@jobs.job("chaos-visit", retry=_RETRY, concurrency_key="room:{room}", concurrency_limit=3)
async def visit(job: CurrentJob, room: int) -> None:
    """Run with at most two others of the room."""
    with recorded(job):
        await asyncio.sleep(random.random() * 0.02)


@jobs.job("chaos-named", retry=_RETRY, key="{name}")
async def named(job: CurrentJob, name: str) -> None:
    """Be the only live one of the name."""
    with recorded(job):
        await asyncio.sleep(random.random() * 0.02)


@dataclass(frozen=True, slots=True)
class Number:
    """The config of a batched job."""

    number: int


@jobs.batched("chaos-count", max_size=50, retry=_RETRY)
async def count(batch: CurrentBatch[Number]) -> BatchOutcomes[int]:
    """Run with others in one call."""
    with recorded(*batch.items):
        await asyncio.sleep(random.random() * 0.02)

    def each(item: BatchItem[Number]) -> int | Fail:
        return Fail("unlucky number") if item.config.number % _UNLUCKY == 0 else item.config.number

    return batch.outcomes(each)


N_ATTEMPTS: Mapping[str, int] = dict.fromkeys(
    (
        each.job_type
        for each in (erratic, nap, nap_in_thread, block, pay, pay_in_thread, pay_slowly, visit, named, count)
    ),
    ATTEMPTS,
)  # fmt: skip
EFFECTS = frozenset({pay.job_type, pay_in_thread.job_type, pay_slowly.job_type})
"""Job types whose completion is in a transaction with an effect: that the run returned is not known of these."""
RUNS = frozenset(N_ATTEMPTS) - EFFECTS
"""Job types that enter their runs in the ledger, and complete when the run has returned."""
