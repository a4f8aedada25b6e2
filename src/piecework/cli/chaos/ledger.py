"""The ledger of runs: a file, since the database is what breaks. Each line was written in one piece by one process."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from piecework.cli.chaos import variables
from piecework.testing.history import Entry, this_process
from piecework.work.batch import BatchItem
from piecework.work.current_job import CurrentJob

_Line: TypeAlias = tuple[Literal["began", "ended", "accepted"], float, str, bool, int, Sequence[str]]
"""Event, monotonic clock, process, whether the run returned, claim number, jobs."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode


@contextmanager
def recorded(*jobs: CurrentJob | BatchItem[Any]) -> Generator[None]:
    """Enter the begin of a run of these jobs, and its end, whatever it is."""
    well = False
    for job in jobs:
        _append(("began", time.monotonic(), this_process(), True, job.claim_no, [str(job.id)]))
    try:
        yield
        well = True
    finally:
        for job in jobs:
            _append(("ended", time.monotonic(), this_process(), well, job.claim_no, [str(job.id)]))


def accepted(jobs: Sequence[str]) -> None:
    """Enter that the spawn of these jobs was answered."""
    _append(("accepted", time.monotonic(), this_process(), True, 0, jobs))


def _append(line: _Line) -> None:
    # One write to a file that is open for appending: lines of several processes and threads never mix.
    os.write(_opened(os.environ[variables.LEDGER]), _encode(line) + b"\n")


@cache
def _opened(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


@dataclass(frozen=True, slots=True)
class Book:
    """What a ledger says; moments by the clock that was asked for."""

    entries: dict[str, list[Entry]] = field(default_factory=lambda: defaultdict[str, list[Entry]](list))
    """Of the runs, by job."""
    accepted: dict[str, float] = field(default_factory=dict[str, float])
    """When the spawn of each job was answered."""
    begins: list[float] = field(default_factory=list[float])
    """When runs began, in their order."""


def read(path: Path, offset: float) -> Book:
    """Return what the ledger says.

    Args:
        path: the file; a last line without an end was cut short by a kill, and is left out.
        offset: added to the machine's monotonic clock, so that moments can be compared with those of the rows.
    """
    book = Book()
    text = path.read_bytes() if path.exists() else b""
    for line in text[: text.rfind(b"\n") + 1].splitlines():
        event, at, process, well, claim_no, jobs = _decode(line)
        if event == "accepted":
            book.accepted.update(dict.fromkeys(jobs, at + offset))
            continue
        book.entries[jobs[0]].append(Entry(event, claim_no, process, at + offset, well))
        if event == "began":
            book.begins.append(at + offset)
    book.begins.sort()
    return book
