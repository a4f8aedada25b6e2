"""Runs `piecework chaos` once for each seed, and writes what came of it to docs/reliability.md.

`make chaos SEEDS="1 2 3" MINUTES=10`, and with `ARGS="--at-once 3"` three seeds beside each other.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from piecework.cli.chaos.report import markdown, print_report
from piecework.cli.chaos.verdict import ChaosReport

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- chaos: written by tools/chaos.py -->", "<!-- chaos: end -->"


def run(seed: int, seconds: float, more: list[str]) -> ChaosReport:
    """Do one run in a process of its own; what it says goes on to stderr."""
    command = [sys.executable, "-P", "-m", "piecework", "chaos", "--yes", "--json"]
    done = subprocess.run(
        [*command, "--seconds", str(seconds), "--seed", str(seed), *more], stdout=subprocess.PIPE, check=False
    )
    if not done.stdout:
        sys.exit(f"seed {seed}: the run ended with {done.returncode} before its end")
    return msgspec.json.decode(done.stdout, type=ChaosReport)


def write(reports: list[ChaosReport]) -> None:
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    seeds, minutes = " ".join(str(report.seed) for report in reports), reports[0].seconds / 60
    again = [f"On {time.strftime('%Y-%m-%d')}, by `make chaos SEEDS=\"{seeds}\" MINUTES={minutes:g}`:", ""]
    PAGE.write_text(before + "\n".join([BEGIN, "", *again, *markdown(reports), "", END]) + rest.split(END)[1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--at-once", type=int, default=1)
    told, more = parser.parse_known_args()
    seeds = [int(seed) for seed in told.seeds.replace(",", " ").split()] or [random.randrange(10**6)]
    reports: list[ChaosReport] = []
    with ThreadPoolExecutor(told.at_once) as runs:
        for report in runs.map(lambda seed: run(seed, told.minutes * 60, more), seeds):
            reports.append(report)
            print_report(report)
            write(reports)
    if any(report.status != "ok" for report in reports):
        sys.exit("What must not be has happened: see above, each seed draws the same faults again")


if __name__ == "__main__":
    main()
