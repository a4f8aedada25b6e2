"""Where and when a run is made: the server of its own, the machine, and the files of its figures."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.child import ROOT
from bench.server import Server

RESULTS = Path(__file__).parent / "results"
DOCUMENT = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "plots"


def machine(server: Server) -> dict[str, object]:
    """Where it was measured, as far as it says something about the figures."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "piecework": version("piecework"),
        "postgresql": server.version,
        "python": platform.python_version(),
        "psycopg": version("psycopg"),
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "load": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    """The model of the processor, without what its maker puts in parentheses."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0].replace("(R)", "").replace("(TM)", "") if names else platform.machine()


@contextmanager
def own_server() -> Generator[Server]:
    """A server of the run's own, which is removed again. It is on the disk of the checkout: /tmp may be memory, where a
    commit costs nothing."""
    folder = ROOT / ".cache"
    folder.mkdir(exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="bench-", dir=folder))
    try:
        server = Server(home)
        try:
            yield server
        finally:
            server.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def write(path: Path, result: Mapping[str, object]) -> None:
    """Write a file of figures, so that a reader finds the old ones or the new ones."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(result, indent=1) + "\n")
    fresh.replace(path)


def stamp() -> str:
    """What tells the files of one run from those of another: when it began."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
