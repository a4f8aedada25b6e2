"""What a process of the bench counts, where the bench can read it at any time: a small file that both have mapped."""

from __future__ import annotations

import mmap
import resource
import time
from array import array
from dataclasses import dataclass
from pathlib import Path

_SLOTS = 6
_COUNT, _BEFORE, _FIRST, _FIRST_CPU, _LAST, _LAST_CPU = range(_SLOTS)
_STAMP_EVERY = 16
"""Looking at the clocks costs more than counting."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a meter stands."""

    count: int
    before: int
    """Of these, what was there before the time began."""
    seconds: float
    """From the first to the last thing that was counted, give or take a few."""
    cpu: float
    """Seconds of CPU that the process used in that time, with all its threads."""

    @property
    def rate(self) -> float:
        """Things per second."""
        return (self.count - self.before) / self.seconds if self.seconds > 0 else 0.0

    @property
    def share(self) -> float:
        """How much of one core it used."""
        return self.cpu / self.seconds if self.seconds > 0 else 0.0


class Meter:
    """A process's own. Used in one thread."""

    def __init__(self, folder: Path, pid: int) -> None:
        path = _path(folder, pid)
        path.write_bytes(bytes(_SLOTS * 8))
        with path.open("r+b") as file:
            # The mapping outlives the file object; both end with the process.
            self._slots = memoryview(mmap.mmap(file.fileno(), _SLOTS * 8)).cast("d")
        self._waits = _waits_path(folder, pid)

    def hit(self, count: int = 1) -> None:
        """Count something that happened."""
        slots = self._slots
        if slots[_COUNT] % _STAMP_EVERY == 0 or count > 1:
            self.stamp()
        slots[_COUNT] += count

    def warm_up(self, count: int) -> None:
        """Count what is not to be timed; before everything else."""
        self._slots[_COUNT] += count

    def stamp(self) -> None:
        """Note how time and CPU stand."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        slots, cpu = self._slots, usage.ru_utime + usage.ru_stime
        slots[_LAST], slots[_LAST_CPU] = time.monotonic(), cpu
        if not slots[_FIRST]:
            slots[_BEFORE], slots[_FIRST], slots[_FIRST_CPU] = slots[_COUNT], slots[_LAST], cpu

    def keep(self, waits: array[float]) -> None:
        """Add seconds that something took."""
        with self._waits.open("ab") as file:
            waits.tofile(file)


def read(folder: Path, pid: int) -> Reading:
    """Read the meter of a process; nothing has been counted where it has none yet."""
    try:
        content = _path(folder, pid).read_bytes()
    except FileNotFoundError:
        content = b""
    slots = array("d", content or bytes(_SLOTS * 8))
    return Reading(
        int(slots[_COUNT]), int(slots[_BEFORE]), slots[_LAST] - slots[_FIRST], slots[_LAST_CPU] - slots[_FIRST_CPU]
    )


def waits(folder: Path, pid: int) -> list[float]:
    """Return the seconds that a process has kept."""
    path = _waits_path(folder, pid)
    return array("d", path.read_bytes()).tolist() if path.exists() else []


def _path(folder: Path, pid: int) -> Path:
    return folder / f"{pid}.meter"


def _waits_path(folder: Path, pid: int) -> Path:
    return folder / f"{pid}.waits"
