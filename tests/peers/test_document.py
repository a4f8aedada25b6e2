"""What the document says, made of the figures: the goals, the summary, and of which run they are."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from bench import document, goals, summary
from bench.goals import Files, Goal
from bench.own import Plan
from bench.peers.report import Result
from bench.peers.run import Outcome
from bench.recovery import Plan as RecoveryPlan
from bench.recovery import Result as Recovered
from bench.report import Result as Own

MACHINE = {
    "date": "2026-01-01", "cores": 2, "processor": "a processor", "piecework": "1", "postgresql": "18",
    "python": "3.11", "psycopg": "3", "load": 0.1, "load_after": 0.2,
}  # fmt: skip
NAMES = ("summary", "goals", "peers", "bench", "growth", "recovery")
MARKERS = "".join(f"<!-- {name}: begin -->\nold\n<!-- {name}: end -->\n" for name in NAMES)


def outcome(drain: float, steady: float, history: str = "all of it") -> Outcome:
    figures = {"drain 1": drain, "steady": steady}
    return Outcome(
        version="1", setting="as it comes", history=history, jobs=100, failures=[],
        figures={shape: [{"jobs_per_s": rate}] for shape, rate in figures.items()},
    )  # fmt: skip


def compared(run: str, **peers: tuple[float, float]) -> Result:
    outcomes = {"piecework": outcome(1000, 500)} | {name: outcome(*rates) for name, rates in peers.items()}
    return {"run": run, "machine": MACHINE, "plan": {"rounds": 1}, "outcomes": outcomes, "missing": {}}


def own(run: str) -> Own:
    return {"run": run, "machine": MACHINE, "plan": asdict(Plan(rounds=1)), "figures": {}}


def test_the_summary_names_who_is_slower_and_who_is_faster() -> None:
    text = summary.summary(Files(compared=compared("a", Oban=(50, 50), River=(1020, 1000), Absurd=(1250, 505))), [])
    assert "**1,000 no-op jobs a second** that were waiting, and 500 a second" in text
    assert "Draining, one process, it is faster than Oban (20 ×)." in text
    assert "Draining, one process, it is about as fast as River." in text
    assert "Draining, one process, **it is slower than Absurd (0.80 ×)**." in text
    assert "In the steady state, **it is slower than River (0.50 ×)**." in text


def test_the_summary_says_who_keeps_no_history() -> None:
    found = compared("a")
    outcomes = {**found["outcomes"], "Graphile Worker": outcome(2000, 1000, "none")}
    text = summary.summary(Files(compared={**found, "outcomes": outcomes}), [])
    assert "**it is slower than Graphile Worker (0.50 ×, which keeps no history)**" in text


def test_the_summary_counts_the_goals_that_were_measured() -> None:
    found = [Goal("a", True, 1, [2]), Goal("b", False, 1, [2]), Goal("c", False, 3, [2]), Goal("d", True, 1, [])]
    text = summary.summary(Files(), found)
    assert "Of the 3 goals of the design that were measured, 2 are reached and 1 missed" in text


def test_figures_of_several_runs_are_said_to_be_so() -> None:
    same = summary.origin(Files(own("2026-01-01 10:00"), compared("2026-01-01 10:00")))
    assert same.startswith("All figures are of one run of `make bench`, begun 2026-01-01 10:00 (UTC).")
    assert same.endswith("Not measured yet: under stress, as work grows, after a fault.")
    several = summary.origin(Files(own("2026-01-01 10:00"), compared("2026-01-02 10:00")))
    assert several.startswith("The figures are of several runs: beside the bare loop, 2026-01-01 10:00; beside")


def test_every_goal_has_a_line_also_where_nothing_was_measured() -> None:
    lines = [goal.line() for goal in goals.goals(Files())]
    assert len(lines) == len({what for what, *_ in lines})
    assert {verdict for *_, verdict in lines} == {""}
    reliability = [line for line in lines if any("reliability.md" in cell for cell in line)]
    assert [bound for _, bound, *_ in reliability] == ["≤ 30", "≤ 5", "≤ 5"]


def test_a_goal_of_a_stress_shape_is_held_against_what_piecework_showed_in_it() -> None:
    rounds = [{"factor": 0.95}, {"factor": 0.85}, {"factor": 0.91}]
    outcomes = {"piecework": {"figures": rounds, "failure": None}}
    found = {"title": "1,000,000 jobs pending", "outcomes": outcomes}
    lines = {goal.what: goal.line() for goal in goals.goals(Files(stress={"shapes": {"pending": found}}))}
    assert lines["1,000,000 jobs pending: times the plain run"][1:] == ("≥ 0.9", "0.91 (0.85–0.95)", "reached")
    assert lines["100,000 jobs not yet due: times the plain run"][2] == "not measured"


def test_how_long_work_stood_still_is_held_against_its_goal() -> None:
    found: Recovered = {
        "machine": dict(MACHINE), "plan": asdict(RecoveryPlan()), "failures": [],
        "figures": {"killed": [{"seconds": 23.0, "held": 127.0}, {}], "crashed": [{"seconds": 7.0}]},
    }  # fmt: skip
    lines = {goal.what.partition(":")[0]: goal.line() for goal in goals.goals(Files(recovery=found))}
    assert lines["a worker killed with SIGKILL"][1:] == ("≤ 30", "23.0", "reached")
    assert lines["PostgreSQL crashed"][1:] == ("≤ 5", "7.0", "**missed**")


def test_the_document_is_written_from_the_files_that_are_there(tmp_path: Path) -> None:
    text = document.render(MARKERS, Files(own("a"), compared("a")))
    assert text.count("old") == 2, "what growth and recovery wrote before stays"
    assert "| **piecework** |" in text
    assert text.index("summary: begin") < text.index("no-op jobs a second") < text.index("summary: end")


def test_committed_figures_make_the_committed_document() -> None:
    text = document.DOCUMENT.read_text()
    assert document.render(text, document.read(document.RESULTS)) == text
