"""What tests of hostile input ask again and again."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import psycopg
from click.testing import CliRunner, Result
from psycopg.conninfo import conninfo_to_dict

from hostile.texts import drives_terminal
from piecework.cli import main

MOST = 1500
"""Characters of a message that somebody is to read."""


def refusal(kinds: type[Exception] | tuple[type[Exception], ...], call: Callable[[], object]) -> Exception | None:
    """What a call is refused with; None if it is not."""
    try:
        call()
    except kinds as error:
        return error
    return None


def is_readable(error: BaseException) -> bool:
    """Whether an error says what it has to say in few words, without anything that drives a terminal."""
    text = str(error)
    return 10 < len(text) < MOST and not drives_terminal(text)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """An asyncpg connection, in a transaction that is committed."""
    given = conninfo_to_dict(dsn)
    conn = await asyncpg.connect(
        host=given["host"], port=int(str(given["port"])), user=given["user"], database=given["dbname"]
    )
    try:
        async with conn.transaction():
            yield conn
    finally:
        await conn.close()


def call(*arguments: str, dsn: str = "host=127.0.0.1 port=1") -> Result:
    """Call the command line, with the DSN in the environment; what it says is looked at whatever it is."""
    environment = {"PIECEWORK_DATABASE_URL": os.environ.get("PIECEWORK_DATABASE_URL", dsn)}
    result = CliRunner(env=environment).invoke(main.command, arguments)
    said = f"{list(arguments)}: {result.exit_code} {result.output[-2000:]!r} {result.exception!r}"
    assert result.exception is None or isinstance(result.exception, SystemExit), said
    assert result.exit_code in (0, 1, 2, 3), said
    assert result.exit_code == 0 or result.output.strip(), said
    assert not drives_terminal(result.output), said
    return result


async def told(*arguments: str, dsn: str) -> dict[str, object]:
    """What a reading command says, in JSON; its text is looked at as well."""
    assert (await asyncio.to_thread(call, *arguments, dsn=dsn)).exit_code == 0
    result = await asyncio.to_thread(call, *arguments, "--json", dsn=dsn)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.output)
    assert isinstance(answer, dict)
    return answer


async def sql(dsn: str, statement: str, *params: object) -> list[tuple[object, ...]]:
    """The rows of a statement, in a transaction of its own, in the schema."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute("SET search_path = piecework")
        cursor = await conn.execute(statement, params or None)  # type: ignore[arg-type]
        return await cursor.fetchall() if cursor.description is not None else []
