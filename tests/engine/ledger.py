"""What jobs really did, written by the jobs themselves: a file outside of the database, the oracle of the tests."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from piecework import CurrentJob
from piecework.work.current_job import claimed_of


@dataclass(frozen=True)
class Run:
    """One run of a job's body. `began` and `ended` are places in the ledger; None: its process was lost before."""

    job: str
    claim_no: int
    pid: int
    began: int
    ended: int | None


class Ledger:
    """Lines appended by any number of processes: what was written first stands first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    def close(self) -> None:
        os.close(self._file)

    @contextmanager
    def run_of(self, job: CurrentJob) -> Iterator[None]:
        """Enter the begin of a run, and its end, whatever it is."""
        who = f"{job.id} {claimed_of(job).claim_no} {os.getpid()}"
        os.write(self._file, f"{who} begins\n".encode())
        try:
            yield
        finally:
            os.write(self._file, f"{who} ends\n".encode())

    def note(self, word: str) -> None:
        """Enter a word that says what has happened."""
        os.write(self._file, f"note: {word}\n".encode())

    def notes(self) -> list[str]:
        return [line.removeprefix("note: ") for line in self._lines() if line.startswith("note: ")]

    def _lines(self) -> list[str]:
        text = self.path.read_text()
        return text[: text.rfind("\n") + 1].splitlines()

    def runs(self) -> list[Run]:
        """All runs so far, in the order in which they began."""
        runs: dict[tuple[str, str, str], Run] = {}
        for place, line in enumerate(self._lines()):
            if line.startswith("note: "):
                continue
            job, claim_no, pid, what = line.split()
            key = (job, claim_no, pid)
            if what == "begins":
                assert key not in runs, f"claim {claim_no} of job {job} ran twice"
                runs[key] = Run(job, int(claim_no), int(pid), place, None)
            else:
                begun = runs[key]
                runs[key] = Run(begun.job, begun.claim_no, begun.pid, begun.began, place)
        return list(runs.values())

    def runs_by_job(self) -> dict[str, list[Run]]:
        by_job: defaultdict[str, list[Run]] = defaultdict(list)
        for run in self.runs():
            by_job[run.job].append(run)
        return dict(by_job)

    def undisturbed_overlaps(self) -> list[tuple[Run, Run]]:
        """Pairs of runs of one job that ran at the same time, less those whose earlier run was cut short, by the notes
        `killed PID` and `exited PID` (before the later one began) and `stopped PID` (it stood still)."""
        cuts: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
        for place, line in enumerate(self._lines()):
            if line.startswith(("note: killed ", "note: stopped ", "note: exited ")):
                _, what, pid = line.split()
                cuts[int(pid)].append((place, what))

        def cut(earlier: Run, later: Run) -> bool:
            return any(
                earlier.began < place and (earlier.ended is None or place < earlier.ended)
                and (what == "stopped" or place < later.began)
                for place, what in cuts[earlier.pid]
            )  # fmt: skip

        return [(earlier, later) for earlier, later in self.overlaps() if not cut(earlier, later)]

    def overlaps(self, lost: frozenset[int] = frozenset()) -> list[tuple[Run, Run]]:
        """Pairs of runs of one job that ran at the same time, less those whose earlier run was in a process that is
        `lost`: it was killed, or stood still for so long that it was given up for dead."""
        found: list[tuple[Run, Run]] = []
        for runs in self.runs_by_job().values():
            for earlier, later in pairwise(runs):
                over = earlier.ended is not None and earlier.ended < later.began
                if not over and earlier.pid not in lost:
                    found.append((earlier, later))
        return found
