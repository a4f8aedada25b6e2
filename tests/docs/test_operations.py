"""What docs/operations.md says of the program is what the program has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from piecework.cli import diagnosis, doctor
from piecework.cli.stuck import Kind

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "src" / "piecework"
TEXT = (ROOT / "docs" / "operations.md").read_text()
LEVELS = {"log": "WARNING or ERROR", "exception": "ERROR"}
METHODS = ("info", "warning", "error", "critical", "exception", "log")
PLACEHOLDER = re.compile(r"%[-.\d]*[sdrf]")


def logged() -> Iterator[tuple[str, str]]:
    """The lines that the program logs above DEBUG, as the document writes them, and their levels."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log" | "_log"), attr=method), args=args):
                    if method not in METHODS:
                        continue
                    text = args[1 if method == "log" else 0]
                    assert isinstance(text, ast.Constant), f"{path.name}:{node.lineno}: a format that can be read"
                    yield PLACEHOLDER.sub("…", str(text.value)), LEVELS.get(method, method.upper())


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    section = TEXT[TEXT.index(f"## {heading}\n") :]
    table = re.search(r"^\|---.*?\n((?:\|.*\n)+)", section, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.group(1).splitlines()]


def test_every_line_of_the_log_is_in_the_table_and_the_other_way_round() -> None:
    documented = {(line.strip("`"), level) for line, level, _ in rows("The log")}
    assert set(logged()) - documented == set(), "describe these lines in the table of docs/operations.md"
    assert documented - set(logged()) == set(), "nobody logs these lines of docs/operations.md"


def test_every_span_is_in_the_table_and_the_other_way_round() -> None:
    named = {name for row in rows("Traces and logs") for name in re.findall(r"`(.*?)`", row[0])}
    made: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        made.update(re.findall(r'"(job\.[a-z_.]+)"', path.read_text()))
    assert made - named == set(), "describe these spans in docs/operations.md"
    assert named - made == set(), "nobody makes these spans of docs/operations.md"


def test_everything_that_status_calls_stuck_is_explained() -> None:
    assert [row[0].strip("`") for row in rows("Who works, and what is stuck")] == list(get_args(Kind))


def test_every_check_of_the_doctor_is_named() -> None:
    named = {name for row in rows("Whether the database is fit") for name in row[0].split(", ")}
    help_text = doctor.command.help or ""
    listed = re.search(r"Checks: (.*?)\.", help_text, re.DOTALL)
    assert listed is not None
    assert named == {name.strip() for name in listed.group(1).split(",")}
    assert named > set(diagnosis.OF_SERVER)
    assert len(named) == 15
