"""The goals of the design as ratios and figures of one run: goal, measured, reached or missed."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.peers.report import OURS, Column, Result, ratios, values
from bench.report import Result as OwnResult
from bench.report import Rounds, aligned, spread

DRAINS = (
    ("Procrastinate", 60), ("Chancy", 8), ("PgQueuer", 3), ("pg-boss", 2), ("Graphile Worker", 1.2),
    ("Graphile Worker, queue 2000", 1),
)  # fmt: skip
STEADIES = (("Graphile Worker, queue 2000", 1.5), ("Graphile Worker", 1.5), ("pg-boss", 2), ("PgQueuer", 2))


class Goal(NamedTuple):
    """A bound, and the figures that are held against it, one per round."""

    what: str
    at_least: bool
    bound: float
    found: Sequence[float]
    form: str = ",.2f"

    def line(self) -> tuple[str, str, str, str]:
        """The row of the table."""
        goal = f"{'≥' if self.at_least else '≤'} {self.bound:,g}"
        if not self.found:
            return self.what, goal, "not measured", ""
        median = statistics.median(self.found)
        reached = median >= self.bound if self.at_least else median <= self.bound
        return self.what, goal, spread(self.found, self.form), "reached" if reached else "**missed**"


def goals(result: Result, own: OwnResult | None) -> Iterator[Goal]:
    """All goals that this bench can measure; `own` is the run against the bare loop."""
    outcomes = result["outcomes"]
    for name, bound in DRAINS:
        found = ratios(result, "drain 1", "jobs_per_s", name) if name in outcomes else []
        yield Goal(f"drain, one process: times {name}", True, bound, found)
    for name, bound in STEADIES:
        found = ratios(result, "steady", "jobs_per_s", name) if name in outcomes else []
        yield Goal(f"steady state: times {name}", True, bound, found)
    yield from _figures(result)
    graphile = "Graphile Worker"
    found = ratios(result, "latency", "p50_ms", graphile) if graphile in outcomes else []
    yield Goal(f"spawn → start, idle worker, median: times {graphile}", False, 0.8, found)
    if own is not None:
        spawning = own["figures"].get("spawning", ())
        yield Goal("single awaited spawn: times a one-row INSERT", False, 1.3, _own(spawning, "single_ratio"))
        yield Goal("ten concurrent spawners: times ten inserters", False, 1.5, _own(spawning, "ten_ratio"))
        bulk = _own(spawning, "bulk_jobs_per_s")
        yield Goal("bulk spawn, one connection, typed, ids returned, jobs/s", True, 100_000, bulk, ",.0f")


def _figures(result: Result) -> Iterator[Goal]:
    """Those that are piecework's alone."""
    ours = result["outcomes"][OURS]

    def found(shape: str, key: str) -> list[float]:
        return values(ours, Column("", (shape,), key))

    yield Goal("CPU of the worker, drain, µs per job", False, 20, found("drain 1", "worker_cpu_us"), ".1f")
    yield Goal("CPU of the server, drain, µs per job", False, 12, found("drain 1", "server_cpu_us"), ".1f")
    yield Goal("spawn → start, idle worker, median, ms", False, 2.5, found("latency", "p50_ms"), ".1f")
    yield Goal("the same, 99 %", False, 15, found("latency", "p99_ms"), ".1f")
    yield Goal("idle worker, transactions/s", False, 0.3, found("idle", "transactions_per_s"))
    yield Goal("statements per job, drain", False, 0.02, found("drain 1", "statements"), ".4f")
    yield Goal("WAL of claim and settle, bytes per job", False, 800, found("drain 1", "wal_bytes"), ",.0f")
    yield Goal("WAL of its whole life, bytes per job", False, 1_250, found("whole life", "wal_bytes"), ",.0f")


def table(result: Result, own: OwnResult | None) -> str:
    """The table."""
    return aligned(("", "goal", "measured", ""), [goal.line() for goal in goals(result, own)])


def _own(rounds: Rounds, key: str) -> list[float]:
    return [value for figures in rounds if (value := figures.get(key)) is not None]
