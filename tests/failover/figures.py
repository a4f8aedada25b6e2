"""What was measured, for `make failover`: entered into the file that FIGURES_FILE names, if it does."""

from __future__ import annotations

import os

import msgspec

FIGURES_FILE = "PIECEWORK_FAILOVER_FIGURES"


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one change of primaries came to. Seconds; None: counted with the change after it."""

    case: str
    server: str
    without_writes: float
    """From the last write that the old primary took to the first one of the new."""
    first_job: float
    """From there to when a job that was spawned since began."""
    all_workers: float
    """The same, to when one had begun in each of the workers."""
    lost: int | None
    """Jobs whose spawn was answered and that are nowhere."""
    repeated: int | None
    """Jobs that had returned and ran again."""
    doubled: int | None
    """Ends, claims and effects that are there twice."""
    refused: int | None
    """Ends that changed nothing, since their claim was another's or unknown."""
    spent: int | None
    """Attempts that failed with their transaction."""

    def enter(self) -> None:
        """Add them to the file, a line of JSON."""
        if path := os.environ.get(FIGURES_FILE):
            with open(path, "ab") as file:
                file.write(msgspec.json.encode(self) + b"\n")
