"""`piecework limits list`, `set`, `pause` and `resume`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import click

from piecework.base.texts import shown
from piecework.cli import parameters
from piecework.cli.database import ask, database_options
from piecework.cli.output import Column, json_option, print_json, print_table, quiet_text
from piecework.store.limiting import (
    ConcurrencyLimit,
    list_concurrency_limits,
    pause_concurrency_key,
    set_concurrency_limit,
)
from piecework.store.store import Store

Decorated = TypeVar("Decorated", bound=Callable[..., object])

_MOST = 2**31 - 1
_DIGITS = 20
"""More, and int() may refuse them."""


def _queue_option(command: Decorated) -> Decorated:
    return click.option(
        "--queue", metavar="NAME", type=parameters.name_or_nothing, default="",
        help="Only of this queue; else of all queues.",
    )(command)  # fmt: skip


@click.group("limits", short_help="How many jobs of a concurrency key may run at once.")
def command() -> None:
    """Limit and pause concurrency keys.

    KEY is a concurrency key, or the beginning of keys with an asterisk, as in 'account:*': the key itself counts first,
    then the longest beginning. What is said here counts before the limits that jobs bring along, and at once: jobs
    that run go on, and what has room now starts.
    """


@command.command("list", short_help="What is said of which keys.")
@json_option
@database_options
def list_command(as_json: bool, database_url: str | None, schema: str) -> None:
    """List what is said of concurrency keys.

    \b
    Keys of --json:
      limits  [{key, queue, limit, paused}]; queue "": of all queues; limit
              null: it is only paused

    Example: piecework limits list
    """
    _print(ask(database_url, schema, list_concurrency_limits), as_json)


@command.command("set", short_help="Let so many jobs of a key run at once.")
@click.argument("key", type=parameters.name)
@click.argument("limit", metavar="N", type=click.UNPROCESSED)
@_queue_option
@json_option
@database_options
def set_command(key: str, limit: str, queue: str, as_json: bool, database_url: str | None, schema: str) -> None:
    """Let at most N jobs of a key run at once; `-` takes the word back, so that the jobs' own limits count.

    Prints what `piecework limits list` prints.

    Example: piecework limits set 'account:*' 4
    """
    if limit != "-" and not (limit.isascii() and limit.isdecimal() and len(limit) <= _DIGITS and int(limit) <= _MOST):
        raise click.BadParameter(f"{shown(limit, 40)} is no number from 0 to {_MOST}, and not -", param_hint="N")
    number = None if limit == "-" else int(limit)
    _change(database_url, schema, as_json, lambda store: set_concurrency_limit(store, key, number, queue))


@command.command("pause", short_help="Start no job of a key.")
@click.argument("key", type=parameters.name)
@_queue_option
@json_option
@database_options
def pause_command(key: str, queue: str, as_json: bool, database_url: str | None, schema: str) -> None:
    """Start no job of a key from now on; those that run go on. A limit that was set stays.

    Prints what `piecework limits list` prints.

    Example: piecework limits pause account:7 --queue mail
    """
    _change(database_url, schema, as_json, lambda store: pause_concurrency_key(store, key, queue, paused=True))


@command.command("resume", short_help="Start jobs of a key again.")
@click.argument("key", type=parameters.name)
@_queue_option
@json_option
@database_options
def resume_command(key: str, queue: str, as_json: bool, database_url: str | None, schema: str) -> None:
    """Start jobs of a key again that was paused, under the very name and queue under which it was.

    Prints what `piecework limits list` prints.

    Example: piecework limits resume account:7 --queue mail
    """
    _change(database_url, schema, as_json, lambda store: pause_concurrency_key(store, key, queue, paused=False))


def _change(
    database_url: str | None, schema: str, as_json: bool, change: Callable[[Store], Awaitable[None]]
) -> None:  # fmt: skip
    async def run(store: Store) -> list[ConcurrencyLimit]:
        await change(store)
        return await list_concurrency_limits(store)

    _print(ask(database_url, schema, run), as_json)


def _print(limits: Sequence[ConcurrencyLimit], as_json: bool) -> None:
    if as_json:
        print_json({"limits": limits})
    elif not limits:
        click.echo("Nothing is said of any concurrency key: the limits that jobs bring along count, else 1.")
    else:
        columns = [Column("concurrency key"), Column("queue"), Column("limit", right=True), Column("paused")]
        print_table(columns, [*map(_row, limits)])


def _row(limit: ConcurrencyLimit) -> list[str]:
    number = "-" if limit.limit is None else str(limit.limit)
    return [quiet_text(limit.key), quiet_text(limit.queue) or "all", number, "yes" if limit.paused else "no"]
