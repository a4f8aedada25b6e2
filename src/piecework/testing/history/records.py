"""What is known of each job after a run: the rows of the database, and what the jobs wrote themselves. Plain values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import msgspec

Status: TypeAlias = Literal["live", "completed", "errored", "cancelled"]
Move: TypeAlias = Literal["retry", "reschedule", "fail", "cancel", "release", "rescue"]
Event: TypeAlias = Literal["began", "ended", "effect"]
"""What a job enters into a ledger: the begin and the end of a run, and an effect in the transaction that ends it."""


class JobRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row of `jobs` (status `live`) or of `finished_jobs`. All moments are seconds, of one clock."""

    status: Status
    job_type: str
    queue: str
    priority: int
    run_at: float
    created: float
    """When it was spawned: its commit, or a moment before it."""
    claim_no: int
    worker: str | None = None
    """Who holds it, or has ended it; None: nobody."""
    started: float | None = None
    """When the run began that ended it; of a live one when it was claimed."""
    ended: float | None = None
    attempt: int = 1
    failures: int = 0
    crashes: int = 0
    concurrency_key: str | None = None
    concurrency_limit: int | None = None
    key: str | None = None


class Attempt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row of `attempts`: a claim that ended otherwise than in completion."""

    claim_no: int
    worker: str
    attempt: int
    move: Move
    started: float | None
    """None: it never ran."""
    ended: float


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a run of a job has entered into a ledger."""

    event: Event
    claim_no: int
    process: str
    """Which process wrote it; processes are told apart by it, and no more."""
    at: float
    well: bool = True
    """Of an end: whether the run returned."""


class JobHistory(msgspec.Struct, frozen=True, array_like=True):
    """All that is known of one job."""

    id: str
    rows: Sequence[JobRow] = ()
    attempts: Sequence[Attempt] = ()
    entries: Sequence[Entry] = ()


class Run(msgspec.Struct, frozen=True, gc=False):
    """One run of a job's body, as the ledger has it."""

    claim_no: int
    process: str
    began: float
    ended: float | None
    """None: nobody wrote it."""
    well: bool


def runs_of(entries: Iterable[Entry]) -> list[Run]:
    """Return the runs of one job in the order of their begins."""
    runs: list[Run] = []
    open_runs: dict[tuple[int, str], int] = {}
    for entry in sorted(entries, key=lambda entry: entry.at):
        whose = entry.claim_no, entry.process
        if entry.event == "began":
            open_runs[whose] = len(runs)
            runs.append(Run(*whose, entry.at, None, well=False))
        elif entry.event == "ended" and whose in open_runs:
            place = open_runs.pop(whose)
            runs[place] = Run(*whose, runs[place].began, entry.at, entry.well)
    return runs
