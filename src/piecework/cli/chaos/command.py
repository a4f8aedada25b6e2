"""`piecework chaos`."""

from __future__ import annotations

import asyncio
import random
import secrets
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TypedDict

import click
from typing_extensions import Unpack

from piecework.base.threads import named
from piecework.cli.chaos.fleet import Crew
from piecework.cli.chaos.plan import Plan
from piecework.cli.chaos.report import print_check, print_report
from piecework.cli.chaos.run import run
from piecework.cli.chaos.server_faults import NAMES
from piecework.cli.chaos.verdict import ChaosReport
from piecework.cli.database import SCHEMA_VARIABLE, named_dsn
from piecework.cli.main import FAILED
from piecework.cli.output import json_option, print_json
from piecework.cli.parameters import a_number
from piecework.store.dsn import describe
from piecework.testing.history import Report, Terms, check
from piecework.work.database import DSN_VARIABLE

_MOST_SECONDS = 24 * 3600


class ChaosOptions(TypedDict):
    """The command's options as click hands them over."""

    database_url: str | None
    schema: str
    check: bool
    drained: bool
    seconds: float
    seed: int | None
    faults: tuple[str, ...]
    workers: int
    spawners: int
    rate: float
    lease: float
    yes: bool
    as_json: bool


@click.command("chaos", short_help="Break what can break under load, and judge that nothing is lost or doubled.")
@click.option(
    "--dsn",
    "--database-url",
    "database_url",
    metavar="DSN",
    envvar=DSN_VARIABLE,
    show_envvar=True,
    help="Any libpq URL or key=value string. Without it a server of the run's own is made, and broken too.",
)
@click.option("--check", is_flag=True, help="Break nothing: judge the history that is in the database.")
@click.option(
    "--schema",
    metavar="NAME",
    envvar=SCHEMA_VARIABLE,
    show_envvar=True,
    default="piecework",
    show_default=True,
    help="With --check: the schema to judge.",
)
@click.option("--drained", is_flag=True, help="With --check: all jobs have ended, none was removed or retried by hand.")
@click.option(
    "--seconds",
    metavar="S",
    type=click.FloatRange(1, _MOST_SECONDS), callback=a_number,
    default=60.0,
    show_default=True,
    help="How long things break.",
)
@click.option("--seed", metavar="N", type=int, help="Draws the faults, their order and whom they hit; else a new one.")
@click.option(
    "--fault",
    "faults",
    type=click.Choice(NAMES),
    multiple=True,
    metavar="NAME",
    help="Only this one; repeatable. Their names are in docs/reliability.md.",
)
@click.option("--workers", metavar="N", type=click.IntRange(1, 64), default=4, show_default=True, help="At a time.")
@click.option("--spawners", metavar="N", type=click.IntRange(1, 64), default=2, show_default=True, help="At a time.")
@click.option(
    "--rate",
    metavar="N",
    type=click.FloatRange(1, 10_000), callback=a_number,
    default=40.0,
    show_default=True,
    help="Jobs that each of them spawns per second.",
)
@click.option(
    "--lease",
    metavar="S",
    type=click.FloatRange(1, 3600), callback=a_number,
    default=2.0,
    show_default=True,
    help="Of the workers; 18 where nothing else is said, and then all takes longer.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def command(**options: Unpack[ChaosOptions]) -> None:  # fmt: skip
    """Start workers and spawners, break things for a while by a seeded plan, and judge what became of every job.

    Without a database URL it makes a PostgreSQL of its own with a standby, and breaks these as well: restarts, crashes,
    failovers, a full disk (root only). A database that you name keeps its server: of that only the run's own sessions
    are ended. It works in a schema of its own, piecework_chaos_…, which is made and dropped by it. The load is real, a
    transaction is held open for seconds, and sessions come and go: choose a database that nobody waits for.

    With --check it breaks nothing and reads only: it judges what the schema's tables say, while workers go on.

    Exit codes: 0 all held; 1 something was lost or doubled, or came too late; 2 called wrongly, or not confirmed; 3 the
    database cannot be used; 130 interrupted.

    \b
    Keys of --json: see piecework.cli.chaos.verdict, ChaosReport; with --check
      status, jobs, statuses, attempts, violations: [{rule, jobs, what}]
    """
    if options["check"]:
        _check(options)
        return
    seed = random.randrange(10**6) if options["seed"] is None else options["seed"]
    crew = Crew(options["workers"], options["spawners"], options["rate"], options["lease"])
    plan = Plan(options["seconds"], seed, crew, options["faults"] or NAMES)
    _confirm(options)
    folder = Path(tempfile.mkdtemp(prefix="piecework-chaos-"))
    click.echo(f"Seed {seed}; what the processes say is in {folder}", err=True)
    report = asyncio.run(named("chaos", lambda: _run(plan, options["database_url"] or None, folder)))
    if options["as_json"]:
        print_json(report)
    else:
        print_report(report)
    if report.status != "ok":
        raise click.exceptions.Exit(FAILED)
    shutil.rmtree(folder, ignore_errors=True)


def _confirm(options: ChaosOptions) -> None:
    dsn = options["database_url"]
    if options["yes"] or not dsn:
        return
    click.echo(
        f"This breaks things at {describe(dsn)}: its own sessions are ended, a transaction is held open so that vacuum "
        "cannot remove rows, and the server is kept busy. Do it where nobody waits for the database.",
        err=True,
    )
    try:
        sure = click.confirm("Go on?", err=True)
    except click.Abort:  # there is nobody to ask
        sure = False
    if not sure:
        raise click.UsageError("not confirmed: nothing was done (--yes does not ask)")


async def _run(plan: Plan, dsn: str | None, folder: Path) -> ChaosReport:
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    schema = f"piecework_chaos_{secrets.token_hex(6)}"
    return await run(plan, dsn, schema, folder, lambda text: click.echo(text, err=True))


def _check(options: ChaosOptions) -> None:
    terms = Terms(live=not options["drained"], whole=options["drained"], slack=1.0)

    async def ask() -> Report:
        async with named_dsn(options["database_url"]) as dsn:
            return await check(dsn, schema=options["schema"], terms=terms)

    report = asyncio.run(named("chaos", ask))
    if options["as_json"]:
        print_json({
            "status": "ok" if report.holds else "failed", "jobs": report.jobs, "statuses": report.statuses,
            "attempts": report.attempts,
            "violations": [{"rule": each.rule, "jobs": each.job_ids, "what": each.what} for each in report.violations],
        })  # fmt: skip
    else:
        print_check(report)
    if not report.holds:
        raise click.exceptions.Exit(FAILED)
