"""What commands print: tables where people look, plain text in a pipe, JSON for programs."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

import click
import msgspec

from piecework.base.texts import moment as moment
from piecework.base.texts import quiet_text as quiet_text
from piecework.base.texts import span as span

_UNSEEN = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""Of what JSON does not escape by itself: control characters, and those that turn the direction of text."""
Decorated = TypeVar("Decorated", bound=Callable[..., object])


class Column(NamedTuple):
    """A column of a table."""

    name: str
    right: bool = False
    """Numbers stand at the right."""
    whole: bool = False
    """A narrow terminal cuts other columns, not this one."""


def json_option(command: Decorated) -> Decorated:
    """Add `--json`, passed on as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def print_json(value: object) -> None:
    """Print a value as indented JSON; moments are RFC 3339 texts. What could drive a terminal is an escape in it."""
    text = msgspec.json.encode(value)
    try:
        text = msgspec.json.format(text, indent=2)
    except RecursionError:
        pass  # a config may be nested deeper than can be indented
    click.echo(_UNSEEN.sub(lambda found: f"\\u{ord(found.group()):04x}", text.decode()))


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: drawn by rich on a terminal, else aligned text."""
    if sys.stdout.isatty() and _print_rich(columns, rows):
        return
    widths = [max(len(column.name), *(len(row[at]) for row in rows), 0) for at, column in enumerate(columns)]
    for row in [[column.name.upper() for column in columns], *rows]:
        cells = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def _print_rich(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> bool:
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, column in enumerate(columns):
        table.add_column(
            column.name, justify="right" if column.right else "left", overflow="ellipsis", no_wrap=True,
            min_width=max(len(column.name), *(len(row[at]) for row in rows)) if column.whole and rows else None,
        )  # fmt: skip
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console().print(table)
    return True


_STYLES = {"completed": "green", "errored": "red", "cancelled": "yellow", "running": "cyan"}


def since(value: datetime | None, now: datetime | None = None) -> str:
    """Say how much time has gone by, until the present unless said otherwise."""
    return "-" if value is None else span((now or datetime.now(UTC)) - value)
