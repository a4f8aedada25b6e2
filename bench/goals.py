"""The goals of the design, each held against the figures: reached, missed, or why it is not measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bench import recovery, report
from bench.growth.run import Result as Growth
from bench.peers.report import OURS, Column, ratios, values
from bench.peers.report import Result as Compared
from bench.report import Result as Own
from bench.report import aligned, spread
from bench.stress.shapes import SHAPES

DRAINS = (
    ("Procrastinate", 60), ("Chancy", 8), ("PgQueuer", 3), ("pg-boss", 2), ("Graphile Worker", 1.2),
    ("Graphile Worker, queue 2000", 1),
)  # fmt: skip
STEADIES = (("Graphile Worker, queue 2000", 1.5), ("Graphile Worker", 1.5), ("pg-boss", 2), ("PgQueuer", 2))
GRAPHILE = "Graphile Worker"
RELIABILITY = "[reliability](reliability.md)"


class Goal(NamedTuple):
    """A bound, and the figures that are held against it, one per round."""

    what: str
    at_least: bool
    bound: float
    found: Sequence[float]
    form: str = ",.2f"
    elsewhere: str = ""
    """Where it is held, or why it is not measured, if it is not by the bench."""

    @property
    def reached(self) -> bool | None:
        """Whether the median holds; None if there is nothing to hold it against."""
        if not self.found:
            return None
        median = statistics.median(self.found)
        return median >= self.bound if self.at_least else median <= self.bound

    def line(self) -> tuple[str, str, str, str]:
        """The row of the table."""
        goal = f"{'≥' if self.at_least else '≤'} {self.bound:,g}"
        if not self.found:
            return self.what, goal, self.elsewhere or "not measured", ""
        return self.what, goal, spread(self.found, self.form), "reached" if self.reached else "**missed**"


class Files(NamedTuple):
    """The files of figures, as far as they are there."""

    own: Own | None = None
    compared: Compared | None = None
    stress: Mapping[str, Any] | None = None
    growth: Growth | None = None
    recovery: recovery.Result | None = None


def goals(files: Files) -> Iterator[Goal]:
    """A goal for each row of the design's table, in its order."""
    for name, bound in DRAINS:
        yield Goal(f"drain, one process: times {name}", True, bound, _ratios(files, "drain 1", "jobs_per_s", name))
    for name, bound in STEADIES:
        yield Goal(f"steady state: times {name}", True, bound, _ratios(files, "steady", "jobs_per_s", name))
    yield from _beside_the_bare_loop(files)
    yield Goal("CPU of the worker, drain, µs per job", False, 20, _ours(files, "drain 1", "worker_cpu_us"), ".1f")
    yield Goal("CPU of the server, drain, µs per job", False, 12, _ours(files, "drain 1", "server_cpu_us"), ".1f")
    yield from _spawning(files)
    yield Goal("spawn → start, idle worker, median, ms", False, 2.5, _ours(files, "latency", "p50_ms"), ".1f")
    found = _ratios(files, "latency", "p50_ms", GRAPHILE)
    yield Goal(f"the same: times {GRAPHILE}", False, 0.8, found)
    yield Goal("the same, 99 %, ms", False, 15, _ours(files, "latency", "p99_ms"), ".1f")
    yield Goal("idle worker, transactions/s", False, 0.3, _ours(files, "idle", "transactions_per_s"))
    yield Goal("statements per job, drain", False, 0.02, _ours(files, "drain 1", "statements"), ".4f")
    yield Goal("WAL of claim and settle, bytes per job", False, 800, _ours(files, "drain 1", "wal_bytes"), ",.0f")
    whole = _ours(files, "whole life", "wal_bytes")
    yield Goal("WAL of its whole life, bytes per job", False, 1_250, whole, ",.0f")
    yield from _under_stress(files)
    for name, what, bound in (
        (recovery.KILLED, f"a worker killed with SIGKILL: its jobs have run again, s ({RELIABILITY})", 30),
        (recovery.CRASHED, f"PostgreSQL crashed: work resumes after it accepts writes, s ({RELIABILITY})", 5),
    ):
        found = recovery.seconds(files.recovery, name) if files.recovery else ()
        yield Goal(what, False, bound, found, ".1f")
    yield Goal("PostgreSQL failed over: the same, s", False, 5, (), elsewhere=f"elsewhere: {RELIABILITY}")


def _beside_the_bare_loop(files: Files) -> Iterator[Goal]:
    figures = files.own["figures"] if files.own else {}
    for name, what in (("drain", "drain"), ("steady", "steady state")):
        found = report.ratios(figures.get(f"{name} bare", ()), figures.get(f"{name} ours", ()), "jobs_per_s")
        yield Goal(f"{what}: times the bare loop", True, report.GOAL, found)


def _spawning(files: Files) -> Iterator[Goal]:
    rounds = files.own["figures"].get("spawning", ()) if files.own else ()

    def found(key: str) -> list[float]:
        return [value for figures in rounds if (value := figures.get(key)) is not None]

    yield Goal(
        "bulk spawn, one connection, typed, ids returned, jobs/s", True, 100_000, found("bulk_jobs_per_s"), ",.0f"
    )
    yield Goal("the same by COPY, jobs/s", True, 150_000, (), elsewhere="there is no COPY: jobs are spawned in parts")
    yield Goal("single awaited spawn: times a one-row INSERT", False, 1.3, found("single_ratio"))
    yield Goal("ten concurrent spawners: times ten inserters", False, 1.5, found("ten_ratio"))


def _under_stress(files: Files) -> Iterator[Goal]:
    """Those of the stress shapes, as these state them."""
    there = files.stress["shapes"] if files.stress else {}
    for shape in SHAPES:
        found = there.get(shape.name, {})
        title = found.get("title") or shape.title.format(*(f"{count:,}" for count in shape.counts))
        rounds = found.get("outcomes", {}).get(OURS, {}).get("figures", ())
        for goal in shape.goals:
            values = [value for figures in rounds if (value := figures.get(goal.key)) is not None]
            yield Goal(f"{title}: {goal.what or 'times the plain run'}", goal.at_least, goal.bound, values)
    yield Goal("the same: dashboard pages, ms", False, 200, (), elsewhere="there is no dashboard yet")


def _ratios(files: Files, shape: str, key: str, name: str) -> list[float]:
    """piecework ÷ another contestant, round by round."""
    there = files.compared and {OURS, name} <= set(files.compared["outcomes"])
    return ratios(files.compared, shape, key, name) if files.compared and there else []


def _ours(files: Files, shape: str, key: str) -> list[float]:
    outcome = files.compared["outcomes"].get(OURS) if files.compared else None
    return values(outcome, Column("", (shape,), key)) if outcome else []


def table(all: Sequence[Goal]) -> str:
    """The table."""
    return aligned(("", "goal", "measured", ""), [goal.line() for goal in all])
