"""What the bench says of the stress shapes: one that fails, one that others cannot meet, and what is left of a rate."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from bench.peers.contestants import Contestant
from bench.peers.process import MeasureError
from bench.place import own_server
from bench.server import Reading
from bench.shapes import Figures
from bench.stress import plots, report, rounds
from bench.stress.contestants import CONTESTED, NOT_HERE
from bench.stress.measure import OURS, Mark, Run, end, tenths
from bench.stress.rounds import Plan, Stage, beside_plain
from bench.stress.run import Found, Outcome, Stress
from bench.stress.shapes import SHAPES, Shape
from bench.stress.tables import TABLES, Filling, fill, text_of

SMALL = Plan(rounds=1, scale=0.001)
PENDING = SHAPES[0]


def outcome(*factors: float, failure: str | None = None, **more: float) -> Outcome:
    figures: list[Figures] = [{"factor": each, "jobs_per_s": 100.0, **more} for each in factors]
    return Outcome(figures=figures, failure=failure)


def found(left_out: dict[str, str] | None = None, **outcomes: Outcome) -> Found:
    return Found(
        title="a deep backlog", date="2026-01-01", load=0.5, seconds=1, scale=1, outcomes=outcomes,
        left_out=left_out or {},
    )  # fmt: skip


def result(**shapes: Found) -> report.Result:
    machine = {"date": "2026-01-01", "piecework": "1", "postgresql": "18", "cores": 2, "processor": "one"}
    plan = {"rounds": 3, "peer_rounds": 1, "seconds": 120}
    return {"machine": machine, "plan": plan, "shapes": shapes, "missing": {}}


def a_run(counts: list[int], seconds: float = 0.1) -> Run:
    """A run of which so many had run at each tenth of a second."""
    samples = [(10 + number * seconds, count) for number, count in enumerate(counts)]
    marks = [Mark(clock, count, Reading(0, 0, count * 1e-5), count * 2e-5) for clock, count in samples]
    return Run(marks[0], marks[-1], samples, [(mark.count, mark.counters.cpu) for mark in marks], False)


def test_a_goal_is_held_against_the_median_of_the_rounds() -> None:
    assert "≥ 0.9: reached" in report.ours(result(pending=found(piecework=outcome(0.95, 0.85, 0.91))))
    assert "≥ 0.9: **missed**" in report.ours(result(pending=found(piecework=outcome(0.95, 0.85, 0.8))))


def test_a_shape_that_failed_is_named_with_the_reason_and_reaches_no_goal() -> None:
    text = report.render(result(pending=found(piecework=outcome(failure="no job had run"))))
    assert "**failed**" in text
    assert "- piecework, a deep backlog: **failed**: no job had run" in text
    assert "reached" not in text
    after_a_round = report.ours(result(pending=found(piecework=outcome(0.95, failure="it ended"))))
    assert "≥ 0.9: reached; **failed in a round**" in after_a_round


def test_who_cannot_meet_a_shape_is_named_with_the_reason() -> None:
    shape = found({"Graphile Worker": "cannot: it keeps no history"}, piecework=outcome(0.95), Chancy=outcome(0.5))
    shown = result(finished=shape)
    assert "- cannot: it keeps no history: a deep backlog (Graphile Worker)" in report.remarks(shown)
    assert "0.50 (100/s)" in report.beside(shown)


def test_every_contestant_that_can_be_filled_meets_a_shape_or_has_a_reason_not_to() -> None:
    assert {who.name for who in CONTESTED} == set(TABLES)
    assert not set(NOT_HERE) & set(TABLES)
    for shape in SHAPES:
        for who in CONTESTED:
            reason = shape.left_out(who)
            assert reason is None or (who.name != OURS and ":" in reason)
        assert shape.title.count("{}") == len(shape.counts)


def test_one_shape_is_put_among_those_that_were_measured_before(tmp_path: Path) -> None:
    path = tmp_path / "stress.json"
    path.write_text(json.dumps(result(pending=found(piecework=outcome(0.9)), paced=found(piecework=outcome(1.0)))))
    again = result(paced=found(piecework=outcome(0.7)))
    report.merge({**again, "plan": {**again["plan"], "seconds": 600}}, path)
    kept = json.loads(path.read_text())
    assert kept["plan"]["seconds"] == 600
    factors = [kept["shapes"][name]["outcomes"]["piecework"]["figures"][0]["factor"] for name in ("pending", "paced")]
    assert factors == [0.9, 0.7]


def test_the_last_tenth_is_held_against_the_first() -> None:
    steady, slower = [0, 100, 200, 800, 900, 1000], [0, 100, 200, 800, 900, 950, 1000]
    assert tenths(a_run(steady))["factor"] == pytest.approx(1)
    figures = tenths(a_run(slower))
    assert figures["factor"] == pytest.approx(0.5)
    assert figures["server_cpu_us"] == pytest.approx(10)


def test_the_plot_shows_what_is_left_of_each_rate(tmp_path: Path) -> None:
    shapes = result(pending=found(piecework=outcome(0.9, 1.0), Chancy=outcome(0.2)))
    text = plots.draw(shapes, tmp_path / "plots").read_text()
    assert "a deep backlog" in text
    assert "Chancy" in text


def test_history_that_does_not_fit_the_disk_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "SPARE", 1e18)
    piecework = CONTESTED[0]
    with pytest.raises(MeasureError, match="1,000 finished jobs want"), rounds.history(1_000_000, 1)(
        Stage(None, SMALL), piecework, ""  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ):  # fmt: skip
        pass


def test_a_text_of_a_payload_does_not_compress() -> None:
    assert len(set(text_of(1_000))) > 50
    assert abs(len(json.dumps({"number": 0, "text": text_of(1_000), "sent": None})) - 1_000) < 50


def _broken(stage: Stage, who: Contestant) -> Iterator[Figures]:
    yield {"factor": 0.5}
    raise psycopg.OperationalError("the disk is full\nand so on")


def _doubled(stage: Stage, who: Contestant) -> Iterator[Figures]:
    """A history with a job that nobody ran."""
    with stage.ring.database(who, "stress") as dsn:
        stage.ring.tallies.clear()
        fill(who.name, dsn, 1, Filling(keys=1))
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(
                "INSERT INTO piecework.finished_jobs (id, run_at, created_at, finished_at, claim_no, attempt, "
                "failures, crashes, priority, status, queue, job_type) "
                "SELECT id, run_at, created_at, clock_timestamp(), 1, 1, 0, 0, 0, 'completed', queue, job_type "
                "FROM piecework.jobs"
            )
        end(stage.ring, who, dsn, [], "-infinity")
    yield {}


def _plain(stage: Stage, who: Contestant) -> Iterator[Figures]:
    return beside_plain(stage, who, filling=Filling(keys=1_000), count=1_000)


@pytest.mark.timeout(300)  # a server of its own, and four worker processes one after the other
def test_a_shape_that_fails_is_reported_and_the_others_go_on() -> None:
    kept: list[float] = []
    stress = Stress(own_server, SMALL, [OURS])
    shapes = [
        Shape(name="broken", title="broken", measure=_broken),
        Shape(name="doubled", title="doubled", measure=_doubled),
        Shape(name="plain", title="{} keys", measure=_plain, counts=(1_000_000,)),
    ]
    stress.measure(shapes, lambda: kept.append(time.monotonic()))
    assert len(kept) == len(shapes), "what was found is kept after each shape"
    broken, doubled, plain = (stress.shapes[shape.name] for shape in shapes)
    assert broken["outcomes"][OURS]["figures"] == [{"factor": 0.5}]
    assert broken["outcomes"][OURS]["failure"] == "OperationalError: the disk is full and so on"
    assert "0 jobs ran, the history has 1 rows of 1 different ones" in str(doubled["outcomes"][OURS]["failure"])
    assert plain["title"] == "1,000 keys"
    assert plain["outcomes"][OURS]["failure"] is None
    [figures] = plain["outcomes"][OURS]["figures"]
    assert figures["factor"]
