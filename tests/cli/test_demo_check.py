"""The demo's verdict on made-up evidence: it must find what a broken engine would leave behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from piecework import new_id
from piecework.cli.demo import ledger
from piecework.cli.demo.check import Evidence, JobRow, check
from piecework.cli.demo.ledger import Run
from piecework.cli.demo.measure import Measure, measure
from piecework.cli.demo.tree import Planned, plan

KILLED, OTHER = 100, 200
KILLED_AT = 1000
PLAIN, FAILING, RESCUED = new_id(), new_id(), new_id()
PATHS = {PLAIN: "plain.py", FAILING: "failing.py", RESCUED: "rescued.py"}


def counted(path: str) -> Measure:
    return Measure(sha256=path, size=1, lines=1, words=1, kind="py")


def good() -> Evidence:
    """Three jobs: one went well, one failed once on purpose, one was cut by the kill and done elsewhere."""
    return Evidence(
        spawned={id: Planned(path, False, int(id == FAILING)) for id, path in PATHS.items()},
        rows=[
            JobRow(PLAIN, "completed", 1, 0, counted("plain.py")),
            JobRow(FAILING, "completed", 2, 1, counted("failing.py")),
            JobRow(RESCUED, "completed", 2, 1, counted("rescued.py")),
        ],
        runs=[
            Run(PLAIN, 1, KILLED, 10, 20, "done"),
            Run(FAILING, 1, OTHER, 10, 20, "failed"),
            Run(FAILING, 2, OTHER, 50, 60, "done"),
            Run(RESCUED, 1, KILLED, 990),
            Run(RESCUED, 2, OTHER, 1500, 1600, "done"),
        ],
        killed_pid=KILLED,
        killed_at=KILLED_AT,
        recount={path: counted(path) for path in PATHS.values()},
    )


def failed(evidence: Evidence) -> set[str]:
    return {finding.name for finding in check(evidence) if not finding.holds}


def with_row(id: UUID, **changes: object) -> Callable[[Evidence], Evidence]:
    def change(evidence: Evidence) -> Evidence:
        rows = [replace(row, **changes) if row.id == id else row for row in evidence.rows]
        return replace(evidence, rows=rows)

    return change


def with_run(*runs: Run, without: tuple[UUID, int] | None = None) -> Callable[[Evidence], Evidence]:
    def change(evidence: Evidence) -> Evidence:
        kept = [run for run in evidence.runs if (run.job_id, run.claim_no) != without]
        return replace(evidence, runs=[*kept, *runs])

    return change


def without_row(evidence: Evidence) -> Evidence:
    return replace(evidence, rows=[row for row in evidence.rows if row.id != PLAIN])


def with_a_stranger(evidence: Evidence) -> Evidence:
    return replace(evidence, rows=[*evidence.rows, JobRow(new_id(), "completed", 1, 0, counted("x"))])


def nobody_killed(evidence: Evidence) -> Evidence:
    return replace(evidence, killed_pid=None)


def changed_tree(evidence: Evidence) -> Evidence:
    return replace(evidence, recount={**evidence.recount, "plain.py": counted("other")})


VIOLATIONS: dict[str, tuple[Callable[[Evidence], Evidence], set[str]]] = {
    "a job without a row": (without_row, {"every job completed", "nothing lost", "rescued", "the results are right"}),
    "a job that nobody spawned": (with_a_stranger, {"every job completed", "nothing lost"}),
    "a job that did not complete": (
        with_row(FAILING, status="errored", result=None),
        {"every job completed", "failures were tried again", "the results are right"},
    ),
    "a job that is still live": (
        with_row(RESCUED, status="running", result=None),
        {"every job completed", "the killed worker's jobs were rescued", "the results are right"},
    ),
    "a completion that no run explains": (with_run(without=(PLAIN, 1)), {"nothing lost"}),
    "two runs at once": (with_run(Run(PLAIN, 2, OTHER, 15, 18, "failed")), {"at once", "failures were tried again"}),
    "a rescue while the killed process still lived": (
        with_run(Run(RESCUED, 2, OTHER, 995, 1600, "done"), without=(RESCUED, 2)),
        {"at once"},
    ),
    "a run that another process left open": (with_run(Run(PLAIN, 0, OTHER, 1)), {"at once"}),
    "two runs under one claim": (with_run(Run(PLAIN, 1, OTHER, 30, 40, "done")), {"a claim of its own"}),
    "a job that was done twice": (with_run(Run(FAILING, 3, OTHER, 70, 80, "done")), {"done twice"}),
    "a kill that cost nothing": (
        with_run(Run(RESCUED, 1, OTHER, 990, 999, "failed"), without=(RESCUED, 1)),
        {"rescued", "failures were tried again"},
    ),
    "no kill": (nobody_killed, {"at once", "rescued"}),
    "a failure on purpose that did not happen": (with_row(FAILING, failures=0), {"failures were tried again"}),
    "a wrong result": (with_row(PLAIN, result=counted("wrong")), {"the results are right"}),
    "no result": (with_row(PLAIN, result=None), {"the results are right"}),
    "a file that is another now": (changed_tree, {"the results are right"}),
}


def test_good_evidence_holds() -> None:
    assert failed(good()) == set()


def test_a_body_whose_end_the_kill_kept_from_the_database_may_run_again() -> None:
    assert failed(with_run(Run(RESCUED, 1, KILLED, 980, 990, "done"), without=(RESCUED, 1))(good())) == set()


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_it_is_found(violation: str) -> None:
    break_it, expected = VIOLATIONS[violation]
    found = failed(break_it(good()))
    assert {next((name for name in found if part in name), part) for part in expected} == found


def test_nothing_spawned_is_not_a_success() -> None:
    evidence = replace(good(), spawned={}, rows=[], runs=[], recount={})
    assert "every job completed" in failed(evidence)


def test_the_ledger_pairs_starts_with_ends(tmp_path: Path) -> None:
    file = tmp_path / "ledger"
    lines = [f"start {PLAIN} 1 7 10 -", f"start {RESCUED} 1 8 11 -", f"end {PLAIN} 1 7 12 failed",
             f"start {PLAIN} 2 8 20 -", f"end {PLAIN} 2 8 21 done"]  # fmt: skip
    file.write_text("\n".join(lines) + "\n")
    assert ledger.read(file) == [
        Run(PLAIN, 1, 7, 10, 12, "failed"), Run(RESCUED, 1, 8, 11), Run(PLAIN, 2, 8, 20, 21, "done"),
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["end {id} 1 7 12 done", "start {id} 1 7", "start {id} 1 7 10 - start", "x"])
def test_a_line_that_no_run_writes_is_an_error(tmp_path: Path, line: str) -> None:
    (tmp_path / "ledger").write_text(line.format(id=PLAIN) + "\n")
    with pytest.raises(ValueError, match="line 1 of the ledger"):
        ledger.read(tmp_path / "ledger")


def test_the_plan_leaves_out_what_is_no_input(tmp_path: Path) -> None:
    for name in ("b.py", "a.txt", "sub/c.py", "__pycache__/b.pyc", ".piecework/log", "home/data"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "link.py").symlink_to(tmp_path / "b.py")
    (tmp_path / "large").write_bytes(b"x" * 100_000)
    planned = plan(tmp_path, tmp_path / "home")
    assert [each.path for each in planned] == ["a.txt", "b.py", "large", "sub/c.py"]
    assert [each.path for each in planned if each.large] == ["large"]
    assert sum(each.failures for each in planned) >= 1
    assert plan(tmp_path, tmp_path / "home") == planned


def test_a_file_is_counted_by_what_it_holds(tmp_path: Path) -> None:
    def counts(name: str, content: bytes) -> tuple[int, int, int, str]:
        (tmp_path / name).write_bytes(content)
        found = measure(tmp_path / name)
        return found.size, found.lines, found.words, found.kind

    assert counts("a.py", b"one two\nthree") == (13, 2, 3, "py")
    assert counts("README", b"one\n") == (4, 1, 1, "text")
    assert counts("empty", b"") == (0, 0, 0, "empty")
    assert counts("b.bin", b"\0\n\n") == (3, 0, 0, "binary")
