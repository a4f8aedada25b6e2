"""`piecework doctor`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TypedDict, TypeVar

import click
import psycopg

from piecework.base.errors import DatabaseError, PieceworkError
from piecework.cli import diagnosis
from piecework.cli.database import database_options, named_dsn
from piecework.cli.diagnosis import Past, Status, Verdict
from piecework.cli.main import DATABASE, FAILED
from piecework.cli.output import json_option, print_json, quiet_text
from piecework.model.horizon import Sample
from piecework.model.pins import Pin
from piecework.store.dsn import complete_dsn, describe
from piecework.store.examination import Examination, Pooling
from piecework.store.statements import Statements
from piecework.work.database import LISTEN_VARIABLE

T = TypeVar("T")

_DAYS = 3
_WORDS: dict[Status, str] = {"ok": "ok", "warning": "warning", "failed": "FAILED"}
_COLOURS: dict[Status, str] = {"ok": "green", "warning": "yellow", "failed": "red"}
_NAMES, _WIDTH = 14, 80


class CheckReport(TypedDict):
    """What one check found."""

    name: str
    status: Status
    text: str
    advice: str


class Report(TypedDict):
    """What `piecework doctor --json` prints."""

    status: Status
    checks: list[CheckReport]


@click.command("doctor", short_help="Whether the database is fit for work, and what to do if not.")
@json_option
@click.option("--listen-url", metavar="DSN", envvar=LISTEN_VARIABLE, show_envvar=True,
              help="Where workers listen and beat, if a pooler stands before --database-url.")
@database_options
def command(as_json: bool, listen_url: str | None, database_url: str | None, schema: str) -> None:  # fmt: skip
    """Check the database and what lies between here and it. Nothing is changed.

    Each check is one line: ok, warning (it works, for now or with less), or FAILED; below it what to do. Run it with
    the DSN and the role of your workers, from where they run.

    Exit codes: 0 all is ok; 1 there is a warning or a failed check; 2 the DSN or the schema's name is none; 3 the
    database cannot be reached.

    \b
    Checks: connection, version, standby, defaults, connections, autovacuum,
    clock, encoding, schema, permissions, partitions, due_times, pooler,
    listen, horizon.
    Keys of --json:
      status  ok | warning | failed: the worst
      checks  [{name, status: ok | warning | failed, text, advice}]

    Example: piecework doctor --database-url postgresql://app@db.example.org/app
    """
    checks = asyncio.run(_examine(database_url, listen_url or None, schema))
    found = {check["status"] for check in checks}
    worst: Status = "failed" if "failed" in found else "warning" if "warning" in found else "ok"
    if as_json:
        print_json(Report(status=worst, checks=checks))
    else:
        for check in checks:
            _print(check)
    if worst != "ok":
        unreachable = checks[0]["status"] == "failed"
        raise click.exceptions.Exit(DATABASE if unreachable else FAILED)


async def _examine(database_url: str | None, listen_url: str | None, schema: str) -> list[CheckReport]:
    checks: list[CheckReport] = []
    statements = Statements(schema)

    def note(name: str, verdict: Verdict) -> None:
        checks.append(CheckReport(name=name, status=verdict.status, text=verdict.text, advice=verdict.advice))

    async with named_dsn(database_url) as given:
        dsn = complete_dsn(given)
        try:
            async with Examination.of(dsn, statements) as examination:
                note("connection", Verdict("ok", f"connected to {describe(dsn)}"))
                await _check_all(examination, listen_url, schema, note)
        except DatabaseError as error:
            if checks:
                note("connection", Verdict("failed", f"it broke: {error}", "run this again"))
            else:
                note("connection", Verdict("failed", str(error)))
    return checks


async def _check_all(
    examination: Examination, listen_url: str | None, schema: str, note: Callable[[str, Verdict], None]
) -> None:
    """Make all checks that can be made: one that fails keeps none of the others from being made."""

    async def ask(name: str, question: Callable[[], Awaitable[T]], judge: Callable[[T], Verdict]) -> T | None:
        try:
            answer = await question()
        except (PieceworkError, psycopg.Error) as error:
            note(name, Verdict("failed", f"could not be checked: {error}"))
            return None
        note(name, judge(answer))
        return answer

    server = await ask("version", examination.server, diagnosis.version)
    if server is None:
        return
    for name, judge in diagnosis.OF_SERVER.items():
        if name != "version":
            note(name, judge(server))
    state = await ask("schema", examination.schema, lambda state: diagnosis.schema(state, schema))
    if state is None or state.version or not state.readable:
        await ask("permissions", examination.lacking, lambda found: diagnosis.permissions(found, server.role))
    if state is not None and state.version:
        await ask(
            "partitions", lambda: examination.missing_partitions(_DAYS),
            lambda missing: diagnosis.partitions(missing, _DAYS),
        )  # fmt: skip
        await ask("due_times", examination.due_clock, diagnosis.due_times)
    found = await ask("pooler", lambda: _pooling(examination, listen_url), lambda found: diagnosis.pooler(*found))
    if not server.standby:
        await ask("listen", lambda: _hears(examination, found), diagnosis.listen)
    migrated = state is not None and bool(state.version)
    await ask(
        "horizon", lambda: _horizon(examination, migrated), lambda seen: diagnosis.horizon(*seen, server.sees_all)
    )


async def _pooling(examination: Examination, listen_url: str | None) -> tuple[Pooling, Past | None]:
    pooling = await examination.pooling()
    if listen_url is None:
        return pooling, None
    async with Examination.of(complete_dsn(listen_url), examination.statements) as past:
        same = await past.identity() == await examination.identity()
        return pooling, Past(await past.pooling(), same, await past.hears())


async def _hears(examination: Examination, found: tuple[Pooling, Past | None] | None) -> bool | None:
    pooling, past = found or (None, None)
    if past is not None:
        return past.heard
    return None if pooling is not None and pooling.pooler else await examination.hears()


async def _horizon(examination: Examination, migrated: bool) -> tuple[Sequence[Pin], Sample | None]:
    pins = await examination.pins()
    try:
        return pins, await examination.sample_horizon() if migrated else None
    except (PieceworkError, psycopg.Error):
        return pins, None  # what the role lacks is said elsewhere


def _print(check: CheckReport) -> None:
    word = click.style(f"{_WORDS[check['status']]:9}", fg=_COLOURS[check["status"]])
    indent = " " * (9 + _NAMES)
    text = click.wrap_text(quiet_text(check["text"]), _WIDTH, indent, indent).lstrip()
    plain = False if os.environ.get("NO_COLOR") else None
    click.echo(f"{word}{check['name']:{_NAMES}}{text}", color=plain)
    if check["advice"]:
        click.echo(click.wrap_text(quiet_text(check["advice"]), _WIDTH, indent + "→ ", indent + "  "))
