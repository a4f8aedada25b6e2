"""Clocks that are off, of processes that libfaketime is loaded into."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path

HOUR = 3600
LOOKED_AT_EVERY = 2.0
"""A process looks so many seconds later at the latest how far its clock is off."""
_FOLDERS = ("/usr/lib/*/faketime", "/usr/local/lib/faketime")


def library(name: str = "libfaketimeMT.so.1") -> str | None:
    """Return the library that sets a process's clock; None: there is none here.

    Args:
        name: the other one, `libfaketime.so.1`, is for processes of one thread: it takes no lock, in which a signal's
            handler that asks for the time could get stuck.
    """
    return next((found for folder in _FOLDERS for found in glob.glob(f"{folder}/{name}")), None)


def turned_by(clock: Path, name: str = "libfaketimeMT.so.1") -> Mapping[str, str]:
    """Return the environment of a process whose clock is off as this file says; its monotonic clock stays as it is."""
    found = library(name)
    return {} if found is None else {
        "LD_PRELOAD": found, "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
    }  # fmt: skip


def turn(clock: Path, seconds: int) -> None:
    """Let the clock of the processes that look at this file be off by so much."""
    fresh = clock.with_suffix(".new")
    fresh.write_text(f"{seconds:+d}\n")
    fresh.chmod(0o644)  # whoever looks at it may be another user
    fresh.replace(clock)
