"""The tables of growth, for docs/performance.md."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.growth.model import GROUP_COMMIT, Costs, Machine, costs, limits, one_worker
from bench.growth.run import Result
from bench.report import aligned, spread

MACHINES = (
    Machine(cores=8, wal_bytes_per_s=250e6),
    Machine(cores=32, wal_bytes_per_s=500e6),
    Machine(cores=96, wal_bytes_per_s=1e9),
)
"""What a volume of each size writes is an assumption, and stands in the table."""


class Column(NamedTuple):
    """A figure of a table: its heading, its key, and how it is written."""

    heading: str
    key: str
    form: str = ".1f"
    scale: float = 1.0


RATE = Column("jobs/s", "jobs_per_s", ",.0f")
CPU = (Column("worker CPU, µs per job", "worker_cpu_us"), Column("server CPU, µs", "server_cpu_us"))
PROCESSES = (
    RATE, *CPU, Column("of it claims", "claim cpu_us"), Column("settles", "settle cpu_us"),
    Column("the rest of the server", "background cpu_us"), Column("WAL, bytes", "wal_bytes", ",.0f"),
    Column("flushes per 1,000 jobs", "flushes", ".1f", 1000),
)  # fmt: skip
BACKLOG = (
    RATE, *CPU, Column("pages that claims look at, per job", "claim buffers"),
    Column("pages that settles look at", "settle buffers"), Column("WAL, bytes", "wal_bytes", ",.0f"),
)  # fmt: skip
KEYS = (
    RATE, *CPU, Column("pages that claims look at, per job", "claim buffers"),
    Column("statements per job", "statements", ".3f"), Column("WAL, bytes", "wal_bytes", ",.0f"),
    Column("jobs that ran", "executed", ",.0f"),
)  # fmt: skip


def sizes(result: Result, shape: str) -> list[int]:
    """The sizes that a shape was measured in, the smallest first."""
    return sorted(int(name.split()[1]) for name in result["figures"] if name.split()[0] == shape)


def values(result: Result, shape: str, size: int, key: str) -> list[float]:
    """A figure of all rounds that have it."""
    rounds = result["figures"].get(f"{shape} {size}", ())
    return [value for figures in rounds if (value := figures.get(key)) is not None]


def ratios(result: Result, shape: str, size: int, other: int, key: str) -> list[float]:
    """A size ÷ another, round by round."""
    pairs = zip(*(result["figures"].get(f"{shape} {each}", ()) for each in (size, other)), strict=False)
    found = ((mine.get(key), theirs.get(key)) for mine, theirs in pairs)
    return [mine / theirs for mine, theirs in found if mine and theirs]


def table(result: Result, shape: str, columns: Sequence[Column], of: str) -> str:
    """A row for each size; medians and spread, and the rate beside that of the smallest."""
    all = sizes(result, shape)
    lines: list[tuple[str, ...]] = []
    for size in all:
        cells = [
            spread([value * column.scale for value in found], column.form) if found else ""
            for column in columns
            for found in [values(result, shape, size, column.key)]
        ]
        beside = ratios(result, shape, size, all[0], RATE.key)
        lines.append((f"{size:,}", cells[0], spread(beside, ".2f") if beside else "", *cells[1:]))
    headings = [column.heading for column in columns]
    return aligned((of, headings[0], f"÷ {all[0]:,}", *headings[1:]), lines)


def render(result: Result) -> str:
    """All tables of growth, with where and how it was made."""
    machine, plan = result["machine"], result["plan"]
    rounds = "1 round" if plan["rounds"] == 1 else f"{plan['rounds']} rounds: medians, with the lowest and the highest"
    parts = [
        f"Measured on {machine['date']}: PostgreSQL {machine['postgresql']} (embedded, default settings), "
        f"{machine['cores']} cores of {machine['processor']} for the server and all workers; load average "
        f"{machine['load']} before the run and {machine.get('load_after', '?')} after it. {rounds}.",
    ]
    if sizes(result, "processes"):
        parts += ["### Worker processes", _plot("growth-processes"), table(result, "processes", PROCESSES, "processes")]
    if sizes(result, "backlog"):
        parts += ["### Backlog", _plot("growth-backlog"), table(result, "backlog", BACKLOG, "jobs behind")]
    if sizes(result, "keys"):
        parts += ["### Concurrency keys", _plot("growth-keys"), table(result, "keys", KEYS, "keys")]
    if found := costs(result):
        parts += ["### On larger machines, by a model", *_model(result, found)]
    parts += [f"- Failed: {said}" for said in result["failures"]]
    return "\n\n".join(parts)


def _plot(name: str) -> str:
    return f"![{name}](plots/{name}.svg)"


def _model(result: Result, given: Costs) -> Iterator[str]:
    most, cores = max(sizes(result, "processes")), int(str(result["machine"]["cores"]))
    yield (
        "Nobody has measured what follows. It is computed from what a job cost in its whole life here, with "
        f"{most} worker processes. CPU: {given.spawner:.1f} µs of a spawner in bulk and {given.spawning:.1f} of the "
        f"server for that, {given.claim:.1f} of the session that claims, {given.worker:.1f} of the worker, "
        f"{given.settle:.1f} of the session that settles, {given.rest:.1f} of all other processes of the server. WAL: "
        f"{given.wal_bytes:,.0f} bytes, {given.flushes * 1000:.1f} flushes per 1,000 jobs, each of "
        f"{given.flush_seconds * 1000:.2f} ms. The jobs per second at which each is used up:"
    )
    lines: list[tuple[str, ...]] = []
    for machine in (Machine(cores=cores, wal_bytes_per_s=MACHINES[0].wal_bytes_per_s), *MACHINES):
        all = dict(limits(given, machine, alone=False))
        alone = dict(limits(given, machine, alone=True))
        lock = min((rate for what, rate in all.items() if what not in ("CPU", "WAL", "flushes")), default=None)
        lines.append((
            f"{machine.cores}", f"{all['CPU']:,.0f}", f"{alone['CPU']:,.0f}",
            f"{all['WAL']:,.0f} ({machine.wal_bytes_per_s / 1e6:,.0f} MB/s)", f"{all['flushes']:,.0f}",
            f"{lock:,.0f}" if lock else "none seen", _lowest(all), _lowest(alone),
        ))  # fmt: skip
    yield aligned(
        ("cores", "CPU, all on it", "CPU, PostgreSQL alone", "WAL", "flushes", "locks", "limit, all on it",
         "limit, PostgreSQL alone"), lines,
    )  # fmt: skip
    yield "\n".join(f"- {line}" for line in _assumptions(result, given, most))


def _lowest(found: dict[str, float]) -> str:
    what = min(found, key=lambda name: found[name])
    return f"{found[what]:,.0f}: {what}"


def _assumptions(result: Result, given: Costs, most: int) -> Iterator[str]:
    worker, first = one_worker(given), min(sizes(result, "processes"))
    drained = values(result, "processes", first, RATE.key)
    yield (
        "A core there does as much as one here, a job costs as much however many work on it, and as large a part of "
        f"the cores can be kept busy as here ({given.busy:.0%})."
    )
    yield (
        f"A worker process is at its end at {worker.jobs_per_s:,.0f} jobs/s by {worker.what}, and there are as many as "
        f"it takes. (With {first} of them {statistics.median(drained):,.0f} were measured, beside the server.)"
    )
    yield "The rates of the log are assumptions. The disk flushes as fast as this one, and no more sessions share it."
    seen = sorted(((n, what) for what, n in given.waiting.items() if what != GROUP_COMMIT and n > 0), reverse=True)
    sampled = sum(values(result, "processes", most, "samples"))
    locks = ", ".join(f"{what} {number:.2f}" for number, what in seen[:4]) or "none"
    yield (
        f"Locks: how many sessions waited for each (the average of {sampled:,.0f} samples with {most} processes: "
        f"{locks}) tells which part of the time it was in use, as in a queue with one server and random arrivals; "
        f"that grows with the rate. {given.stretch:.1f} processes shared a core here, so a lock was held as many times "
        "longer than on a core of its own. A lock that was in nobody's way here is not in the model."
    )
