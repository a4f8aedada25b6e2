"""Runs the tests of failovers and writes what they measured to docs/reliability.md: `make failover`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from failover.figures import FIGURES_FILE, Figures  # noqa: E402

from piecework.cli.output import Column, print_table  # noqa: E402

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- failover: written by tools/failover.py -->", "<!-- failover: end -->"
COLUMNS = (
    "Failover", "PostgreSQL", "No writes, s", "First job after, s", "All workers, s", "Lost", "Run again", "Doubled",
    "Refused late", "Attempts spent",
)  # fmt: skip


def run(more: list[str]) -> tuple[int, list[Figures]]:
    """Run the tests in a process of its own; returns its exit code, and what was measured."""
    with tempfile.NamedTemporaryFile(prefix="piecework-failover-") as file:
        command = [sys.executable, "-m", "pytest", "-m", "failover", "-o", "faulthandler_timeout=0", "tests/failover"]
        done = subprocess.run([*command, *more], cwd=ROOT, env=os.environ | {FIGURES_FILE: file.name}, check=False)
        lines = Path(file.name).read_bytes().splitlines()
    return done.returncode, [msgspec.json.decode(line, type=Figures) for line in lines]


def cells(figures: Figures) -> list[str]:
    seconds = [figures.without_writes, figures.first_job, figures.all_workers]
    counts = [figures.lost, figures.repeated, figures.doubled, figures.refused, figures.spent]
    return [
        figures.case, figures.server, *(f"{each:.1f}" for each in seconds),
        *("–" if each is None else str(each) for each in counts),
    ]  # fmt: skip


def write(rows: list[list[str]]) -> None:
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    lines = ["| " + " | ".join(row) + " |" for row in (list(COLUMNS), *rows)]
    lines.insert(1, "|" + "---|" * len(COLUMNS))
    said = f"On {time.strftime('%Y-%m-%d')}, by `make failover`:"
    PAGE.write_text(before + "\n".join([BEGIN, "", said, "", *lines, "", END]) + rest.split(END)[1])


def main() -> None:
    more = sys.argv[1:]
    code, measured = run(more)
    rows = [cells(each) for each in measured]
    if rows:
        print_table([Column(name, right=at > 1, whole=at > 0) for at, name in enumerate(COLUMNS)], rows)
    if code == 0 and not more:
        write(rows)
    sys.exit(code)


if __name__ == "__main__":
    main()
