"""`piecework migrate`."""

from __future__ import annotations

import asyncio

import click

from piecework.base.errors import MigrationsNeeded
from piecework.cli.database import database_options, opened


@click.command("migrate", short_help="Create the tables, or bring them up to date.")
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 when a migration is needed.")
@database_options
def command(check: bool, database_url: str | None, schema: str) -> None:
    """Create piecework's tables, or bring them up to date.

    Running it again does nothing, and several at once are safe. `Jobs` does the same when it is opened, unless told
    not to.

    Example: piecework migrate --database-url postgresql://app@db.example.org/app
    """
    try:
        applied = asyncio.run(_migrate(database_url, schema, migrate=not check))
    except MigrationsNeeded as error:
        if not check:
            raise
        click.echo(str(error))
        raise click.exceptions.Exit(1) from error
    for name in applied:
        click.echo(f"applied {name}")
    click.echo(f"schema {schema!r} is up to date")


async def _migrate(database_url: str | None, schema: str, *, migrate: bool) -> tuple[str, ...]:
    async with opened(database_url, schema, migrate=migrate) as database:
        return database.applied
