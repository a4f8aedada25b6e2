"""The command `piecework`: its commands by name, and what their errors mean to a shell."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Never, cast

import click

from piecework.base.errors import (
    ConfigurationError,
    DatabaseError,
    EmbeddedError,
    PieceworkError,
    RegistrationError,
    SpawnError,
)
from piecework.base.texts import quiet_text

# In the order of the help. A module is imported when its command is asked for.
_COMMANDS = {
    "demo": "piecework.cli.demo.command",
    "worker": "piecework.cli.worker",
    "migrate": "piecework.cli.migrate",
    "status": "piecework.cli.status",
    "jobs": "piecework.cli.jobs",
    "limits": "piecework.cli.limits",
    "doctor": "piecework.cli.doctor",
    "bench": "piecework.cli.bench.command",
    "chaos": "piecework.cli.chaos.command",
}

_MOST_QUOTED = 1000
"""Characters of a message about a wrong call."""

FAILED, USAGE, DATABASE, INTERRUPTED = 1, 2, 3, 130


class Piecework(click.Group):
    """The group of all commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        command = import_module(module).command
        assert isinstance(command, click.Command)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _quietly():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            with _quietly():
                return super().invoke(ctx)
        except PieceworkError as error:
            if ctx.params["debug"]:
                raise
            click.echo(_quiet(f"Error: {error}"), err=True)
            ctx.exit(exit_code(error))
        except (KeyboardInterrupt, asyncio.CancelledError):
            ctx.exit(INTERRUPTED)


@contextmanager
def _quietly() -> Generator[None]:
    """Let no message about a wrong call drive the terminal: it may quote what the command was called with."""
    try:
        yield
    except click.ClickException as error:
        said = error.format_message()
        text = _quiet(said)
        text = text if len(text) <= _MOST_QUOTED else text[:_MOST_QUOTED] + "…"
        if text == said or not isinstance(error, click.UsageError):
            raise
        raise click.UsageError(text, error.ctx) from None


def _quiet(lines: str) -> str:
    return "\n".join(map(quiet_text, lines.split("\n")))


def exit_code(error: PieceworkError) -> int:
    """Return what a command ends with that was stopped by `error`."""
    match error:
        case DatabaseError() | EmbeddedError():
            return DATABASE
        case ConfigurationError() | RegistrationError() | SpawnError():
            return USAGE
        case _:
            return FAILED


@click.group(
    cls=Piecework,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 it worked; 1 a check failed, or not all was done; 2 the command was called wrongly; "
    "3 the database cannot be reached, refuses, or needs `piecework migrate`; 130 interrupted.",
)
@click.version_option(package_name="piecework", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def command(debug: bool) -> None:
    """Run jobs that are stored in PostgreSQL.

    New here? `piecework demo` shows it at work and needs nothing.

    Which database: --database-url of a command, else the environment's PIECEWORK_DATABASE_URL, else an embedded
    PostgreSQL in .piecework/ of the working directory, which is started when it is needed.
    """


def main() -> Never:
    """Run the command of `sys.argv`, and exit."""
    reconfigure = cast("Callable[..., None] | None", getattr(sys.stdout, "reconfigure", None))
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")  # what the terminal's encoding lacks is no reason to end
    command(prog_name="piecework")
    raise SystemExit(0)
