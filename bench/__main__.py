"""`python -m bench`: measures, prints tables, and writes results/*.json, docs/performance.md and docs/plots."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from bench import document, own, recovery, report, smoke
from bench.growth import report as growth_report
from bench.growth.run import Growth
from bench.growth.run import Plan as GrowthPlan
from bench.peers import run as peers
from bench.peers.build import build
from bench.peers.report import Result as Compared
from bench.place import DOCUMENT, RESULTS, machine, own_server, stamp, write
from bench.server import Server
from bench.stress import report as stress_report
from bench.stress.measure import OURS
from bench.stress.report import Result as Stressed
from bench.stress.rounds import Plan as StressPlan
from bench.stress.run import Stress
from bench.stress.shapes import SHAPES

PARTS = ("own", "compare", "stress", "growth", "recovery")


class Session:
    """One call of the bench: its command line, and the files that it may write."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.failed = False
        """Whether something of ours went wrong: a peer that fails is only named."""
        self._stamp = stamp()

    @property
    def whole(self) -> bool:
        """Whether it is a whole run: a part of one is not kept."""
        given = self.given
        return not (given.quick or given.only or given.contestant or given.shape or given.out)

    def keep(self, name: str, result: Mapping[str, object]) -> None:
        """Write the figures as far as they are known, with the run that they are from."""
        if self.whole or self.given.out is not None:
            write(self.given.out or RESULTS / f"{name}.json", {"run": self._stamp, **result})

    def measure(self, part: str) -> None:
        """Measure a part, on a server of its own; what stops it is printed, and the parts after it go on."""
        measures = {
            "own": self._own, "compare": self._compare, "stress": self._stress, "growth": self._growth,
            "recovery": self._recovery,
        }  # fmt: skip
        try:
            with own_server() as server:
                measures[part](server)
        except Exception:
            self.failed = True
            print(f"the part `{part}` was broken off:\n{traceback.format_exc()}", file=sys.stderr)

    def _own(self, server: Server) -> None:
        plan = own.QUICK if self.given.quick else own.Plan()
        plan = replace(plan, rounds=self.given.rounds or plan.rounds)
        only = set(self.given.only or own.MEASUREMENTS)
        result = own.Run(server, plan, only, lambda result: self.keep("latest", result)).measure()
        self.failed = self.failed or bool(result.get("failures"))
        print(f"\n{report.render(result)}\n")

    def _compare(self, server: Server) -> None:
        given = self.given
        plan = peers.Plan(rounds=1, scale=0.2, idle_seconds=5) if given.quick else peers.Plan(scale=given.scale)
        plan = replace(plan, rounds=given.rounds or plan.rounds)
        here = machine(server)

        def keep() -> None:
            here["load_after"] = round(os.getloadavg()[0], 1)
            result: Compared = {
                "machine": here, "plan": asdict(plan), "outcomes": comparison.outcomes, "missing": comparison.missing
            }  # fmt: skip
            self.keep("peers", result)

        comparison = peers.Comparison(server, plan, given.contestant, given.shape, keep)
        comparison.measure()
        ours = [name for name in peers.OWN if not given.contestant or name in given.contestant]
        self.failed = self.failed or any(
            name in comparison.missing or comparison.outcomes[name]["failures"] for name in ours
        )

    def _stress(self, server: Server) -> None:
        """It starts another server of its own if this one is gone."""
        given = self.given
        plan = StressPlan(rounds=1, scale=0.02) if given.quick else StressPlan(scale=given.scale)
        plan = replace(plan, rounds=given.rounds or plan.rounds, seconds=given.minutes * 60 or plan.seconds)
        here = machine(server)
        stress = Stress(own_server, plan, given.contestant)

        found: Stressed = {
            "machine": here, "plan": asdict(plan), "shapes": stress.shapes, "missing": stress.missing
        }  # fmt: skip

        def keep() -> None:
            here["load_after"] = round(os.getloadavg()[0], 1)
            self.keep("stress", found)
            if given.merge:
                stress_report.merge(found, RESULTS / "stress.json")

        stress.measure([shape for shape in SHAPES if given.shape in (None, shape.name)], keep)
        failed = (shape["outcomes"].get(OURS) for shape in stress.shapes.values())
        self.failed = self.failed or any(outcome and outcome["failure"] for outcome in failed)
        print(f"\n{stress_report.render(found)}\n")

    def _growth(self, server: Server) -> None:
        given = self.given
        plan = GrowthPlan(rounds=1, scale=0.05) if given.quick else GrowthPlan(scale=given.scale)
        plan = replace(plan, rounds=given.rounds or plan.rounds)
        shapes = [given.shape] if given.shape else []
        result = Growth(server, plan, lambda result: self.keep("growth", result)).measure(shapes)
        self.failed = self.failed or bool(result["failures"])
        print(f"\n{growth_report.render(result)}\n")

    def _recovery(self, server: Server) -> None:
        plan = recovery.Plan(rounds=1) if self.given.quick else recovery.Plan()
        plan = replace(plan, rounds=self.given.rounds or plan.rounds)
        result = recovery.Recovery(server, plan, lambda result: self.keep("recovery", result)).measure()
        self.failed = self.failed or bool(result["failures"])
        print(f"\n{recovery.render(result)}\n")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure piecework.")
    parser.add_argument(
        "what", nargs="?", default="all", choices=["all", *PARTS, "peers", "smoke", "render"],
        help="own: beside the bare loop; compare: beside the peers; stress: with something in the way; growth: over "
        "processes, backlog and keys; recovery: after a fault; all: each of them, in one run; peers: only build their "
        "environments; smoke: briefly, with a verdict; render: the document anew, from results/",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="one small round; writes no files")
    parser.add_argument("--rounds", type=int, help="how many rounds")
    parser.add_argument("--only", action="append", choices=own.MEASUREMENTS, help="measure only this; writes no files")
    parser.add_argument("--contestant", action="append", default=[], help="compare only this one; writes no files")
    parser.add_argument("--shape", help="only this one of compare, stress or growth; writes no files")
    parser.add_argument("--scale", type=float, default=1.0, help="times the jobs of compare, stress and growth")
    parser.add_argument("--minutes", type=float, default=0, help="how long the shape `paced` of stress is kept up")
    parser.add_argument("--merge", action="store_true", help="put the --shape of stress into results/stress.json")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file, and nothing else")
    return parser.parse_args()


def main() -> None:
    """Run the command line."""
    given = arguments()
    if not sys.platform.startswith("linux"):
        sys.exit("the bench reads the CPU times of the server from /proc: it runs on Linux only")
    match given.what:
        case "peers":
            sys.exit(1 if build() else 0)
        case "smoke":
            with own_server() as server:
                code = smoke.smoke(server)
            sys.exit(code)
        case "render":
            document.write(DOCUMENT)
        case what:
            session = Session(given)
            for part in PARTS if what == "all" else (what,):
                session.measure(part)
            if session.whole:
                document.write(DOCUMENT)
            sys.exit(1 if session.failed else 0)


if __name__ == "__main__":
    main()
