"""`python -m bench`: measures, prints tables, and writes results/latest.json and docs/performance.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

from bench import report, shapes
from bench.child import ROOT
from bench.server import Server

RESULTS = Path(__file__).parent / "results" / "latest.json"
DOCUMENT = ROOT / "docs" / "performance.md"
MEASUREMENTS = ("drain", "steady", "latency", "spawning", "idle")
DRAIN_LIMIT = 120  # seconds


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured. The default takes about five minutes on two cores."""

    rounds: int = 3
    drain_jobs: int = 50_000
    steady_jobs: int = 200_000
    steady_limit: int = 30
    """Seconds after which a run of the steady state is cut off."""
    latency_jobs: int = 200
    single_spawns: int = 1_000
    bulk_jobs: int = 50_000
    idle_seconds: int = 20


QUICK = Plan(
    rounds=1, drain_jobs=20_000, steady_jobs=50_000, steady_limit=10, latency_jobs=100, single_spawns=400,
    bulk_jobs=20_000, idle_seconds=6,
)  # fmt: skip


class Run:
    """One run of the bench: a server, and the figures so far."""

    def __init__(self, server: Server, plan: Plan) -> None:
        self.figures: dict[str, list[shapes.Figures]] = {}
        self._server = server
        self._plan = plan
        self._start = time.monotonic()

    def measure(self, only: set[str]) -> None:
        """Go through all rounds, the two sides of a comparison next to each other, and print as it goes."""
        server, plan = self._server, self._plan
        for turn in range(plan.rounds):
            print(f"round {turn + 1} of {plan.rounds}")
            for system in ("bare", "ours") if "drain" in only else ():
                self._add(f"drain {system}", partial(shapes.drain, server, system, plan.drain_jobs, DRAIN_LIMIT))
            for system in ("bare", "ours") if "steady" in only else ():
                self._add(f"steady {system}",
                          partial(shapes.steady, server, system, plan.steady_jobs, plan.steady_limit))  # fmt: skip
            if "latency" in only:
                self._add("latency", lambda: shapes.latency(server, plan.latency_jobs))
            if "spawning" in only:
                self._add("spawning", lambda: shapes.spawning(server, plan.single_spawns, plan.bulk_jobs))
        if "idle" in only:
            self._add("idle", lambda: shapes.idle(server, plan.idle_seconds))

    def _add(self, name: str, measure: Callable[[], shapes.Figures]) -> None:
        figures = measure()
        self.figures.setdefault(name, []).append(figures)
        shown = ", ".join(
            f"{key} {value:,.0f}" if value >= 1000 else f"{key} {value:.3g}"
            for key, value in list(figures.items())[:6]
            if value is not None
        )
        print(f"  {time.monotonic() - self._start:5.0f} s  {name:12}  {shown}", flush=True)


def machine(server: Server) -> dict[str, object]:
    """Where it was measured, as far as it says something about the figures."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "piecework": version("piecework"),
        "postgresql": server.version,
        "python": platform.python_version(),
        "psycopg": version("psycopg"),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
    }


def measure(plan: Plan, only: set[str]) -> report.Result:
    """Measure on a server of the run's own, which is removed again."""
    home = Path(tempfile.mkdtemp(prefix="bench-", dir=_scratch()))
    try:
        server = Server(home)
        try:
            here = machine(server)
            run = Run(server, plan)
            run.measure(only)
        finally:
            server.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return {"machine": here, "plan": asdict(plan), "figures": run.figures}


def _scratch() -> Path:
    """A folder on the disk of the checkout: /tmp may be memory, where a commit costs nothing."""
    folder = ROOT / ".cache"
    folder.mkdir(exist_ok=True)
    return folder


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure piecework beside a bare loop.")
    parser.add_argument("--quick", action="store_true", help="one small round in about a minute; writes no files")
    parser.add_argument("--rounds", type=int, help="how many rounds")
    parser.add_argument("--only", action="append", choices=MEASUREMENTS, help="measure only this; writes no files")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file, and nothing else")
    parser.add_argument("--render", action="store_true", help="write the document anew from results/latest.json")
    return parser.parse_args()


def main() -> None:
    """Run the command line."""
    given = arguments()
    if not sys.platform.startswith("linux"):
        sys.exit("the bench reads the CPU times of the server from /proc: it runs on Linux only")
    if given.render:
        result: report.Result = json.loads(RESULTS.read_text())
    else:
        plan = QUICK if given.quick else Plan()
        result = measure(replace(plan, rounds=given.rounds or plan.rounds), set(given.only or MEASUREMENTS))
    text = report.render(result)
    print(f"\n{text}")
    if given.out is not None:
        given.out.write_text(json.dumps(result, indent=1) + "\n")
    elif given.render or not (given.quick or given.only):
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
        DOCUMENT.write_text(report.put_between_markers(DOCUMENT.read_text(), text))
        print(f"\nwritten: {RESULTS.relative_to(ROOT)}, {DOCUMENT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
