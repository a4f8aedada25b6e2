"""The file in which workers count, as the runner reads it; drivers/harness.py says how it is laid out."""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

SLOTS, SAMPLES, HEADER = 8, 1 << 18, 8
MEMORY = Path("/dev/shm")


class Slot(NamedTuple):
    """What one worker has counted."""

    count: int
    first: float
    """Monotonic clock at its first execution, in seconds."""
    last: float
    cpu: float
    """Seconds of CPU that the process had used by then."""
    waits: list[float]
    """Seconds from the spawn of a stamped job to its start."""


class Tallies:
    """One file for all measurements of a run; each worker process has a slot."""

    def __init__(self) -> None:
        folder = MEMORY if MEMORY.is_dir() else None
        handle, name = tempfile.mkstemp(prefix="bench-tally-", dir=folder)
        self.path = Path(name)
        os.truncate(handle, SLOTS * (HEADER + SAMPLES) * 8)
        self._map = mmap.mmap(handle, 0)
        self._words = memoryview(self._map).cast("Q")
        os.close(handle)

    def close(self) -> None:
        """Remove the file."""
        self._words.release()
        self._map.close()
        self.path.unlink()

    def clear(self) -> None:
        """Begin a measurement."""
        for slot in range(SLOTS):
            start = slot * (HEADER + SAMPLES)
            self._words[start : start + HEADER] = memoryview(bytes(HEADER * 8)).cast("Q")

    def count(self) -> int:
        """Executions so far, of all workers."""
        return sum(self._words[slot * (HEADER + SAMPLES)] for slot in range(SLOTS))

    def slots(self) -> list[Slot]:
        """What the workers that ran something have counted."""
        return [each for each in map(self._slot, range(SLOTS)) if each.count]

    def waits(self, known: int) -> tuple[int, list[float]]:
        """How many waits the first worker has noted, and those after the first `known` that are still held."""
        noted = self._words[4]
        fresh = range(max(known, noted - SAMPLES), noted)
        return noted, [self._words[HEADER + number % SAMPLES] / 1e9 for number in fresh]

    def _slot(self, number: int) -> Slot:
        start = number * (HEADER + SAMPLES)
        count, first, last, cpu, waits = self._words[start : start + 5]
        begin = start + HEADER
        kept = self._words[begin : begin + min(waits, SAMPLES)]
        return Slot(count, first / 1e9, last / 1e9, cpu / 1e9, [wait / 1e9 for wait in kept])
