"""How a command is told which database, and how it gets at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import click

from piecework.base.threads import in_thread
from piecework.store.embedded import acquire
from piecework.store.store import Store
from piecework.work.database import DSN_VARIABLE, Database, DatabaseSettings

T = TypeVar("T")
Decorated = TypeVar("Decorated", bound=Callable[..., object])

SCHEMA_VARIABLE = "PIECEWORK_SCHEMA"


def database_url_option(command: Decorated) -> Decorated:
    """Add `--database-url`, passed on as `database_url`."""
    return click.option(
        "--database-url", metavar="DSN", envvar=DSN_VARIABLE, show_envvar=True,
        help="Any libpq URL or key=value string. Without it the embedded PostgreSQL is used.",
    )(command)  # fmt: skip


def database_options(command: Decorated) -> Decorated:
    """Add `--database-url` and `--schema`, passed on as `database_url` and `schema`."""
    schema = click.option(
        "--schema", metavar="NAME", envvar=SCHEMA_VARIABLE, show_envvar=True, default="piecework", show_default=True,
        help="The schema that holds piecework's tables.",
    )  # fmt: skip
    return database_url_option(schema(command))


@asynccontextmanager
async def opened(database_url: str | None, schema: str, *, migrate: bool = False) -> AsyncGenerator[Database]:
    """Open the database, and close it at the end.

    Raises:
        DatabaseError, EmbeddedError, ConfigurationError
    """
    database = await Database.open(
        DatabaseSettings(dsn=database_url or None, schema=schema, migrate=migrate, max_connections=2)
    )
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def named_dsn(database_url: str | None) -> AsyncGenerator[str]:
    """Lend the DSN that was named, else that of the embedded server, without looking at the schema."""
    if database_url:
        yield database_url
        return
    server = await in_thread("embedded-postgres", acquire)
    try:
        yield server.dsn
    finally:
        server.close()


def ask(database_url: str | None, schema: str, question: Callable[[Store], Awaitable[T]]) -> T:
    """Open the database, return what `question` returns, and close it again. Blocking."""

    async def run() -> T:
        async with opened(database_url, schema) as database:
            return await question(database.store)

    return asyncio.run(run())
