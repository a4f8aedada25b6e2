"""The tables of the stress shapes, for docs/performance.md."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from bench.report import aligned, spread
from bench.stress.measure import OURS
from bench.stress.run import Found, Outcome
from bench.stress.shapes import SHAPES, TURNS, Bound, Shape

WAITS = (("spawn_ms", "a spawn"), ("start_ms", "spawn → start"), ("life_ms", "spawn → ended"))


class Result(TypedDict):
    """All that a run of the stress shapes found out, as it is kept in the JSON file."""

    machine: Mapping[str, object]
    plan: Mapping[str, object]
    shapes: dict[str, Found]
    missing: Mapping[str, str]


def merge(found: Result, path: Path) -> None:
    """Put the shapes that were played into a file of others; each has its own date and load."""
    kept: Result = json.loads(path.read_text()) if path.exists() else found
    seconds = {"seconds": found["plan"]["seconds"]} if "paced" in found["shapes"] else {}
    path.write_text(json.dumps({
        **kept, "plan": {**kept["plan"], **seconds}, "shapes": {**kept["shapes"], **found["shapes"]}
    }, indent=1) + "\n")  # fmt: skip


def values(outcome: Outcome | None, key: str) -> list[float]:
    """A figure of all rounds that have it."""
    figures = outcome["figures"] if outcome else []
    return [value for each in figures if (value := each.get(key)) is not None]


def known(result: Result) -> Iterator[tuple[Shape, Found]]:
    """The shapes that were played, in the order of the bench."""
    for shape in SHAPES:
        if shape.name in result["shapes"]:
            yield shape, result["shapes"][shape.name]


def contestants(result: Result) -> list[str]:
    """Who met at least one shape, piecework first."""
    return list(dict.fromkeys(name for _, found in known(result) for name in found["outcomes"]))


def reached(bound: Bound, found: Sequence[float]) -> bool | None:
    """Whether the median holds."""
    if not found:
        return None
    median = statistics.median(found)
    return median >= bound.bound if bound.at_least else median <= bound.bound


def ours(result: Result) -> str:
    """What piecework showed in each shape, beside its plain run and the goal."""
    lines: list[Sequence[str]] = []
    for shape, found in known(result):
        outcome = found["outcomes"].get(OURS)
        cells = [
            _shown(outcome, key, form)
            for key, form in (
                ("jobs_per_s", ",.0f"), ("plain_jobs_per_s", ",.0f"), ("factor", ".2f"), ("plain_server_cpu_us", ".1f"),
                ("server_cpu_us", ".1f"), ("plain_worker_cpu_us", ".1f"), ("worker_cpu_us", ".1f"),
            )
        ]  # fmt: skip
        costs = _pair(cells[3:5]), _pair(cells[5:7])
        lines.append((found["title"] or shape.name, *cells[:3], *costs, _verdict(shape, outcome)))
    header = (
        "", "jobs/s", "plain, jobs/s", "factor", "server CPU, µs per job, plain → here", "worker CPU", "goal",
    )  # fmt: skip
    return aligned(header, lines)


def beside(result: Result) -> str:
    """What is left of the rate of each contestant, and the rate."""
    names = contestants(result)
    lines = [
        (found["title"] or shape.name, *(_cell(found, name) for name in names))
        for shape, found in known(result)
        if len(found["outcomes"]) > 1
    ]
    return aligned(("", *(f"**{name}**" if name == OURS else name for name in names)), lines)


def transaction(result: Result) -> str:
    """The longest that others waited, with and without an open transaction."""
    outcome = result["shapes"]["transaction"]["outcomes"].get(OURS)
    turns = (("alone", "none is open"), *((turn, f"one is open, with a {turn} in it") for turn in TURNS))
    lines = [(said, *(_shown(outcome, f"{turn}_{key}", ",.0f") for key, _ in WAITS)) for turn, said in turns]
    return aligned(("the worst of the others, ms", *(said for _, said in WAITS)), lines)


def paced(result: Result) -> str:
    """How long a job waited for its start under a pinned horizon, at the beginning and in the end."""
    lines = [
        (name, *(_shown(outcome, key, form) for key, form in (
            ("kept_up", ".2f"), ("first_p50_ms", ",.1f"), ("first_p99_ms", ",.1f"), ("last_p50_ms", ",.1f"),
            ("last_p99_ms", ",.1f"), ("late_s", ",.1f"))))
        for name, outcome in result["shapes"]["paced"]["outcomes"].items()
    ]  # fmt: skip
    header = ("spawn → start, ms", "part of the pace kept", "first tenth, p50", "p99", "last tenth, p50", "p99",
              "a late job starts after, s")  # fmt: skip
    return aligned(header, lines)


def remarks(result: Result) -> list[str]:
    """What failed, and who did not meet which shape for what reason."""
    lines = [f"- {name} did not take part: {reason}" for name, reason in result["missing"].items()]
    reasons: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for shape, found in known(result):
        for name, outcome in found["outcomes"].items():
            if outcome["failure"] is not None:
                lines.append(f"- {name}, {found['title'] or shape.name}: **failed**: {outcome['failure']}")
            elif any(values(outcome, "cut") + values(outcome, "plain_cut")):
                lines.append(f"- {name}, {found['title']}: cut off when time was up; the rate is that of what had run")
        for name, reason in found["left_out"].items():
            reasons[reason][found["title"] or shape.name].append(name)
    for reason, titles in reasons.items():
        shown = "; ".join(f"{title} ({', '.join(names)})" for title, names in titles.items())
        lines.append(f"- {reason}: {shown}")
    return lines or ["- None: every contestant met every shape."]


def render(result: Result) -> str:
    """All tables, with where and how they were made."""
    machine, plan = result["machine"], result["plan"]
    names = contestants(result)
    parts = [
        f"Measured on {machine['date']} with piecework {machine['piecework']}: PostgreSQL {machine['postgresql']} "
        f"(embedded, default settings), {machine['cores']} cores of {machine['processor']} shared by all "
        f"processes; load average before each shape {_loads(result)}. piecework {plan['rounds']} rounds, the others "
        f"{plan['peer_rounds']}: medians, with the lowest and the highest.",
        "![stress](plots/stress.svg)",
        "### piecework", ours(result),
    ]  # fmt: skip
    if "transaction" in result["shapes"]:
        parts += ["### A transaction that is left open", transaction(result)]
    if "paced" in result["shapes"]:
        parts += [f"### Minutes under a pinned horizon: {plan['seconds']:,.0f} s", paced(result)]
    if len(names) > 1:
        parts += ["### What is left of the rate, beside others", beside(result)]
    return "\n\n".join([*parts, "### Failed, or not measured", "\n".join(remarks(result))])


def _loads(result: Result) -> str:
    loads = [found["load"] for found in result["shapes"].values()]
    return f"{min(loads)}–{max(loads)}" if loads else "unknown"


def _shown(outcome: Outcome | None, key: str, form: str) -> str:
    found = values(outcome, key)
    return spread(found, form) if found else ""


def _pair(cells: Sequence[str]) -> str:
    """The medians of two figures."""
    first, second = (cell.partition(" ")[0] for cell in cells)
    return f"{first} → {second}" if first and second else second


def _cell(found: Found, name: str) -> str:
    if name in found["left_out"]:
        return found["left_out"][name].partition(":")[0]
    outcome = found["outcomes"].get(name)
    if outcome is None:
        return "not run"
    factors, rates = values(outcome, "factor"), values(outcome, "jobs_per_s")
    if not factors:
        return "failed" if outcome["failure"] else ""
    sign = "" if outcome["failure"] is None else ", then failed"
    return f"{statistics.median(factors):.2f} ({statistics.median(rates):,.0f}/s){sign}"


def _verdict(shape: Shape, outcome: Outcome | None) -> str:
    """The goals, each with reached or missed."""
    if outcome is None or (outcome["failure"] and not outcome["figures"]):
        return "**failed**" if outcome else "not run"
    said = []
    for bound in shape.goals:
        found = values(outcome, bound.key)
        verdict = {True: "reached", False: "**missed**", None: "not measured"}[reached(bound, found)]
        figure = "" if bound.key in ("factor", "jobs_per_s") or not found else f" ({spread(found, ',.0f')})"
        said.append(f"{'≥' if bound.at_least else '≤'} {bound.bound:,g} {bound.what}".rstrip() + f": {verdict}{figure}")
    failed = ["**failed in a round**"] if outcome["failure"] else []
    return "; ".join(said + failed) or "none"
