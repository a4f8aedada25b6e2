"""The tables of a comparison, for docs/performance.md."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NotRequired, TypedDict

from bench.peers.run import Outcome
from bench.report import aligned, spread

BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"
OURS, BARE = "piecework", "bare loop"


class Result(TypedDict):
    """All that a comparison found out, as it is kept in the JSON file."""

    machine: Mapping[str, object]
    plan: Mapping[str, object]
    outcomes: Mapping[str, Outcome]
    missing: Mapping[str, str]
    run: NotRequired[str]


class Column(NamedTuple):
    """A figure of a table: its heading, the shapes that have it, its key, and how it is written."""

    heading: str
    shapes: tuple[str, ...]
    key: str
    form: str = ",.0f"
    scale: float = 1.0


RATES = (
    Column("drain, 1 process, jobs/s", ("drain 1",), "jobs_per_s"),
    Column("drain, 2 processes", ("drain 2",), "jobs_per_s"),
    Column("steady state, full speed", ("steady",), "jobs_per_s"),
    Column("bulk spawn /s", ("drain 1", "drain 2"), "bulk_per_s"),
    Column("one by one /s", ("serial",), "serial_per_s"),
    Column("10 concurrent /s", ("c10",), "c10_per_s"),
)
WAITS = (
    Column("idle worker, p50, ms", ("latency",), "p50_ms", ".1f"),
    Column("p95", ("latency",), "p95_ms", ".1f"),
    Column("p99", ("latency",), "p99_ms", ".1f"),
    Column("200 jobs/s, p50", ("steady 200/s",), "p50_ms", ",.1f"),
    Column("p99", ("steady 200/s",), "p99_ms", ",.1f"),
    Column("5,000 jobs/s, p50", ("steady 5000/s",), "p50_ms", ",.1f"),
    Column("p99", ("steady 5000/s",), "p99_ms", ",.1f"),
)
COSTS = (
    Column("statements per job", ("drain 1",), "statements", ".3f"),
    Column("WAL, bytes", ("drain 1",), "wal_bytes"),
    Column("WAL with the bulk spawn, bytes", ("whole life",), "wal_bytes"),
    Column("worker CPU, µs", ("drain 1",), "worker_cpu_us", ",.1f"),
    Column("server CPU, µs", ("drain 1",), "server_cpu_us", ",.1f"),
    Column("bulk spawn: client CPU, µs", ("drain 1", "drain 2"), "bulk_client_cpu_us", ",.1f"),
    Column("bulk spawn: server CPU, µs", ("drain 1", "drain 2"), "bulk_server_cpu_us", ",.1f"),
    Column("idle: transactions/s", ("idle",), "transactions_per_s", ".2f"),
    Column("idle: statements/s", ("idle",), "statements_per_s", ".2f"),
)


def values(outcome: Outcome, column: Column) -> list[float]:
    """The figures of all rounds that have one."""
    if column.shapes == ("whole life",):
        rounds = [figures for figures in outcome["figures"].get("drain 1", []) if figures]
        pairs = ((figures.get("wal_bytes"), figures.get("bulk_wal_bytes")) for figures in rounds)
        return [first + second for first, second in pairs if first is not None and second is not None]
    found = [figures for shape in column.shapes for figures in outcome["figures"].get(shape, []) if figures]
    return [value * column.scale for figures in found if (value := figures.get(column.key)) is not None]


def ratios(result: Result, shape: str, key: str, other: str) -> list[float]:
    """piecework ÷ another contestant, round by round."""
    mine, theirs = (result["outcomes"][name]["figures"].get(shape, []) for name in (OURS, other))
    pairs = ((own.get(key), their.get(key)) for own, their in zip(mine, theirs, strict=False) if own and their)
    return [own / their for own, their in pairs if own and their]


def table(result: Result, columns: Sequence[Column]) -> str:
    """A row for each contestant; medians and spread."""
    lines = [
        (f"**{name}**" if name == OURS else name,
         *(spread(found, column.form) if (found := values(outcome, column)) else "" for column in columns))
        for name, outcome in result["outcomes"].items()
    ]  # fmt: skip
    return aligned(("", *(column.heading for column in columns)), lines)


def contestants(result: Result) -> str:
    """Who took part, in which version and setting."""
    lines = [
        (name, outcome["version"], outcome["setting"], outcome["history"], f"{outcome['jobs']:,}")
        for name, outcome in result["outcomes"].items()
    ]
    return aligned(("", "version", "setting", "kept of a finished job", "jobs of a drain"), lines)


def remarks(result: Result) -> list[str]:
    """Who is missing, and what failed."""
    lines = [f"- {name} did not take part: {reason}" for name, reason in result["missing"].items()]
    lines += [f"- {name}, {text}" for name, outcome in result["outcomes"].items() for text in outcome["failures"]]
    lines += [
        f"- {name}, {shape}: {statistics.median(more):,.0f} executions of {outcome['jobs']:,} jobs"
        for name, outcome in result["outcomes"].items()
        for shape in ("drain 1", "drain 2")
        if (more := [value for value in values(outcome, Column("", (shape,), "executed")) if value > outcome["jobs"]])
    ]
    return lines or ["- None: every contestant took part, and every measurement came to its end."]


def render(result: Result) -> str:
    """All tables of a comparison, with where and how it was made."""
    machine, plan = result["machine"], result["plan"]
    rounds = "1 round" if plan["rounds"] == 1 else f"{plan['rounds']} rounds: medians, with the lowest and the highest"
    return "\n\n".join([
        f"Measured on {machine['date']} with piecework {machine['piecework']}: PostgreSQL {machine['postgresql']} "
        f"(embedded, default settings), Python {machine['python']}, {machine['cores']} cores of {machine['processor']} "
        f"shared by the server, the workers and the producer; load average of the machine {machine['load']} before "
        f"the run and {machine.get('load_after', '?')} after it. {rounds}. {machine.get('note', '')}".rstrip(),
        "### Rates", table(result, RATES), _plots("drain", "steady", "spawn"),
        "### From a spawn to the start of its job", table(result, WAITS), _plots("latency"),
        "### What a no-op job costs", table(result, COSTS),
        "### Who took part, and how", contestants(result),
        "### Missing or failed", "\n".join(remarks(result)),
    ])  # fmt: skip


def _plots(*names: str) -> str:
    return "\n".join(f"![{name}](plots/{name}.svg)" for name in names)
