"""The horizon guard's decisions: who is to blame that dead rows stay, and when claims will suffer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from piecework.model.cursors import SlowLane
from piecework.model.horizon import (
    SLOW_CLAIM,
    Claims,
    Point,
    Sample,
    Watch,
    forecast,
    foretold,
    latest,
    watch,
    worth_a_look,
)  # fmt: skip
from piecework.model.pins import Pin, described, remedy
from piecework.store.liveness import Counters

MINUTE = 60.0


def a_pin(**changed: Any) -> Pin:
    values: dict[str, Any] = {
        "kind": "session", "name": "forgetful", "pid": 7, "role": "r", "state": "idle in transaction",
        "seconds": None, "query_start": None, "xids": 100, "pinned": "700", "query": "SELECT 1",
    }  # fmt: skip
    return Pin(**(values | changed))


def a_sample(at: float, dead: int, before: Watch | None = None, claims: Claims | None = None) -> Sample:
    return Sample(
        at=at, dead=dead, dead_keys=0, vacuumed=None, sees_all=True, claims=claims or Claims(), watch=before
    )  # fmt: skip


def watched(*looks: tuple[float, int, list[Pin]]) -> list[tuple[bool, list[str]]]:
    """What a row of looks led to: whether somebody was accused, and the names of those that are gone."""
    before, found = None, []
    for at, dead, pins in looks:
        turn = watch(a_sample(at, dead, before), pins)
        before = turn.watch
        found.append((turn.accused is not None, [suspect.pin.name for suspect in turn.gone]))
    return found


def test_a_pin_is_to_blame_when_it_has_lasted_a_minute_and_dead_rows_have_grown_by_more_than_10000() -> None:
    pin = a_pin()
    assert watched((0, 6_000, [pin]), (60, 16_001, [pin])) == [(False, []), (True, [])]
    assert watched((0, 6_000, [pin]), (60, 16_000, [pin])) == [(False, [])] * 2
    assert watched((0, 6_000, [pin]), (59, 16_001, [pin])) == [(False, [])] * 2
    assert watched((0, 6_000, [pin]), (59, 16_001, [a_pin(seconds=60.0)]))[1] == (True, [])


def test_what_a_vacuum_could_remove_after_all_is_not_counted() -> None:
    pin = a_pin()
    assert watched((0, 90_000, [pin]), (60, 8_000, [pin]), (120, 18_001, [pin]))[2] == (True, [])
    assert watched((0, 90_000, [pin]), (60, 8_000, [pin]), (120, 18_000, [pin]))[2] == (False, [])


def test_a_culprit_is_named_every_ten_minutes_and_once_when_it_is_gone() -> None:
    pin = a_pin()
    looks = [(minute * MINUTE, 6_000 + minute * 100_000, [pin]) for minute in range(13)]
    found = watched(*looks, (13 * MINUTE, 10, []), (14 * MINUTE, 10, []))
    assert [minute for minute, (accused, _) in enumerate(found) if accused] == [1, 11]
    assert [gone for _, gone in found][-2:] == [["forgetful"], []]


def test_who_cannot_be_seen_is_not_said_to_be_gone() -> None:
    before = watch(a_sample(60, 90_000, watch(a_sample(0, 6_000), [a_pin()]).watch), [a_pin()]).watch
    assert before.culprit is not None
    turn = watch(a_sample(120, 90_000, before), None)
    assert (turn.accused, turn.gone, turn.watch.suspects) == (None, [], [])


def test_a_session_that_goes_on_to_another_transaction_is_another_pin() -> None:
    found = watched(*((at * MINUTE, 6_000 + at * 100_000, [a_pin(pinned=str(at), seconds=900.0)]) for at in range(5)))
    assert found == [(False, [])] * 5
    renamed = watched((0, 6_000, [a_pin()]), (60, 90_000, [a_pin(name="renamed")]))
    assert renamed[1] == (True, [])
    slots = [a_pin(kind="slot", name="s", pid=pid) for pid in (None, 8)]
    assert watched((0, 6_000, slots[:1]), (60, 90_000, slots[1:]))[1] == (True, [])


def test_the_one_that_is_farthest_back_is_to_blame() -> None:
    pins = [a_pin(), a_pin(pid=8, name="older", xids=200, pinned="600"), a_pin(pid=9, xids=None, pinned=None)]
    pins.append(a_pin(kind="slot", name="logical", xids=900, catalog_only=True))
    before = watch(a_sample(0, 6_000), pins).watch
    turn = watch(a_sample(60, 90_000, before), pins)
    assert turn.accused is not None
    assert turn.accused.pin.name == "older"
    assert turn.watch.culprit == turn.accused
    assert [suspect.pin.pid for suspect in turn.watch.suspects] == [8, 7]


def test_many_dead_rows_are_worth_a_look_and_so_is_who_was_to_blame() -> None:
    assert not worth_a_look(a_sample(0, 4_999))
    assert worth_a_look(a_sample(0, 5_000))
    before = watch(a_sample(0, 6_000), [a_pin()]).watch
    assert not worth_a_look(a_sample(60, 0, before))
    assert worth_a_look(a_sample(60, 0, watch(a_sample(60, 90_000, before), [a_pin()]).watch))


def test_what_was_written_down_long_ago_or_by_a_clock_that_was_set_back_counts_for_nothing() -> None:
    for at in (301.0, -1.0):
        turn = watch(a_sample(at, 90_000, watch(a_sample(0, 6_000), [a_pin()]).watch), [a_pin()])
        assert (turn.accused, len(turn.watch.history)) == (None, 1)


def test_it_goes_on_from_what_was_written_down_last_after_a_way_through_json() -> None:
    known = [watch(a_sample(at, 6_000), [a_pin()]).watch for at in (5.0, 9.0, 7.0)]
    found = latest([None, *known])
    assert found is known[1]
    assert latest([None]) is None
    stored = msgspec.json.decode(msgspec.json.encode(Counters(horizon=found)), type=Counters)
    assert stored.horizon == msgspec.structs.replace(
        known[1], history=list(known[1].history), suspects=list(known[1].suspects)
    )


def test_a_history_stays_short_and_shorter_while_all_is_well() -> None:
    before = None
    for minute in range(30):
        before = watch(a_sample(minute * MINUTE, 90_000, before), []).watch
    assert before is not None
    assert [point.at for point in before.history] == [minute * MINUTE for minute in range(20, 30)]
    assert [point.at for point in watch(a_sample(1800, 10, before), []).watch.history] == [1800]


def points(*counted: tuple[float, int, int, float]) -> list[Point]:
    return [Point(*each) for each in counted]


def test_claims_cost_twice_as_much_when_the_dead_rows_to_come_cost_as_much_as_a_claim_now() -> None:
    expected = forecast(points((0, 0, 0, 0.0), (60, 60_000, 100, 0.5)))
    assert (expected.growth, expected.claim) == (1000.0, 0.005)
    assert expected.doubled_in == pytest.approx(250 / 3)  # 0.06 µs for each of 83,333 rows
    assert expected.tenfold_in == pytest.approx(750.0)
    assert foretold(expected) == (
        "1000 come every second; a claim takes 5.0 ms now, twice as long in 83.3 s, ten times as long in 12 min"
    )


def test_what_a_dead_row_costs_is_learned_from_claims_under_different_numbers_of_them() -> None:
    seconds = [100 * sum(0.01 + 0.05 * k for k in range(n)) for n in range(5)]
    history = points(*((60.0 * n, 100_000 * n, 100 * n, seconds[n]) for n in range(5)))
    expected = forecast(history)
    assert expected.claim == pytest.approx(0.16)
    per_row = 0.05 / 100_000
    assert expected.doubled_in == pytest.approx(0.16 / per_row / (100_000 / 60))
    assert expected.tenfold_in == pytest.approx(9 * expected.doubled_in)


@pytest.mark.parametrize(("costs", "per_row"), [([0.5, 0.4, 0.3, 0.2], 1e-8), ([0.1, 1.1, 2.1, 3.1], 1e-6)])
def test_what_a_dead_row_cannot_cost_is_not_learned(costs: list[float], per_row: float) -> None:
    history = [Point(0, 0, 0, 0.0)]
    for n, cost in enumerate(costs, 1):
        history.append(Point(60.0 * n, 100_000 * n, 10 * n, history[-1].seconds + 10 * cost))
    assert forecast(history).doubled_in == pytest.approx(costs[-1] / per_row / (100_000 / 60))


def test_the_rate_is_that_since_the_last_vacuum_and_without_dead_rows_nothing_is_foretold() -> None:
    expected = forecast(points((0, 900_000, 0, 0.0), (60, 1_000, 10, 0.1), (120, 7_000, 20, 0.2)))
    assert expected.growth == 100.0
    for history in ([], points((0, 5, 1, 1.0)), points((0, 9_000, 0, 0.0), (60, 10, 10, 0.1))):
        assert forecast(history)[::2] == (0.0, None)
        assert foretold(forecast(history)) == ""


def test_claims_that_start_at_a_cursor_are_not_foretold_to_get_slower() -> None:
    lane = SlowLane("q", "work", 0, 1_000_000, 0.14)
    before = watch(a_sample(0, 100_000, claims=Claims(calls=0)), []).watch
    claims = Claims(calls=100, seconds=0.5)
    assert watch(a_sample(60, 200_000, before, claims), []).watch.forecast.doubled_in is not None
    claims.slow_lanes = [lane, lane]
    found = watch(a_sample(60, 200_000, before, claims), []).watch
    assert found.slow_lanes == [lane]
    assert found.forecast == pytest.approx((100_000 / 60, 0.005, None, None))
    assert foretold(found.forecast) == "1667 come every second; a claim takes 5.0 ms now"


def test_without_claims_or_after_a_worker_has_gone_with_its_counts_only_the_rate_is_told() -> None:
    for calls, seconds in ((10, 1.0), (4, 0.2)):
        expected = forecast(points((0, 0, 10, 1.0), (60, 6_000, calls, seconds)))
        assert expected == (100.0, None, None, None)
        assert foretold(expected) == "100 come every second"


def test_claims_are_counted_with_their_worst_and_the_slow_ones() -> None:
    claims = Claims()
    for seconds, jobs in ((0.001, 1), (SLOW_CLAIM, 500), (0.2, 0)):
        claims.add(seconds, jobs)
    assert (claims.calls, claims.jobs, claims.worst, claims.slow) == (3, 501, 0.2, 1)
    assert claims.seconds == pytest.approx(0.301)


@pytest.mark.parametrize(("pin", "said", "to_do"), [
    (a_pin(seconds=90.0, query="UPDATE t\n  SET \x1b[31mx"),
     "session pid 7 'forgetful' of role 'r' (idle in transaction) for 2 min: UPDATE t SET [31mx, 100 transactions back",
     "SELECT pg_terminate_backend(7); idle_in_transaction_session_timeout prevents it"),
    (a_pin(state=None, query=None), "(state unknown), 100 transactions back", "(7); statement_timeout bounds"),
    (a_pin(kind="prepared transaction", name="it's", pid=None, state="prepared"), "prepared transaction \"it's\"",
     "ROLLBACK PREPARED 'it''s'"),
    (a_pin(kind="slot", name="s", pid=None, role=None, state="inactive", query=None),
     "slot 's' (inactive), 100 transactions back", "drop the slot: SELECT pg_drop_replication_slot('s')"),
    (a_pin(kind="slot", name="s", state="active", catalog_only=True), "in the system catalogs", "lags behind"),
    (a_pin(kind="slot", name="s", state="active"), "slot pid 7 's'", "on that standby: end it there"),
    (a_pin(kind="standby", name="replica", state="streaming"), "standby pid 7 'replica'", "hot_standby_feedback = off"),
])  # fmt: skip
def test_a_pin_is_told_on_one_line_with_what_to_do(pin: Pin, said: str, to_do: str) -> None:
    assert said in described(pin)
    assert described(pin).isprintable()
    assert to_do in remedy(pin)
