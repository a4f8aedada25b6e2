"""`piecework migrate`."""

from __future__ import annotations

import asyncio
from typing import TypedDict

import click

from piecework.base.errors import MigrationsNeeded
from piecework.cli.database import database_options, named_dsn, opened
from piecework.cli.output import json_option, print_json
from piecework.store import migrating
from piecework.store.dsn import complete_dsn
from piecework.store.examination import Examination
from piecework.store.migrating import SchemaState
from piecework.store.statements import Statements


class Report(TypedDict):
    schema: str
    version: int
    target: int
    up_to_date: bool
    pending: list[str]
    applied: list[str]


@click.command("migrate", short_help="Create the tables, or bring them up to date.")
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 when a migration is needed.")
@click.option("--sql", is_flag=True, help="Print the SQL instead of running it; asks no database.")
@click.option("--pending", is_flag=True, help="With --sql: print only what the database lacks, which is asked for it.")
@json_option
@database_options
def command(check: bool, sql: bool, pending: bool, as_json: bool, database_url: str | None, schema: str) -> None:
    """Create piecework's tables, or bring them up to date.

    Running it again does nothing, and several at once are safe. `Jobs` does the same when it is opened, unless told
    not to.

    --sql prints one transaction, which makes a new schema or brings an older one up to date, and which may be run
    again: piecework migrate --sql | psql -v ON_ERROR_STOP=1 app

    \b
    Keys of --json:
      schema, version, target   the version that it is at, and that this release needs
      up_to_date                whether nothing is to be done (any more)
      pending, applied          names of migrations and functions: still lacking; applied by this run

    Example: piecework migrate --database-url postgresql://app@db.example.org/app
    """
    if (sql and (check or as_json)) or (pending and not sql):
        raise click.UsageError("--sql goes with --pending alone, and --pending with --sql alone")
    if sql:
        click.echo(asyncio.run(_printed(database_url, schema)) if pending else _everything(schema), nl=False)
        return
    applied = [] if check else asyncio.run(_migrate(database_url, schema))
    if not (check or as_json):
        for name in applied:
            click.echo(f"applied {name}")
        click.echo(f"schema {schema!r} is up to date")
        return
    state = asyncio.run(_state(database_url, schema))
    why = _why_not(state, schema)
    if as_json:
        lacking = [part.name for part in migrating.pending(state)]
        print_json(
            Report(
                schema=schema, version=state.version, target=migrating.code_version(), up_to_date=not why,
                pending=lacking, applied=applied,
            )
        )  # fmt: skip
    else:
        click.echo(why or f"schema {schema!r} is up to date")
    if why:
        raise click.exceptions.Exit(1)


async def _migrate(database_url: str | None, schema: str) -> list[str]:
    async with opened(database_url, schema, migrate=True) as database:
        return list(database.applied)


async def _state(database_url: str | None, schema: str) -> SchemaState:
    async with named_dsn(database_url) as dsn, Examination.of(complete_dsn(dsn), Statements(schema)) as examination:
        return await examination.schema()


def _why_not(state: SchemaState, schema: str) -> str:
    """Say why the schema has to be migrated, nothing if it has not.

    Raises:
        SchemaTooNew, DatabaseError: a migration would not help.
    """
    try:
        migrating.check(state, schema)
    except MigrationsNeeded as error:
        return str(error)
    return ""


def _everything(schema: str) -> str:
    return migrating.whole_script(Statements(schema), migrating.everything())


async def _printed(database_url: str | None, schema: str) -> str:
    state = await _state(database_url, schema)
    if not _why_not(state, schema):
        return ""
    return migrating.whole_script(Statements(schema), migrating.pending(state))
