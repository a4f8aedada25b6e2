"""How a comparison goes through its rounds: who comes when, what a failure does, and what a history has to say."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import cast

import pytest

from bench.peers import measure, run
from bench.peers.contestants import CONTESTANTS, Contestant
from bench.server import Server
from bench.shapes import Figures

NOBODY = cast("Server", None)
OURS, OTHER = CONTESTANTS[0], CONTESTANTS[2]


def test_nobody_comes_first_or_after_the_same_one_in_two_rounds() -> None:
    names = [each.name for each in CONTESTANTS]
    orders = [run.in_turn(names, turn, 3) for turn in range(3)]
    assert all(sorted(order) == sorted(names) for order in orders)
    assert len({order[0] for order in orders}) == 3
    pairs = Counter(pair for order in orders[:2] for pair in pairwise(order))
    assert max(pairs.values()) == 1


def test_everybody_comes_first_once_where_there_are_as_many_rounds_as_contestants() -> None:
    assert [run.in_turn("abcd", turn, 4)[0] for turn in range(4)] == list("abcd")


@pytest.mark.parametrize("error", [measure.MeasureError("time was up"), ZeroDivisionError("division by zero")])
def test_a_measurement_that_fails_is_told_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def drain(_: measure.Ring, who: Contestant) -> Figures:
        if who.name == OTHER.name:
            raise error
        return {"jobs_per_s": 1.0}

    def enter(_: measure.Ring, who: Contestant) -> str:
        return "1"

    kept: list[int] = []
    monkeypatch.setattr(run, "build", lambda *_, **__: {})
    monkeypatch.setattr(run, "shapes", lambda _: [run.Shape("drain 1", drain)])
    monkeypatch.setattr(measure.Ring, "enter", enter)
    comparison = run.Comparison(
        NOBODY, run.Plan(rounds=2), [OURS.name, OTHER.name], keep=lambda: kept.append(len(kept))
    )
    comparison.measure()
    assert comparison.outcomes[OURS.name]["figures"]["drain 1"] == [{"jobs_per_s": 1.0}] * 2
    assert comparison.outcomes[OTHER.name]["figures"]["drain 1"] == [None, None]
    assert [text.partition(",")[0] for text in comparison.outcomes[OTHER.name]["failures"]] == ["round 1", "round 2"]
    assert str(error) in comparison.outcomes[OTHER.name]["failures"][0]
    assert len(kept) == 4, "the figures were given away after each measurement"


@pytest.mark.parametrize(
    ("history", "refused"),
    [("SELECT 3, 3", False), ("SELECT 4, 3", True), ("SELECT 3, 2", True), ("SELECT 2, 2", True), (None, False)],
)
def test_the_history_of_a_queue_of_ours_must_have_each_job_once(dsn: str, history: str | None, refused: bool) -> None:
    ring = measure.Ring(NOBODY)
    try:
        ring._info[OURS.name] = {"left": "SELECT false", "finished": history}
        if refused:
            with pytest.raises(measure.HistoryError, match="3 jobs were spawned"):
                ring.check(OURS, dsn, 3)
        else:
            ring.check(OURS, dsn, 3)
    finally:
        ring.close()
