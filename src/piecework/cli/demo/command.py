"""`piecework demo`."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from piecework.cli.database import database_url_option, opened
from piecework.cli.demo import variables
from piecework.cli.demo.check import Evidence, Finding, check
from piecework.cli.demo.display import display
from piecework.cli.demo.tree import Planned, plan, standard_library
from piecework.cli.output import Column, print_table, quiet_text
from piecework.cli.parameters import a_number
from piecework.store.overview import drop_schema
from piecework.store.store import Store
from piecework.work.database import DSN_VARIABLE, LISTEN_VARIABLE

HOME_VARIABLE = "PIECEWORK_HOME"
_KINDS_SHOWN = 8


@click.command("demo", short_help="See it work: real jobs, two workers, one of them killed.")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False)
@click.option("--lease", metavar="SECONDS", type=click.FloatRange(0.5, 60), callback=a_number, default=3.0,
              show_default=True,
              help="How long a worker must be silent to count as dead. The default of a real worker is 18.")
@database_url_option
def command(directory: Path | None, lease: float, database_url: str | None) -> None:  # fmt: skip
    """See piecework at work, with every job accounted for.

    Each file below DIRECTORY (default: the standard library of this Python) gets a job that reads and counts it. Some
    jobs fail on purpose and are tried again. Two worker processes run them; halfway one of them is killed, and the
    other takes its jobs back. At the end the database, a ledger that the jobs wrote themselves and a fresh count of the
    files are held against each other.

    It needs nothing: an embedded PostgreSQL is started unless a database is given. Its tables are in a schema of their
    own, which is dropped after success. Exit code 0 only if every check holds.

    Example: piecework demo ~/projects
    """
    root = (directory or standard_library()).resolve()
    planned = plan(root, Path(os.environ.get(HOME_VARIABLE) or ".piecework").resolve())
    if not planned:
        raise click.UsageError(f"there is no readable file below {root}")
    schema = f"piecework_demo_{datetime.now(UTC):%Y%m%d_%H%M%S}_{secrets.token_hex(3)}"
    # Before the module `work` is imported, here and in the worker processes, which inherit them.
    os.environ[variables.SCHEMA] = schema
    if database_url:
        os.environ[DSN_VARIABLE] = database_url
    os.environ[LISTEN_VARIABLE] = ""  # the environment's goes with its own database
    where = "the given database" if database_url else "an embedded PostgreSQL"
    click.echo(f"{len(planned):,} files below {root}: one job each, on {where}, in the schema {schema}")
    if not asyncio.run(_demo(root, planned, schema, timedelta(seconds=lease))):
        raise click.exceptions.Exit(1)


async def _demo(root: Path, planned: Sequence[Planned], schema: str, lease: timedelta) -> bool:
    """Run the demo and print the verdict. Cleans up after success and after Ctrl-C; else says what was kept."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    folder = Path(tempfile.mkdtemp(prefix="piecework-demo-"))
    keep = False
    async with opened(None, schema, migrate=True) as database:
        try:
            evidence = await _course(database.store, root, planned, folder, lease)
            findings = check(evidence)
            keep = not all(finding.holds for finding in findings)
            _print(evidence, findings)
        except asyncio.CancelledError:
            click.echo("Interrupted: the workers are stopped, what the demo made is removed")
            raise
        except Exception:
            keep = True
            raise
        finally:
            if keep:
                click.echo(f"Kept for a look: the schema {schema}, and in {folder} the ledger and the workers' logs")
            else:
                await drop_schema(database.store)
                shutil.rmtree(folder, ignore_errors=True)
    return not keep


async def _course(store: Store, root: Path, planned: Sequence[Planned], folder: Path, lease: timedelta) -> Evidence:
    from piecework.cli.demo.run import Course
    from piecework.cli.demo.work import jobs

    async with jobs:
        with display() as shown:
            return await Course(store, root, planned, folder, lease, shown).run()


def _print(evidence: Evidence, findings: Sequence[Finding]) -> None:
    measures = [row.result for row in evidence.rows if row.result is not None]
    kinds = Counter(measure.kind for measure in measures)
    lines, words = Counter[str](), Counter[str]()
    for measure in measures:
        lines[measure.kind] += measure.lines
        words[measure.kind] += measure.words
    click.echo("\nWhat the jobs counted:\n")
    columns = [Column("kind"), Column("files", right=True), Column("lines", right=True), Column("words", right=True)]
    rows = [
        [quiet_text(kind), f"{count:,}", f"{lines[kind]:,}", f"{words[kind]:,}"]
        for kind, count in kinds.most_common(_KINDS_SHOWN)
    ]
    rest = len(measures) - sum(count for _, count in kinds.most_common(_KINDS_SHOWN))
    shown = {kind for kind, _ in kinds.most_common(_KINDS_SHOWN)}
    if rest:
        others = [sum(count for kind, count in counter.items() if kind not in shown) for counter in (lines, words)]
        rows.append(["others", f"{rest:,}", *(f"{count:,}" for count in others)])
    print_table(columns, rows)
    click.echo("\nThe database, the ledger of the runs and a fresh count of the files, held against each other:\n")
    for finding in findings:
        verdict = click.style("ok    ", "green") if finding.holds else click.style("FAILED", "red")
        click.echo(f"  {verdict}  {finding.name}")
        click.echo(f"          {finding.figures}")
    failed = sum(not finding.holds for finding in findings)
    click.echo(f"\n{failed} of {len(findings)} checks FAILED" if failed else f"\nAll {len(findings)} checks hold.")
