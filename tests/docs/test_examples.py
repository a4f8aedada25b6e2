"""The examples of the documents are run as they are printed.

A document's examples run in its order and in one folder of their own, as a reader would who copies them. A comment line
right above a fenced block says what a reader is told in words:

    <!-- run: first.py -->        the Python below is saved under this name, and run
    <!-- save: shop.py -->        it is saved; a shell example further down uses it
    <!-- prints -->               the text below is what the last example printed
    <!-- not run: why -->         the example below is not run; it is counted in NOT_RUN

Python without a comment is run, and so are shell examples.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUNNABLE = ("python", "py", "sh", "bash", "console", "shell")

# How many examples of a document are not run. It may only shrink.
NOT_RUN = {"README.md": 2, "CONTRIBUTING.md": 1, "docs/guide.md": 3}

BLOCK = re.compile(
    r"^(?:<!-- (?P<verb>run|save|prints|not run)(?:: (?P<detail>[^\n]*?))? -->\n)?"
    r"```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


class Example(NamedTuple):
    verb: str | None
    detail: str | None
    language: str
    text: str


def examples(document: Path) -> list[Example]:
    found = BLOCK.finditer(document.read_text())
    return [Example(*match.group("verb", "detail", "language", "text")) for match in found]


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def surroundings(folder: Path) -> dict[str, str]:
    """What a new shell has, this Python first on the path; and where servers of root leave their data."""
    kept = {name: os.environ[name] for name in ("PIECEWORK_DATA_ROOT",) if name in os.environ}
    return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder)} | kept


def run(command: list[str], folder: Path) -> str:
    """Run it in the folder and return what it printed."""
    # Files, not pipes: the embedded server may outlive what started it.
    with (folder / "stdout.txt").open("w+") as stdout, (folder / "stderr.txt").open("w+") as stderr:
        process = subprocess.Popen(command, cwd=folder, env=surroundings(folder), stdin=subprocess.DEVNULL,
                                   stdout=stdout, stderr=stderr, start_new_session=True)
        try:
            process.wait(timeout=60)
        finally:
            with contextlib.suppress(ProcessLookupError):  # what an example started in the background, if it failed
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        stdout.seek(0)
        stderr.seek(0)
        printed = stdout.read()
        assert process.returncode == 0, f"{command} ended with {process.returncode}\n{printed}\n{stderr.read()}"
    return printed


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_examples_do_what_they_print(document: Path, tmp_path: Path) -> None:
    saved: set[str] = set()
    printed: str | None = None
    for number, example in enumerate(examples(document), 1):
        match example:
            case Example(verb="not run"):
                pass
            case Example(verb="prints", text=text):
                assert printed == text
            case Example(verb="save", detail=str(name), text=text):
                (tmp_path / name).write_text(text)
                saved.add(name)
            case Example(language="python" | "py", detail=name, text=text):
                script = tmp_path / (name or f"example_{number}.py")
                script.write_text(text)
                printed = run([sys.executable, script.name], tmp_path)
            case Example(language="sh" | "bash", text=text):
                saved -= {name for name in saved if re.search(rf"\b{Path(name).stem}\b", text)}
                printed = run(["bash", "-euc", text + "\nwait"], tmp_path)
            case _:
                assert example.language not in RUNNABLE, f"{name_of(document)}: how is this to be run?\n{example.text}"
    assert not saved, f"saved, and used by no example: {saved}"


def test_only_these_examples_are_not_run() -> None:
    counts = {name_of(each): sum(1 for example in examples(each) if example.verb == "not run") for each in DOCUMENTS}
    assert {name: count for name, count in counts.items() if count} == NOT_RUN


def test_every_fenced_block_is_seen() -> None:
    for document in DOCUMENTS:
        fences = re.findall(r"^```", document.read_text(), re.MULTILINE)
        assert len(fences) == 2 * len(examples(document)), name_of(document)


def test_the_first_example_of_the_readme_runs_within_two_seconds_of_a_warm_start(tmp_path: Path) -> None:
    first = next(example for example in examples(ROOT / "README.md") if example.language == "python")
    (tmp_path / "first.py").write_text(first.text)
    run([sys.executable, "first.py"], tmp_path)  # makes the data directory
    times: list[float] = []
    for _ in range(3):  # other tests share the machine: the best of three is the program's own time
        start = time.perf_counter()
        assert run([sys.executable, "first.py"], tmp_path) == "sent to ada@example.org\n"
        times.append(time.perf_counter() - start)
    assert min(times) < 2.0, times


def test_links_between_the_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{name_of(document)} links to {target}"
