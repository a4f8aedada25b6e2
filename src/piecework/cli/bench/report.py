"""What the bench says in the end: for programs, and for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

import click

from piecework.cli.bench.verdicts import LimitKind
from piecework.cli.output import Column, print_table, quiet_text

WIDTH = 100


class Percentiles(TypedDict):
    """Of waits; null where there are too few of them to tell."""

    p50: float
    p90: float
    p99: float | None
    p99_9: float | None
    max: float


class LimitReport(TypedDict):
    """Where the limit was."""

    kind: LimitKind
    text: str
    advice: str


class ShapeReport(TypedDict):
    """One shape. null: not known here, or not of this shape."""

    name: str
    what: str
    jobs: int
    complete: bool
    seconds: float
    jobs_per_s: float
    asked_jobs_per_s: float | None
    spawned_jobs_per_s: float | None
    call_ms: Percentiles | None
    pickup_ms: Percentiles | None
    client_cpu_us_per_job: float
    server_cpu_us_per_job: float | None
    wal_bytes_per_job: float | None
    statements_per_job: float | None
    commits_per_s: float
    dead_rows: int
    limit: LimitReport | None
    problems: list[str]


class Report(TypedDict):
    """What `piecework bench --json` prints."""

    status: Literal["ok", "failed"]
    postgresql: str
    python: str
    piecework: str
    cores: int
    server_is_here: bool
    round_trip_ms: float
    commit_ms: float
    others_commits_per_s: float
    processes: int
    concurrency: int
    payload_bytes: int
    shapes: list[ShapeReport]


_BUSY = 20.0


def print_report(report: Report) -> None:
    """Print it as tables, with a line for each limit, and one for each check that failed."""
    workers = "1 worker process" if report["processes"] == 1 else f"{report['processes']} worker processes"
    where = "on this machine" if report["server_is_here"] else "elsewhere, or its processes are hidden from here"
    click.echo(
        f"PostgreSQL {quiet_text(report['postgresql'])}, {where}; {report['cores']} cores here; a round trip takes "
        f"{report['round_trip_ms']:.2f} ms, a commit {report['commit_ms']:.2f} ms more"
    )
    click.echo(
        f"{workers} with --concurrency {report['concurrency']}; "
        f"{report['payload_bytes']:,} bytes of text per job; Python {report['python']}, piecework {report['piecework']}"
    )
    if report["others_commits_per_s"] > _BUSY:
        others = f"{report['others_commits_per_s']:,.0f} commits/s before this began"
        click.echo(f"The database has other things to do ({others}): commits, WAL and server CPU count them too.")
    shapes = report["shapes"]
    click.echo("")
    _print_rates(shapes)
    _print_waits(shapes)
    _print_limits(shapes)
    _print_checks(shapes)


def _print_rates(shapes: Sequence[ShapeReport]) -> None:
    names = ("jobs", "jobs/s", "client", "server", "wal", "stmts", "commits/s", "dead")
    columns = [Column("shape", whole=True), *(Column(name, right=True, whole=True) for name in names)]
    rows = [
        [
            shape["name"], f"{shape['jobs']:,}", f"{shape['jobs_per_s']:,.0f}",
            f"{shape['client_cpu_us_per_job']:,.0f}", _number(shape["server_cpu_us_per_job"], ",.0f"),
            _number(shape["wal_bytes_per_job"], ",.0f"), _number(shape["statements_per_job"], ".3f"),
            f"{shape['commits_per_s']:,.0f}", f"{shape['dead_rows']:,}",
        ]
        for shape in shapes
        if shape["name"] != "latency"  # workers that idle cost what they cost, however few jobs there are
    ]  # fmt: skip
    if rows:
        print_table(columns, rows)
        click.echo(
            "\nclient, server: µs of CPU per job; wal: bytes per job; stmts: statements per job (pg_stat_statements);"
            "\ndead: rows left for vacuum; -: not known here."
        )
    for shape in shapes:
        click.echo(f"  {shape['name']:9} {shape['what']}{_besides(shape)}")


def _besides(shape: ShapeReport) -> str:
    asked, spawned = shape["asked_jobs_per_s"], shape["spawned_jobs_per_s"]
    text = "" if asked is None else f", {asked:,.0f} jobs/s"
    if spawned is not None:
        text += f" (spawned: {spawned:,.0f} jobs/s)"
    return text if shape["complete"] else f"{text}; cut off: some jobs were left when the time was over"


def _print_waits(shapes: Sequence[ShapeReport]) -> None:
    rows: list[list[str]] = []
    for shape in shapes:
        for what, waits in (("spawn", shape["call_ms"]), ("pickup", shape["pickup_ms"])):
            if waits is not None:
                values = (waits["p50"], waits["p90"], waits["p99"], waits["p99_9"], waits["max"])
                rows.append([shape["name"], what, *(_number(value, ",.2f") for value in values)])
    if rows:
        names = ("p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms")
        click.echo("")
        columns = [Column("shape"), Column("wait"), *(Column(name, right=True, whole=True) for name in names)]
        print_table(columns, rows)
        click.echo("\nspawn: until the job is committed. pickup: from the spawn to the start of the job.")


def _print_limits(shapes: Sequence[ShapeReport]) -> None:
    limits = [(shape["name"], limit) for shape in shapes if (limit := shape["limit"]) is not None]
    if limits:
        click.echo("\nWhere the limit was:")
    for at, (name, limit) in enumerate(limits):
        click.echo(click.wrap_text(f"{limit['kind']}: {limit['text']}", WIDTH, f"  {name:9} ", " " * 12))
        if at + 1 == len(limits) or limits[at + 1][1]["advice"] != limit["advice"]:
            click.echo(click.wrap_text(limit["advice"], WIDTH, " " * 12 + "→ ", " " * 14))


def _print_checks(shapes: Sequence[ShapeReport]) -> None:
    failed = [(shape["name"], problem) for shape in shapes for problem in shape["problems"]]
    for name, problem in failed:
        click.echo(f"\nFAILED: {name}: {problem}")
    if not failed:
        click.echo("\nChecked after each shape: every job that ended ran once and completed, and none was lost.")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
