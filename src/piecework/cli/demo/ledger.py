"""A record of every run of a job's body, kept outside of the database: what really ran, whatever the rows say.

A run is two lines: one when it starts, one when it ends. A run that was cut by SIGKILL has no second line.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias
from uuid import UUID

from piecework.base.ids import JobId
from piecework.cli.demo import variables
from piecework.work.current_job import CurrentJob

Outcome: TypeAlias = Literal["done", "failed"]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job's body. Times are nanoseconds of the machine's monotonic clock, which all processes share."""

    job_id: JobId
    claim_no: int
    pid: int
    start: int
    end: int | None = None
    outcome: Outcome | None = None


@contextmanager
def recorded(job: CurrentJob) -> Generator[None]:
    """Record that this job's body starts, and how it ends."""
    _append("start", job, "-")
    try:
        yield
    except BaseException:
        _append("end", job, "failed")
        raise
    _append("end", job, "done")


def _append(event: str, job: CurrentJob, outcome: str) -> None:
    line = f"{event} {job.id} {job.claim_no} {os.getpid()} {time.monotonic_ns()} {outcome}\n"
    # One write to a file that is open for appending: lines of several processes and threads never mix.
    os.write(_opened(os.environ[variables.LEDGER]), line.encode())


@cache
def _opened(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def read(path: Path) -> list[Run]:
    """Return the runs of a ledger in the order of their starts.

    Raises:
        ValueError: a line that no run writes; says which.
    """
    runs: list[Run] = []
    open_runs: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else (), 1):
        match line.split():
            case ["start", job_id, claim_no, pid, at, "-"]:
                open_runs[job_id, claim_no, pid] = len(runs)
                runs.append(Run(UUID(job_id), int(claim_no), int(pid), int(at)))
            case ["end", job_id, claim_no, pid, at, ("done" | "failed") as outcome] if (
                job_id, claim_no, pid
            ) in open_runs:  # fmt: skip
                at_run = open_runs.pop((job_id, claim_no, pid))
                runs[at_run] = replace(runs[at_run], end=int(at), outcome=outcome)
            case _:
                raise ValueError(f"line {number} of the ledger is no run's: {line!r}")
    return runs
