"""The jobs of the demo, as an application would write them. Workers are started on `piecework.cli.demo.work:jobs`."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path

from piecework.cli.demo import variables
from piecework.cli.demo.ledger import recorded
from piecework.cli.demo.measure import Measure, measure
from piecework.jobs import Jobs
from piecework.model.retry import RetrySettings
from piecework.work.current_job import CurrentJob

jobs = Jobs(schema=os.environ[variables.SCHEMA])

_RETRY = RetrySettings(
    n_attempts=10,
    min_backoff=timedelta(milliseconds=500),
    max_backoff=timedelta(seconds=2),
    # A paced run outlasts its backoff: it is not healthy for that.
    attempt_reset_after_backoff_multiples=1000,
)


class FailedOnPurpose(Exception):
    """The demo wanted this attempt to fail."""


@jobs.job("count-file", retry=_RETRY)
async def count_file(job: CurrentJob, path: str, failures: int, pace: float) -> Measure:
    """Count one file; its first `failures` attempts fail, and each takes `pace` seconds at least."""
    with recorded(job):
        await asyncio.sleep(pace)
        _fail_on_purpose(job, failures)
        return measure(Path(path))


@jobs.job("count-large-file", retry=_RETRY)
def count_large_file(job: CurrentJob, path: str, failures: int, pace: float) -> Measure:
    """Do the same in a thread."""
    with recorded(job):
        time.sleep(pace)
        _fail_on_purpose(job, failures)
        return measure(Path(path))


def _fail_on_purpose(job: CurrentJob, failures: int) -> None:
    if job.attempt <= failures:
        raise FailedOnPurpose(f"attempt {job.attempt} of {failures} that are to fail")
