"""`piecework bench`."""

from __future__ import annotations

import asyncio
import secrets
import signal
from typing import TypedDict

import click
from typing_extensions import Unpack

from piecework.base.threads import named
from piecework.cli.bench.plan import NAMES, Plan
from piecework.cli.bench.report import WIDTH, Report, print_report
from piecework.cli.bench.run import run
from piecework.cli.main import FAILED
from piecework.cli.output import json_option, print_json
from piecework.cli.parameters import a_number
from piecework.model.settings import WorkerSettings
from piecework.work.database import DSN_VARIABLE


class BenchOptions(TypedDict):
    """The command's options as click hands them over."""

    database_url: str | None
    jobs: int
    seconds: float
    shapes: tuple[str, ...]
    processes: int
    concurrency: int
    payload: int
    as_json: bool


@click.command("bench", short_help="How fast it is on your database, and what the limit is.")
@click.option("--dsn", "--database-url", "database_url", metavar="DSN", envvar=DSN_VARIABLE, show_envvar=True,
              help="Any libpq URL or key=value string. Without it the embedded PostgreSQL is used.")
@click.option("--jobs", metavar="N", type=click.IntRange(1, 10_000_000), default=50_000, show_default=True,
              help="At most so many jobs in each shape.")
@click.option("--seconds", metavar="S", type=click.FloatRange(0.5, 3600), callback=a_number, default=5.0,
              show_default=True, help="Each shape spawns, or works on a full table, for at most so long.")
@click.option("--shape", "shapes", type=click.Choice(NAMES), multiple=True, help="Only this one; repeatable.")
@click.option("--processes", metavar="N", type=click.IntRange(1, 64), default=1, show_default=True,
              help="Worker processes.")
@click.option("--concurrency", metavar="N", type=click.IntRange(1, 100_000), default=WorkerSettings().concurrency,
              show_default=True, help="Jobs that run at once in one process.")
@click.option("--payload", metavar="BYTES", type=click.IntRange(0, 1_000_000), default=72, show_default=True,
              help="Bytes of text in each job.")
@json_option
def command(**options: Unpack[BenchOptions]) -> None:  # fmt: skip
    """Measure how fast jobs are spawned and worked off on your database, and say where the limit is.

    It works in a schema of its own, piecework_bench_…, which is made and dropped by it, also after Ctrl-C: the role
    needs CREATE on the database. Jobs that do nothing are spawned and run by real worker processes. After each shape
    the history is checked: each job once. All shapes take about a minute; the server is busy meanwhile.

    Exit codes: 0 every check holds; 1 one does not, or a process of the bench failed; 2 called wrongly; 3 the database
    cannot be reached, or the role may not create a schema; 130 interrupted.

    \b
    Shapes: bulk, spawn, spawners, drain, steady, paced, latency.
    Keys of --json:
      status    ok | failed: whether each job ran once
      postgresql, python, piecework: versions; cores: of this machine
      server_is_here  whether the server's CPU is known
      round_trip_ms, commit_ms: medians; a commit besides its round trip
      others_commits_per_s  of the database, before this began
      processes, concurrency, payload_bytes
      shapes    [{name, what, jobs, complete, seconds, jobs_per_s,
                asked_jobs_per_s, spawned_jobs_per_s,
                call_ms, pickup_ms: {p50, p90, p99, p99_9, max},
                client_cpu_us_per_job, server_cpu_us_per_job,
                wal_bytes_per_job, statements_per_job, commits_per_s,
                dead_rows, limit: {kind: client CPU | server CPU | other CPU |
                commits | round trips | server or network, text, advice},
                problems: [text]}]; null: not known, or not of this shape

    Example: piecework bench --dsn postgresql://app@db.example.org/app --processes 2
    """
    plan = Plan(
        jobs=options["jobs"], seconds=options["seconds"], processes=options["processes"],
        concurrency=options["concurrency"], payload=options["payload"], shapes=options["shapes"] or NAMES,
    )  # fmt: skip
    as_json = options["as_json"]

    def say(text: str) -> None:
        click.echo(click.wrap_text(text, WIDTH), err=as_json)

    async def bench() -> Report:
        _interruptible()
        schema = f"piecework_bench_{secrets.token_hex(6)}"
        return await run(plan, options["database_url"] or None, schema, say)

    report = asyncio.run(named("bench", bench))
    if as_json:
        print_json(report)
    else:
        print_report(report)
    if report["status"] != "ok":
        raise click.exceptions.Exit(FAILED)


def _interruptible() -> None:
    """Have the first signal end the run in order; what it made is being removed when another one comes."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            click.echo("Interrupted: what the bench made is removed", err=True)
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupt)
