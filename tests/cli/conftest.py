from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.command_line import CommandLine


@pytest.fixture
def piecework(dsn: str, tmp_path: Path) -> Iterator[CommandLine]:
    """The command line on a migrated database of the test's own."""
    command_line = CommandLine(dsn, tmp_path)
    yield command_line
    command_line.kill_all()


@pytest.fixture
def on_empty_database(empty_dsn: str, tmp_path: Path) -> Iterator[CommandLine]:
    """The command line on a database that has never seen piecework."""
    command_line = CommandLine(empty_dsn, tmp_path)
    yield command_line
    command_line.kill_all()
