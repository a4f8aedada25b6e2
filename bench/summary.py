"""The head of docs/performance.md: what the figures say, in a few sentences made of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from bench.goals import Files, Goal
from bench.growth.report import ratios as growth_ratios
from bench.growth.report import sizes
from bench.growth.report import values as growth_values
from bench.peers.report import BARE, OURS, Column, Result, ratios, values

PARITY = 0.05
"""A ratio this near to 1 is no difference."""


def summary(files: Files, goals: Sequence[Goal]) -> str:
    """The head of the document."""
    parts = [*_rates(files), *_beside(files), *_growth(files), _reached(goals)]
    return "\n".join(f"- {part}" for part in parts)


def origin(files: Files) -> str:
    """Whether all figures are of one run, and else of which."""
    names = {
        "own": "beside the bare loop", "compared": "beside the others", "stress": "under stress",
        "growth": "as work grows", "recovery": "after a fault",
    }  # fmt: skip
    runs = {what: _run(given) for name, what in names.items() if (given := getattr(files, name)) is not None}
    if len(set(runs.values())) == 1:
        text = f"All figures are of one run of `make bench`, begun {next(iter(runs.values()))} (UTC)."
    else:
        text = "The figures are of several runs: " + "; ".join(f"{what}, {run}" for what, run in runs.items()) + "."
    missing = [what for name, what in names.items() if getattr(files, name) is None]
    return text + (f" Not measured yet: {', '.join(missing)}." if missing else "")


def _run(result: Mapping[str, object]) -> str:
    machine = result["machine"]
    assert isinstance(machine, Mapping)
    return str(result.get("run") or machine["date"])


def _rates(files: Files) -> Iterator[str]:
    if files.compared is None or OURS not in files.compared["outcomes"]:
        return
    machine, ours = files.compared["machine"], files.compared["outcomes"][OURS]

    def median(shape: str, key: str) -> float | None:
        found = values(ours, Column("", (shape,), key))
        return statistics.median(found) if found else None

    drain, steady = median("drain 1", "jobs_per_s"), median("steady", "jobs_per_s")
    if drain and steady:
        yield (
            f"On {machine['cores']} cores of {machine['processor']}, which PostgreSQL, the worker and the producer "
            f"share, one worker process ends **{drain:,.0f} no-op jobs a second** that were waiting, and {steady:,.0f} "
            "a second while another process spawns them. Every job is fenced, and a row of history is kept of it."
        )
    p50, p99 = median("latency", "p50_ms"), median("latency", "p99_ms")
    if p50 and p99:
        yield f"An idle worker starts a job {p50:.1f} ms after its spawn began ({p99:.1f} ms at the 99th percentile)."


def _beside(files: Files) -> Iterator[str]:
    if files.compared is None:
        return
    for shape, what in (("drain 1", "Draining, one process"), ("steady", "In the steady state")):
        found = dict(_medians(files.compared, shape))
        if not found:
            continue
        if faster := [f"{name} ({_times(ratio)})" for name, ratio in found.items() if ratio >= 1 + PARITY]:
            yield f"{what}, it is faster than {', '.join(faster)}."
        if even := [name for name, ratio in found.items() if 1 - PARITY < ratio < 1 + PARITY]:
            yield f"{what}, it is about as fast as {', '.join(even)}."
        kept = {name: outcome["history"] for name, outcome in files.compared["outcomes"].items()}
        if slower := [
            f"{name} ({_times(ratio)}{', which keeps no history' if kept[name] == 'none' else ''})"
            for name, ratio in found.items() if ratio <= 1 - PARITY
        ]:  # fmt: skip
            yield f"{what}, **it is slower than {', '.join(slower)}**."


def _growth(files: Files) -> Iterator[str]:
    if (growth := files.growth) is None:
        return
    if len(processes := sizes(growth, "processes")) > 1:
        ratios = growth_ratios(growth, "processes", processes[-1], processes[0], "jobs_per_s")
        rates = growth_values(growth, "processes", processes[-1], "jobs_per_s")
        if ratios and rates:
            yield (
                f"{processes[-1]} worker processes on the same cores end {statistics.median(rates):,.0f} jobs a "
                f"second, {statistics.median(ratios):.2f} times as many as one."
            )
    if len(backlogs := sizes(growth, "backlog")) > 1:
        costs = growth_ratios(growth, "backlog", backlogs[-1], backlogs[0], "server_cpu_us")
        if costs:
            yield (
                f"With {backlogs[-1]:,} more jobs waiting a job costs the server {statistics.median(costs):.2f} times "
                "the CPU that it costs without."
            )


def _medians(result: Result, shape: str) -> Iterator[tuple[str, float]]:
    """piecework ÷ each of the others, the nearest last."""
    names = [name for name in result["outcomes"] if name not in (OURS, BARE)]
    found = {name: ratios(result, shape, "jobs_per_s", name) for name in names}
    medians = [(name, statistics.median(each)) for name, each in found.items() if each]
    yield from sorted(medians, key=lambda pair: -pair[1])


def _times(ratio: float) -> str:
    return f"{ratio:.0f} ×" if ratio >= 10 else f"{ratio:.1f} ×" if ratio >= 2 else f"{ratio:.2f} ×"


def _reached(goals: Sequence[Goal]) -> str:
    verdicts = [goal.reached for goal in goals if goal.reached is not None]
    return (
        f"Of the {len(verdicts)} goals of the design that were measured, {verdicts.count(True)} are reached and "
        f"{verdicts.count(False)} missed: see below."
    )
