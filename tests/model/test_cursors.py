"""Where claims start in a lane whose front is full of what is gone."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from piecework.model.cursors import (
    BACK,
    FIRST_ID,
    OFTEN,
    SELDOM,
    SLOW,
    Cursors,
    Place,
    SlowLane,
    Walk,
    pause_after,
    slowest,
)
from piecework.model.job import ClaimedJob
from piecework.model.lanes import Lane

A, B, C = (Lane("default", name, 0) for name in "abc")
FAST, SLOWLY = Walk(100, 0.001), Walk(1_000_000, 0.14)
HARDLY = Walk(SLOW, 0.1)


def job(run_at: int, id: str = "1") -> ClaimedJob:
    return ClaimedJob(id, 1, "a", "default", 0, run_at, 1, 0, 0, msgspec.Raw(b"{}"))


def slow_since(now: float, run_at: int = 5_000_000) -> Cursors:
    """A lane that has just got its cursor, at (run_at, "1")."""
    cursors = Cursors()
    cursors.claimed([A], None, SLOWLY, [job(run_at)], now, short=False)
    assert A in cursors.of
    return cursors


# which lanes have one


def test_a_lane_that_is_cheap_is_always_claimed_from_the_start() -> None:
    cursors = Cursors()
    for now in range(100):
        assert cursors.after([A], now) is None
        cursors.claimed([A], None, HARDLY, [job(now)], now, short=now % 3 == 0)
    assert not cursors.of
    assert not cursors.apart


def test_a_lane_that_is_slow_has_a_cursor_at_what_was_claimed_last() -> None:
    cursors = slow_since(0.0, run_at=7)
    assert cursors.after([A], 0.01) == Place(7, "1")
    assert set(cursors.apart) == {A}
    assert cursors.after([B], 0.01) is None


def test_where_nothing_was_claimed_there_is_no_place_for_a_cursor() -> None:
    cursors = Cursors()
    cursors.claimed([A], None, SLOWLY, [], 0.0, short=True)
    assert not cursors.of


def test_of_several_lanes_the_slow_one_is_found_by_claiming_from_each_alone() -> None:
    cursors = Cursors()
    cursors.claimed([A, B, C], None, SLOWLY, [job(1)], 0.0, short=False)
    assert not cursors.of
    assert set(cursors.apart) == {A, B, C}
    cursors.claimed([A], None, FAST, [job(1)], 0.1, short=False)
    cursors.claimed([B], None, SLOWLY, [job(1)], 0.1, short=False)
    cursors.claimed([C], None, FAST, [job(1)], 0.1, short=False)
    assert set(cursors.apart) == set(cursors.of) == {B}


@pytest.mark.parametrize("count", [2, 5, 50])
def test_lanes_that_are_slow_together_do_not_go_round_without_one_being_found(count: int) -> None:
    lanes = [Lane("default", str(n), 0) for n in range(count)]
    for passed in range(0, 200_000, 1_000):
        cursors = Cursors()
        cursors.claimed(lanes, None, Walk(passed, 0.1), [job(1)], 0.0, short=False)
        suspected = bool(cursors.apart)
        for lane in lanes:
            cursors.claimed([lane], None, Walk(-(-passed // count), 0.1), [job(1)], 0.0, short=False)
        assert bool(cursors.of) >= suspected


def test_a_lane_loses_its_cursor_when_its_front_is_empty_again() -> None:
    cursors = slow_since(0.0)
    cursors.claimed([A], Place(5_000_000, "1"), FAST, [job(6_000_000)], 1.0, short=False)
    assert A in cursors.of, "that walk does not tell"
    assert cursors.after([A], 100.0) is None
    cursors.claimed([A], None, FAST, [job(6_000_000)], 100.0, short=False)
    assert not cursors.of
    assert not cursors.apart


def test_a_cursor_that_is_not_used_is_forgotten() -> None:
    cursors = slow_since(0.0)
    cursors.forget_unused(60.0)
    assert A in cursors.of
    cursors.forget_unused(100.0)
    assert not cursors.of
    assert not cursors.apart


# where claims start


def test_a_claim_starts_further_back_now_and_then_and_at_the_very_start_at_times() -> None:
    cursors, now, place = slow_since(0.0), 0.0, Place(5_000_000, "1")
    seen: dict[Place | None, list[float]] = {}
    for step in range(1, 1000):
        now = step / 100
        after = cursors.after([A], now)
        took = SLOWLY if after is None else Walk(10_000, 0.02) if after != place else Walk(0, 0.001)
        seen.setdefault(after, []).append(now)
        cursors.claimed([A], after, took, [job(*place)], now, short=False)
    assert seen.keys() == {None, place, Place(place.run_at - BACK, FIRST_ID)}
    assert seen[None] == pytest.approx([2.8, 5.6, 8.4], abs=0.03)
    back = seen[Place(place.run_at - BACK, FIRST_ID)]
    assert back[:3] == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
    assert max(after - before for before, after in pairwise(back)) < 0.9, "one from the very start comes between"
    assert len(seen[place]) > 900


@pytest.mark.parametrize("seconds, pause", [(0.0, OFTEN), (0.001, OFTEN), (0.01, 0.2), (0.14, 2.8), (60.0, SELDOM)])
def test_a_walk_takes_a_twentieth_of_the_time_and_is_not_put_off_for_long(seconds: float, pause: float) -> None:
    assert pause_after(Walk(0, seconds)) == pytest.approx(pause)


def test_a_late_row_is_claimed_within_the_bound_however_slow_the_lane_is() -> None:
    cursors = Cursors()
    cursors.claimed([A], None, Walk(10**9, 1000.0), [job(1)], 0.0, short=False)
    assert cursors.after([A], SELDOM - 0.1) is not None
    assert cursors.after([A], SELDOM) is None


def test_from_the_very_start_the_cursor_goes_on_with_what_was_late() -> None:
    cursors = slow_since(0.0, run_at=9_000_000)
    cursors.claimed([A], None, SLOWLY, [job(1), job(2)], 3.0, short=False)
    assert cursors.after([A], 3.05) == Place(2, "1")
    cursors.claimed([A], Place(2, "1"), SLOWLY, [job(3)], 3.06, short=True)
    assert cursors.after([A], 3.07) == Place(9_000_000, "1"), "all that was late is claimed"


def test_what_is_claimed_from_before_the_cursor_does_not_draw_it_back_when_that_is_all() -> None:
    cursors = slow_since(0.0, run_at=9_000_000)
    back = cursors.after([A], 0.2)
    assert back == Place(9_000_000 - BACK, FIRST_ID)
    cursors.claimed([A], back, FAST, [job(8_000_000)], 0.2, short=True)
    assert cursors.after([A], 0.21) == Place(9_000_000, "1")


def test_a_cursor_ahead_of_a_clock_that_was_turned_back_is_given_up() -> None:
    cursors = slow_since(0.0, run_at=9_000_000)
    place = cursors.after([A], 0.01)
    cursors.claimed([A], place, SLOWLY, [job(4_000_000)], 0.02, short=True)
    assert cursors.after([A], 0.03) == Place(4_000_000, "1")


# what came back short


def test_a_lane_that_gave_too_little_is_unfinished_until_it_was_walked_from_the_start() -> None:
    cursors = slow_since(1.0)
    place = cursors.after([A], 1.01)
    cursors.claimed([A], place, FAST, [], 1.01, short=True)
    [(lane, at)] = cursors.unfinished([A, B], place)
    assert (lane, at) == (A, pytest.approx(3.8))
    cursors.claimed([A], None, SLOWLY, [], at, short=True)
    assert list(cursors.unfinished([A], None)) == []


# for whoever looks


def test_of_the_lanes_of_several_workers_each_is_told_once_the_slowest_first() -> None:
    lanes = [SlowLane("q", "a", 0, 5, 0.1), SlowLane("q", "b", 0, 7, 0.1), SlowLane("q", "a", 0, 9, 0.2)]
    assert slowest(lanes) == [lanes[2], lanes[1]]
    cursors = slow_since(0.0)
    assert cursors.slow_lanes == (SlowLane("default", "a", 0, SLOWLY.passed, SLOWLY.seconds),)
