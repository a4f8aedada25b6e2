"""`python -m bench`: measures, prints tables, and writes results/*.json, docs/performance.md and docs/plots."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

from bench import report, shapes
from bench.child import ROOT
from bench.peers import run as peers
from bench.peers.build import build
from bench.peers.report import Result as Compared
from bench.server import Server

RESULTS = Path(__file__).parent / "results" / "latest.json"
COMPARED = RESULTS.with_name("peers.json")
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
SMOKE = replace(QUICK, rounds=3)


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
        "processor": _processor(),
        "load": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    """The model of the processor, without what its maker puts in parentheses."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0].replace("(R)", "").replace("(TM)", "") if names else platform.machine()


@contextmanager
def _server() -> Generator[Server]:
    """A server of the run's own, which is removed again."""
    home = Path(tempfile.mkdtemp(prefix="bench-", dir=_scratch()))
    try:
        server = Server(home)
        try:
            yield server
        finally:
            server.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def measure(server: Server, plan: Plan, only: set[str]) -> report.Result:
    """Measure piecework beside the bare loop."""
    here = machine(server)
    run = Run(server, plan)
    run.measure(only)
    return {"machine": here, "plan": asdict(plan), "figures": run.figures}


def compare(server: Server, plan: peers.Plan, only: list[str], shape: str | None) -> Compared:
    """Measure the contestants in turns."""
    here = machine(server)
    comparison = peers.Comparison(server, plan, only, shape)
    comparison.measure()
    here["load_after"] = round(os.getloadavg()[0], 1)
    return {
        "machine": here, "plan": asdict(plan), "outcomes": comparison.outcomes, "missing": comparison.missing
    }  # fmt: skip


def _scratch() -> Path:
    """A folder on the disk of the checkout: /tmp may be memory, where a commit costs nothing."""
    folder = ROOT / ".cache"
    folder.mkdir(exist_ok=True)
    return folder


def smoke() -> None:
    """Measure briefly, and end with code 1 if piecework is too slow beside the bare loop."""
    with _server() as server:
        figures = measure(server, SMOKE, {"drain", "steady", "spawning"})["figures"]
    slow = False
    for name in ("drain", "steady"):
        found = report.ratios(figures[f"{name} bare"], figures[f"{name} ours"], "jobs_per_s")
        slow = slow or statistics.median(found) < report.GOAL
        print(f"{name}: {report.spread(found, '.2f')} of the bare loop; at least {report.GOAL} is wanted")
    for key, what in (("single_ratio", "one awaited spawn"), ("ten_ratio", "ten concurrent spawners")):
        found = [float(value) for each in figures["spawning"] if (value := each[key]) is not None]
        print(f"{what}: {report.spread(found, '.2f')} times a one-row INSERT")
    sys.exit("piecework is slower beside the bare loop than it may be" if slow else 0)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure piecework.")
    parser.add_argument(
        "what", nargs="?", default="all", choices=["all", "own", "compare", "peers", "smoke", "render"],
        help="own: beside the bare loop; compare: beside the peers; all: both, in one run; peers: only build their "
        "environments; smoke: briefly, with a verdict; render: write the document anew from the files of results/",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="one small round; writes no files")
    parser.add_argument("--rounds", type=int, help="how many rounds")
    parser.add_argument("--only", action="append", choices=MEASUREMENTS, help="measure only this; writes no files")
    parser.add_argument("--contestant", action="append", default=[], help="compare only this one; writes no files")
    parser.add_argument("--shape", help="compare only in this one, as `drain 1` or `steady`; writes no files")
    parser.add_argument("--scale", type=float, default=1.0, help="times the jobs of a comparison's drains")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file, and nothing else")
    return parser.parse_args()


def _measure_own(server: Server, given: argparse.Namespace) -> None:
    plan = QUICK if given.quick else Plan()
    plan = replace(plan, rounds=given.rounds or plan.rounds)
    result = measure(server, plan, set(given.only or MEASUREMENTS))
    print(f"\n{report.render(result)}\n")
    _keep(result, RESULTS, given)


def _compare(server: Server, given: argparse.Namespace) -> None:
    plan = peers.Plan(rounds=1, scale=0.2, idle_seconds=5) if given.quick else peers.Plan(scale=given.scale)
    result = compare(server, replace(plan, rounds=given.rounds or plan.rounds), given.contestant, given.shape)
    _keep(result, COMPARED, given)


def _partial(given: argparse.Namespace) -> bool:
    """Whether it is less than a whole run, which is not kept."""
    return bool(given.quick or given.only or given.contestant or given.shape)


def _keep(result: report.Result | Compared, path: Path, given: argparse.Namespace) -> None:
    if given.out is not None or not _partial(given):
        (given.out or path).write_text(json.dumps(result, indent=1) + "\n")


def render() -> None:
    """Write the document and the plots from the files of results/."""
    from bench.peers import document

    own: report.Result = json.loads(RESULTS.read_text())
    text = report.put_between_markers(DOCUMENT.read_text(), report.render(own))
    if COMPARED.exists():
        text = document.add(text, json.loads(COMPARED.read_text()), own)
    DOCUMENT.write_text(text)
    print(f"written: {DOCUMENT.relative_to(ROOT)}")


def main() -> None:
    """Run the command line."""
    given = arguments()
    if not sys.platform.startswith("linux"):
        sys.exit("the bench reads the CPU times of the server from /proc: it runs on Linux only")
    match given.what:
        case "peers":
            sys.exit(1 if build() else 0)
        case "smoke":
            smoke()
        case "render":
            render()
        case what:
            with _server() as server:
                if what in ("all", "own"):
                    _measure_own(server, given)
                if what in ("all", "compare"):
                    _compare(server, given)
            if given.out is None and not _partial(given):
                render()


if __name__ == "__main__":
    main()
