"""docs/seed.md is whole, and what it names exists: tests, public names, and the reasons it refers to."""

from __future__ import annotations

import ast
import functools
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "seed.md").read_text()
TESTS = ROOT / "tests"

TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
PUBLIC = re.compile(r"`(piecework(?:\.\w+)+)`")
METRICS = {"piecework.queue.latency"}
BEHAVIOURS = 125 + 58


def sections() -> dict[str, str]:
    """The text below each heading of the second level."""
    parts = re.split(r"^## (.+)$", TEXT, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the tables in a text, without their heads."""
    found: list[list[str]] = []
    for table in re.findall(r"^\|.*?\n\|[-|]+\|\n((?:\|.*\n)*)", text, re.MULTILINE):
        found += [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()]
    return found


@functools.cache
def functions_in(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def resolve(name: str) -> object:
    """Import the longest beginning that is a module, and get the rest of it."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            value = getattr(value, part)
        return value
    raise AssertionError(name)


def every_row() -> Iterator[list[str]]:
    for text in sections().values():
        yield from rows(text)


def test_every_test_that_it_names_exists() -> None:
    named = set(TEST.findall(TEXT))
    assert len(named) > 150
    missing = sorted(f"{file}::{name}" for file, name in named if not (TESTS / file).is_file())
    missing += sorted(f"{file}::{name}" for file, name in named if name not in functions_in(file))
    assert missing == []


def test_every_public_name_that_it_gives_resolves() -> None:
    named = set(PUBLIC.findall(TEXT)) - METRICS
    assert len(named) > 80
    for name in sorted(named):
        assert resolve(name) is not None, name


def test_every_row_of_a_table_has_its_cells() -> None:
    widths = {name: {len(row) for row in rows(text)} for name, text in sections().items()}
    assert widths == {"Promises": {5}, "Public items": {4}, "Gaps": {4}, "Behaviours": {2}}


def test_every_promise_is_there_with_a_test_that_bears_its_number() -> None:
    found = {row[0]: row[3] for row in rows(sections()["Promises"])}
    assert list(found) == [f"S{number}" for number in range(1, 37)]
    for promise, cell in found.items():
        names = [name for _, name in TEST.findall(cell)]
        assert names[0].startswith(f"test_{promise.lower()}_"), promise
        assert len(names) > 1, f"{promise}: it is shown once, and held where?"


@pytest.mark.parametrize("file", ["seed/test_promises.py", "seed/test_setup.py", "seed/test_gaps.py"])
def test_every_test_with_a_number_stands_in_the_row_of_that(file: str) -> None:
    of = {row[0]: " ".join(row) for row in every_row() if re.fullmatch(r"[SG]\d+", row[0])}
    for name in functions_in(file):
        number = re.match(r"test_([sg]\d+)_", name)
        if number is not None:
            assert f"{file}::{name}`" in of[number.group(1).upper()], name


def test_every_public_item_says_where_it_is_and_has_a_test() -> None:
    for item, here, test, _ in rows(sections()["Public items"]):
        assert item, "a row without a name"
        assert here, item
        assert TEST.search(test), item


def test_every_gap_is_there_with_a_test() -> None:
    found = {row[0]: row[3] for row in rows(sections()["Gaps"])}
    assert list(found) == [f"G{number}" for number in range(1, 26)]
    assert [gap for gap, cell in found.items() if not TEST.search(cell)] == []


def test_every_behaviour_has_a_test_or_one_of_the_reasons() -> None:
    text = sections()["Behaviours"]
    reasons = set(re.findall(r"^- (\*\*.+?\*\*): ", text, re.MULTILINE))
    used: set[str] = set()
    for name, here in rows(text):
        given = set(re.findall(r"\*\*.+?\*\*", here))
        assert given <= reasons, name
        assert given or TEST.search(here), name
        used |= given
    assert used == reasons


def test_every_group_of_behaviours_has_as_many_as_its_heading_says() -> None:
    groups = re.split(r"^### .*\((\d+)\)$", sections()["Behaviours"], flags=re.MULTILINE)[1:]
    counts = [(int(said), len(rows(text))) for said, text in zip(groups[::2], groups[1::2], strict=True)]
    assert [said for said, _ in counts] == [found for _, found in counts]
    assert sum(found for _, found in counts) == BEHAVIOURS
    names = [row[0] for row in rows(sections()["Behaviours"])]
    assert len(names) == len(set(names))
