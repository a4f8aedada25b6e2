"""The types of the public surface, judged by both checkers in strict mode: right uses pass, wrong uses do not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RIGHT, WRONG = HERE / "right.py", HERE / "wrong.py"

Lines = dict[int, str]
"""Line number to the first thing that a checker says about it."""


def pyright() -> dict[str, Lines]:
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(HERE)]
    answer: dict[str, Any] = json.loads(run(command))
    assert answer["summary"]["filesAnalyzed"] == 2
    found: dict[str, Lines] = {}
    for each in answer["generalDiagnostics"]:
        if each["severity"] == "error":
            line = each["range"]["start"]["line"] + 1
            found.setdefault(Path(each["file"]).name, {}).setdefault(line, each["message"])
    return found


def mypy() -> dict[str, Lines]:
    command = [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.11", "--config-file", "", "-O", "json"]
    command += ["--cache-dir", str(ROOT / ".mypy_cache" / "typing"), str(RIGHT), str(WRONG)]
    found: dict[str, Lines] = {}
    for text in run(command, MYPYPATH=str(ROOT / "src")).splitlines():
        each = json.loads(text)
        if each["severity"] == "error":
            found.setdefault(Path(each["file"]).name, {}).setdefault(each["line"], each["message"])
    return found


def run(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **environment}
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("checker", [pyright, mypy])
def test_right_uses_pass_and_each_wrong_use_is_rejected(checker: Callable[[], dict[str, Lines]]) -> None:
    found = checker()
    assert found.pop("right.py", {}) == {}
    rejected = found.pop("wrong.py", {})
    assert found == {}
    marked = {number for number, line in enumerate(WRONG.read_text().splitlines(), 1) if re.search(r"# E\b", line)}
    assert len(marked) >= 60
    assert dict.fromkeys(sorted(marked - rejected.keys()), "accepted") == {}
    assert {line: rejected[line] for line in sorted(rejected.keys() - marked)} == {}
