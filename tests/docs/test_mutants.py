"""The mutations of `make mutants`: that they can be made, so that the table in docs/reliability.md can be made anew."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_what_each_mutation_replaces_is_there_once_and_so_is_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    for mutation in importlib.import_module("mutants").MUTATIONS:
        for name, old, new in mutation.changes:
            assert (ROOT / "src" / "piecework" / name).read_text().count(old) == 1, f"{mutation.name}: {old}"
            assert old != new
        path, _, test = mutation.test.partition("::")
        assert f"def {test.partition('[')[0]}(" in (ROOT / path).read_text(), mutation.test
