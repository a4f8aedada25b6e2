"""What the bench says of a contestant that is missing, that failed, or that is faster than it may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import goals
from bench.peers import build, contestants, report
from bench.peers.run import Outcome


def outcome(rates: list[float | None], failures: list[str] | None = None) -> Outcome:
    figures = [None if rate is None else {"jobs_per_s": rate, "executed": 100.0} for rate in rates]
    return Outcome(
        version="1", setting="as it comes", history="none", jobs=100, figures={"drain 1": list(figures)},
        failures=failures or [],
    )  # fmt: skip


def result(missing: dict[str, str] | None = None, **outcomes: Outcome) -> report.Result:
    return {"machine": {}, "plan": {"rounds": 3}, "outcomes": outcomes, "missing": missing or {}}


def test_an_environment_that_cannot_be_built_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "HOME", tmp_path)
    monkeypatch.setattr(build, "PINS", {"node": {"npm": {"pg-boss": "1"}}})
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = {"node": "it needs `npm`, which is not on this machine"}
    assert build.build(["node"]) == reason
    assert build.build(["node"], again=False) == reason, "and the next run still knows it"


def test_every_contestant_has_an_environment_and_a_driver() -> None:
    for each in contestants.CONTESTANTS:
        assert each.environment is None or each.environment in build.PINS
        compiled = each.environment is not None and "source" in build.PINS[each.environment]
        assert compiled or (contestants.DRIVERS / each.driver).exists()


def test_a_contestant_that_is_missing_or_failed_is_named() -> None:
    found = result({"River": "it needs `go`"}, **{"pg-boss": outcome([None], ["round 1, drain 1: it ended"])})
    assert report.remarks(found) == [
        "- River did not take part: it needs `go`",
        "- pg-boss, round 1, drain 1: it ended",
    ]


def test_jobs_that_ran_more_than_once_are_told() -> None:
    twice = outcome([5.0])
    twice["jobs"] = 99
    assert report.remarks(result(Chancy=twice)) == ["- Chancy, drain 1: 100 executions of 99 jobs"]


def test_a_goal_is_held_against_the_median_of_the_rounds_in_which_both_sides_came_to_their_end() -> None:
    found = result(piecework=outcome([40.0, 90.0, 50.0]), **{"pg-boss": outcome([20.0, None, 50.0])})
    assert report.ratios(found, "drain 1", "jobs_per_s", "pg-boss") == [2.0, 1.0]
    lines = {goal.what: goal.line() for goal in goals.goals(goals.Files(compared=found))}
    assert lines["drain, one process: times pg-boss"][1:] == ("≥ 2", "1.50 (1.00–2.00)", "**missed**")
    assert lines["drain, one process: times Chancy"][1:] == ("≥ 8", "not measured", "")
