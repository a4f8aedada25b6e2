"""The jobs of the bench, as an application would write them. Workers are started on `piecework.cli.bench.work:jobs`."""

from __future__ import annotations

import os
import time
from array import array
from functools import cache
from pathlib import Path

from piecework.cli.bench import variables
from piecework.cli.bench.meter import Meter
from piecework.cli.bench.task import CALLERS
from piecework.jobs import Jobs

jobs = Jobs(schema=os.environ[variables.SCHEMA], migrate=False, max_connections=CALLERS)


@cache
def meter() -> Meter:
    """Return this process's meter."""
    return Meter(Path(os.environ[variables.FOLDER]), os.getpid())


@jobs.job("bench-noop")
async def noop(number: int, text: str) -> None:
    """Do nothing."""
    meter().hit()


@jobs.job("bench-stamp")
async def stamp(sent_ns: int) -> None:
    """Keep how long it took from just before the spawn, in another process of this machine, to here."""
    wait = (time.monotonic_ns() - sent_ns) / 1e9
    meter().hit()
    meter().keep(array("d", [wait]))
