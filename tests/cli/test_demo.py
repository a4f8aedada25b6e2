"""`piecework demo` on a small tree, from spawn to verdict."""

from __future__ import annotations

import signal
from pathlib import Path

import psycopg
import pytest
from cli.command_line import CommandLine, Process, until

FILES = 24


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    for n in range(FILES):
        (folder / f"{n}.txt").write_text(f"file {n}\n" * (n + 1))
    (folder / "large.bin").write_bytes(bytes(100_000))
    return folder


def start(piecework: CommandLine, tree: Path) -> Process:
    return piecework.start("demo", str(tree), "--lease", "2")


def schemas(piecework: CommandLine) -> list[str]:
    with psycopg.connect(piecework.dsn) as conn:
        rows = conn.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'piecework\\_demo%'").fetchall()
    return [row[0] for row in rows]


def left_behind(piecework: CommandLine) -> list[Path]:
    return list((piecework.folder / "tmp").iterdir())


def sessions(piecework: CommandLine) -> int:
    """Connections to the test's database besides the one that asks."""
    with psycopg.connect(piecework.dsn) as conn:
        row = conn.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_it_kills_a_worker_and_accounts_for_every_job(piecework: CommandLine, tree: Path) -> None:
    demo = start(piecework, tree)
    assert demo.ends() == 0, demo.said
    said = demo.said
    assert f"{FILES + 1} files below" in said
    assert "was killed by SIGKILL with" in said
    assert "jobs back," in said
    assert f"{FILES + 1} spawned = {FILES + 1} completed" in said
    assert "All 8 checks hold." in said
    assert "\x1b" not in said
    assert schemas(piecework) == []
    assert left_behind(piecework) == []
    until(lambda: sessions(piecework) == 0, "all connections are closed")


def test_a_check_that_does_not_hold_is_told_and_what_is_needed_to_see_why_is_kept(
    piecework: CommandLine, tree: Path
) -> None:
    demo = start(piecework, tree)
    demo.says("was killed by SIGKILL with")
    for file in tree.iterdir():  # half of them were counted before
        with file.open("a") as content:
            content.write("changed\n")
    assert demo.ends() == 1
    assert "FAILED  the results are right" in demo.said
    assert "did the tree change meanwhile?" in demo.said
    (schema,) = schemas(piecework)
    assert f"Kept for a look: the schema {schema}" in demo.said
    (folder,) = left_behind(piecework)
    assert {"ledger.txt", "worker-1.log", "worker-2.log"} == {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(
    piecework: CommandLine, tree: Path, number: signal.Signals
) -> None:
    demo = start(piecework, tree)
    demo.says("was killed by SIGKILL")  # the rescue takes a while: the demo is not about to end
    demo.signal(number)
    assert demo.ends() == 130
    assert "Interrupted" in demo.said
    assert schemas(piecework) == []
    assert left_behind(piecework) == []
    until(lambda: sessions(piecework) == 0, "all connections are closed")


def test_a_worker_that_cannot_start_ends_the_demo_with_its_log(piecework: CommandLine, tree: Path) -> None:
    # Python imports this before everything else, when sys.argv is not there yet.
    (piecework.folder / "sitecustomize.py").write_text(
        "import sys\nif 'piecework.cli.demo.work:jobs' in sys.orig_argv: sys.exit('no worker today')\n"
    )
    piecework.environment["PYTHONPATH"] = str(piecework.folder)
    demo = start(piecework, tree)
    assert demo.ends() == 1
    assert "ended by itself" in demo.said
    assert "no worker today" in demo.said


def test_an_empty_directory_is_a_wrong_call(piecework: CommandLine) -> None:
    (piecework.folder / "empty").mkdir()
    code, said = piecework.run("demo", "empty")
    assert code == 2
    assert "there is no readable file below" in said
