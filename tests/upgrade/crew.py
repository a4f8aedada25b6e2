"""The processes of a run, of both releases, and the book in which they enter what they do."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg.conninfo import make_conninfo
from upgrade.releases import HERE, Release

from piecework.testing.history import Cut, Entry, this_process

DEADLINE = 120.0


@dataclass(eq=False)
class Process:
    """A worker or a spawner of a release."""

    release: Release
    role: str
    started: subprocess.Popen[bytes]
    log: Path

    @property
    def name(self) -> str:
        return this_process(self.started.pid)


@dataclass
class Crew:
    """Starts processes, and ends those that are left."""

    folder: Path
    processes: list[Process] = field(default_factory=list)
    cuts: list[tuple[str, float]] = field(default_factory=list)
    """Which processes were gone when, by the clock `time.monotonic`."""

    @property
    def book(self) -> Path:
        return self.folder / "book"

    def start(self, release: Release, role: str, dsn: str) -> Process:
        """Start a process; its sessions bear the names of its release and its role."""
        log = self.folder / f"{len(self.processes)}-{role}.log"
        dsn = make_conninfo(dsn, application_name=f"{release.name} {role}")
        with log.open("wb") as output:
            started = subprocess.Popen(
                [release.python, HERE / "app.py", role, dsn, self.book],
                env=release.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        self.processes.append(Process(release, role, started, log))
        return self.processes[-1]

    def kill(self, process: Process) -> None:
        process.started.kill()
        process.started.wait(DEADLINE)
        self.cuts.append((process.name, time.monotonic()))

    def stop(self, *processes: Process) -> None:
        """Let processes end what they have begun."""
        for process in processes:
            process.started.send_signal(signal.SIGTERM)
        for process in processes:
            assert process.started.wait(DEADLINE) == 0, process.log.read_text()[-3000:]
            self.cuts.append((process.name, time.monotonic()))
            self.check_log(process)

    def check_log(self, process: Process) -> None:
        """See that it ran the package that it should, and met nothing that it did not expect."""
        text = process.log.read_text()
        assert f"of {process.release.package}" in text.splitlines()[0]
        assert "ERROR" not in text, text[-3000:]
        assert "Traceback" not in text, text[-3000:]

    def close(self) -> None:
        for process in self.processes:
            if process.started.poll() is None:
                process.started.kill()
                process.started.wait(DEADLINE)

    def lines(self, event: str, since: float = 0.0) -> Iterator[dict[str, Any]]:
        """What is in the book of an event, from a moment on; a line that a kill has cut short is left out."""
        text = self.book.read_bytes() if self.book.exists() else b""
        for line in text[: text.rfind(b"\n") + 1].splitlines():
            entry = json.loads(line)
            if entry["event"] == event and entry["at"] >= since:
                yield entry

    def runs_of(self, process: Process, since: float = 0.0) -> int:
        """How many runs of jobs a process, which has to be there, has begun."""
        assert process.started.poll() is None, process.log.read_text()[-3000:]
        return sum(line["process"] == process.name for line in self.lines("began", since))

    def entries(self, offset: float) -> dict[str, list[Entry]]:
        """The runs by job; moments by the clock of the rows."""
        found: defaultdict[str, list[Entry]] = defaultdict(list)
        for event in ("began", "ended"):
            for line in self.lines(event):
                found[line["job"]].append(
                    Entry(event, line["claim_no"], line["process"], line["at"] + offset, line["well"])  # type: ignore[arg-type]
                )
        return found

    def accepted(self, offset: float) -> dict[str, float]:
        """When the spawn of each job was answered."""
        return {job: line["at"] + offset for line in self.lines("accepted") for job in line["jobs"]}

    def gone(self, offset: float) -> list[Cut]:
        return [Cut(name, at + offset) for name, at in self.cuts]


def until(what: Callable[[], object], within: float = DEADLINE, every: float = 0.05) -> float:
    """Wait for a condition; returns how long that took, in seconds."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < within, f"not within {within} s: {what}"
        time.sleep(every)
    return time.monotonic() - began
