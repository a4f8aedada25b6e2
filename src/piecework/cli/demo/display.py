"""How the demo shows what happens: live on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import click

from piecework.model.snapshot import JobStatus

if TYPE_CHECKING:
    from rich.console import RenderableType

_LINE_EVERY = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the demo stands."""

    elapsed: float
    """Seconds since the first spawn."""
    planned: int
    counts: Mapping[JobStatus, int]
    rate: float
    """Jobs completed per second, lately."""
    retries: int
    rescued: int
    workers: Mapping[str, str]
    """What each does, by its name."""


class Display(Protocol):
    """What the demo shows its progress on."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def show(self, progress: Progress) -> None:
        """Show how far it is; called several times a second."""
        ...

    def say(self, text: str) -> None:
        """Say what happened."""
        ...


def display() -> Display:
    """Return what suits where the output goes."""
    if sys.stdout.isatty():
        try:
            return LiveDisplay()
        except ImportError:
            pass
    return PlainDisplay()


class PlainDisplay:
    """A line a second."""

    def __init__(self) -> None:
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, progress: Progress) -> None:
        if progress.elapsed < self._next:
            return
        self._next = progress.elapsed + _LINE_EVERY
        counts = ", ".join(f"{count} {status}" for status, count in progress.counts.items())
        click.echo(
            f"{progress.elapsed:5.1f} s  {counts}; {progress.rate:.0f} jobs/s; {progress.retries} retries, "
            f"{progress.rescued} rescued"
        )

    def say(self, text: str) -> None:
        click.echo(text)


class LiveDisplay:
    """A picture that is drawn anew, by rich; what is said scrolls by above it.

    Raises:
        ImportError: rich is not installed.
    """

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(refresh_per_second=10)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, progress: Progress) -> None:
        self._live.update(_picture(progress))

    def say(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)


_COLOURS = {"pending": "yellow", "running": "cyan", "completed": "green", "errored": "red", "cancelled": "magenta"}


def _picture(progress: Progress) -> RenderableType:
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    numbers = Table.grid(padding=(0, 2))
    figures: dict[str, str] = {status: f"{count:,}" for status, count in progress.counts.items()}
    figures |= {
        "jobs/s": f"{progress.rate:,.0f}",
        "retries": f"{progress.retries:,}",
        "rescued": f"{progress.rescued:,}",
    }
    for _ in figures:
        numbers.add_column(justify="right")
    numbers.add_row(*(Text(name, style="dim") for name in figures))
    numbers.add_row(*(Text(text, style=f"bold {_COLOURS.get(name, '')}".strip()) for name, text in figures.items()))
    workers = Table.grid(padding=(0, 2))
    for name, state in progress.workers.items():
        workers.add_row(Text(name), Text(state, style="bold red" if state.startswith("killed") else ""))
    bar = ProgressBar(total=progress.planned, completed=progress.counts["completed"])
    return Panel(Group(bar, "", numbers, "", workers), title=f"{progress.elapsed:.0f} s", title_align="right")
