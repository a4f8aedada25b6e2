"""Tables of a run: for the terminal, and for docs/performance.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, NotRequired, TypeAlias, TypedDict

Rounds: TypeAlias = Sequence[Mapping[str, float | None]]
"""The figures of one measurement, once per round; none where it failed."""


class Result(TypedDict):
    """All that a run found out, as it is kept in the JSON file."""

    machine: Mapping[str, object]
    plan: Mapping[str, object]
    figures: Mapping[str, Rounds]
    failures: NotRequired[Sequence[str]]
    run: NotRequired[str]
    """When the run began: the same in all files of one run."""


GOAL = 0.5
"""Of the bare loop's rate, in a drain and in the steady state."""
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


class Row(NamedTuple):
    """A figure: its name for the reader, its key, and how it is written."""

    label: str
    key: str
    form: str
    scale: float = 1.0


RATE = Row("**jobs/s**", "jobs_per_s", ",.0f")
COSTS = (
    Row("statements per 1,000 jobs", "statements", ".1f", 1000),
    Row("WAL, bytes per job", "wal_bytes", ",.0f"),
    Row("CPU of the worker, µs per job", "worker_cpu_us", ".1f"),
    Row("CPU of the server, µs per job", "server_cpu_us", ".1f"),
)
DRAIN = (
    RATE, *COSTS,
    Row("filling: jobs/s", "insert_jobs_per_s", ",.0f"),
    Row("filling: WAL, bytes per job", "insert_wal_bytes", ",.0f"),
    Row("filling: CPU of the producer, µs per job", "insert_client_cpu_us", ".1f"),
    Row("filling: CPU of the server, µs per job", "insert_server_cpu_us", ".1f"),
)  # fmt: skip
STEADY = (
    RATE,
    Row("jobs/s while the producer ran", "jobs_per_s_while_producing", ",.0f"),
    Row("the producer, jobs/s", "insert_jobs_per_s", ",.0f"),
    *COSTS,
    Row("insert → start, median, s", "pickup_p50_s", ".2f"),
    Row("insert → start, 99 %, s", "pickup_p99_s", ".2f"),
)
SINGLE_FIGURES = (
    ("latency", Row("spawn → start in an idle worker, median, ms", "p50_ms", ".1f")),
    ("latency", Row("the same, 95 %", "p95_ms", ".1f")),
    ("latency", Row("the same, 99 %", "p99_ms", ".1f")),
    ("spawning", Row("`spawn_all` of one large batch, typed, jobs/s", "bulk_jobs_per_s", ",.0f")),
    ("spawning", Row("one awaited `spawn`, µs", "single_spawn_us", ",.0f")),
    ("spawning", Row("one awaited one-row INSERT, µs", "single_insert_us", ",.0f")),
    ("spawning", Row("spawn ÷ INSERT", "single_ratio", ".2f")),
    ("spawning", Row("ten concurrent spawners, µs per spawn", "ten_spawn_us", ",.0f")),
    ("spawning", Row("ten concurrent inserters, µs per INSERT", "ten_insert_us", ",.0f")),
    ("spawning", Row("ten spawners ÷ ten inserters", "ten_ratio", ".2f")),
    ("idle", Row("statements/s of an idle worker, each a transaction", "statements_per_s", ".2f")),
)  # fmt: skip


def spread(values: Sequence[float], form: str) -> str:
    """The median, and the lowest and highest where there are several."""
    median = format(statistics.median(values), form)
    return median if len(values) == 1 else f"{median} ({format(min(values), form)}–{format(max(values), form)})"


def _values(rounds: Rounds, row: Row) -> list[float]:
    return [value * row.scale for figures in rounds if (value := figures.get(row.key)) is not None]


def ratios(bare: Rounds, ours: Rounds, key: str) -> list[float]:
    """Ours ÷ bare, round by round: the two runs of a round stand next to each other in time."""
    pairs = ((own.get(key), other.get(key)) for own, other in zip(ours, bare, strict=False))
    return [own / other for own, other in pairs if own and other]


def aligned(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table that reads as well in a terminal."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    pads: Sequence[Callable[[str, int], str]] = [str.ljust, *[str.rjust] * (len(header) - 1)]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(pad(cell, width) for pad, cell, width in zip(pads, cells, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([line(header), rule, *map(line, lines)])


def comparison(bare: Rounds, ours: Rounds, rows: Sequence[Row]) -> str:
    """A table of both sides and their ratio."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        own, other = _values(ours, row), _values(bare, row)
        if own:
            quotients = ratios(bare, ours, row.key)
            lines.append((
                row.label, spread(other, row.form) if other else "", spread(own, row.form),
                spread(quotients, ".2f") if quotients else "",
            ))  # fmt: skip
    return aligned(("", "bare loop", "piecework", "piecework ÷ bare"), lines)


def single_figures(run: Mapping[str, Rounds]) -> str:
    """A table of the figures that stand alone."""
    lines = [
        (row.label, spread(values, row.form))
        for name, row in SINGLE_FIGURES
        if (values := _values(run.get(name, ()), row))
    ]
    return aligned(("", "piecework"), lines)


def verdict(name: str, bare: Rounds, ours: Rounds) -> str:
    """Whether the goal is reached."""
    found = ratios(bare, ours, "jobs_per_s")
    if not found:
        return f"{name}: no round came to its end on both sides."
    quotient = statistics.median(found)
    reached = "reached" if quotient >= GOAL else "NOT reached"
    return f"{name}: {quotient:.2f} of the bare loop; the goal of {GOAL} is {reached}."


def render(result: Result) -> str:
    """All tables of a run, with where and how it was made."""
    machine, plan, figures = result["machine"], result["plan"], result["figures"]
    rounds = "1 round" if plan["rounds"] == 1 else f"{plan['rounds']} rounds: medians, with the lowest and the highest"
    parts = [
        f"Measured on {machine['date']} with piecework {machine['piecework']}: PostgreSQL {machine['postgresql']} "
        f"(embedded, default settings), Python {machine['python']}, psycopg {machine['psycopg']}, "
        f"{machine['cores']} cores shared by the server, the worker and the producer; load average before the run "
        f"{machine['load']}. {rounds}.",
    ]
    for name, title, rows in (
        ("drain", f"Drain of {plan['drain_jobs']:,} jobs", DRAIN),
        ("steady", f"Steady state, {plan['steady_jobs']:,} jobs", STEADY),
    ):
        bare, ours = figures.get(f"{name} bare", ()), figures.get(f"{name} ours", ())
        if bare and ours:
            parts += [f"### {title}", comparison(bare, ours, rows), verdict(title, bare, ours)]
            if name == "steady" and not all(each.get("complete", True) for each in [*bare, *ours]):
                parts.append(f"A run was cut off after {plan['steady_limit']} s: its rate is that of what had run.")
    if table := single_figures(figures):
        parts += ["### Single figures", table]
    parts += [f"Failed: {said}" for said in result.get("failures", ())]
    return "\n\n".join(parts)


def put_between_markers(document: str, text: str, first: str = BEGIN, last: str = END) -> str:
    """Replace what stands between the markers of a document."""
    before, begin, rest = document.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise ValueError(f"the document has no {first} … {last} to write between")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"
