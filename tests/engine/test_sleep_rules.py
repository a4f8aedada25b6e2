"""Idleness and Agenda: when a worker may sleep, and until when. Pure logic on a clock that the test sets."""

from __future__ import annotations

import pytest

from piecework.engine.agenda import Agenda
from piecework.engine.idleness import Idleness
from piecework.model.lanes import Lane

A, B = Lane("default", "a", 0), Lane("default", "b", 0)


def calm() -> Idleness:
    idleness = Idleness(30.0)
    idleness.listening = True
    idleness.declare(100)
    idleness.looked(100)
    assert idleness.calm
    return idleness


def test_a_worker_may_declare_itself_idle_a_second_after_its_last_full_claim() -> None:
    idleness = Idleness(30.0)
    assert idleness.may_declare(0.0), "it has claimed nothing yet"
    idleness.claimed_all(5.0)
    assert not idleness.may_declare(5.9)
    assert idleness.may_declare(6.0)
    idleness.declare(1)
    assert not idleness.may_declare(100.0), "it has done so"


@pytest.mark.parametrize("xmin, enough", [(99, False), (100, True), (101, True)])
def test_it_is_calm_when_every_transaction_before_the_horizon_has_ended(xmin: int, enough: bool) -> None:
    idleness = Idleness(30.0)
    idleness.listening = True
    idleness.looked(1000)
    assert not idleness.calm, "it is not declared"
    idleness.declare(100)
    assert not idleness.calm
    idleness.looked(xmin)
    assert idleness.calm == enough


def test_it_looks_often_until_it_is_calm_and_then_seldom() -> None:
    idleness = Idleness(30.0)
    assert idleness.longest == 0.1
    idleness.declare(100)
    assert idleness.longest == 0.5
    idleness.looked(100)
    assert idleness.longest == 0.5, "it does not listen"
    idleness.listening = True
    assert idleness.longest == 30.0
    assert Idleness(0.05).longest == 0.05, "never more seldom than it was told"


def test_it_is_not_calm_while_it_does_not_listen_or_its_declaration_is_withdrawn() -> None:
    idleness = calm()
    idleness.listening = False
    assert not idleness.calm
    idleness.listening = True
    assert idleness.calm
    idleness.revoke()
    assert not idleness.calm
    idleness.declare(200)
    idleness.looked(150)
    assert not idleness.calm, "a new declaration has a new horizon"


def test_the_database_may_say_that_it_sleeps_until_it_was_told_otherwise() -> None:
    idleness = calm()
    idleness.revoke()
    assert (idleness.declared, idleness.flagged) == (False, True)


def test_looks_that_find_nothing_become_more_seldom() -> None:
    agenda, now = Agenda(), 0.0
    pauses: list[float] = []
    for _ in range(6):
        agenda.looked({}, now, 0.1, calm=False)
        pauses.append(round(agenda.next_look - now, 3))
        now = agenda.next_look
    assert pauses == [0.01, 0.02, 0.04, 0.08, 0.1, 0.1]
    agenda.looked({}, now, 30.0, calm=True)
    assert agenda.next_look == now + 30.0


def test_a_lane_that_was_found_is_due_at_its_time_and_the_next_look_is_a_second_away() -> None:
    agenda = Agenda()
    agenda.looked({A: -3.0, B: 0.25}, 10.0, 0.1, calm=False)
    assert (agenda.due, agenda.next_look, agenda.next_event()) == ({A}, 11.0, 10.25)
    agenda.promote(10.24)
    assert agenda.due == {A}
    agenda.promote(10.25)
    assert (agenda.due, agenda.next_event()) == ({A, B}, 11.0)


def test_a_sleep_ends_when_the_first_job_that_is_expected_is_due() -> None:
    agenda = Agenda()
    agenda.looked({A: 20.0}, 0.0, 30.0, calm=True)
    assert agenda.next_event() == 20.0
    for at in (5.0, 7.0):
        agenda.expect(A, at)
    agenda.expect(B, 6.0)
    assert agenda.next_event() == 5.0


def test_lanes_that_are_drained_are_struck_off_and_looked_at_again_soon() -> None:
    agenda = Agenda()
    agenda.looked({A: 0.0, B: 0.0}, 0.0, 0.1, calm=False)
    agenda.drained([A], 0.0, in_vain=False)
    assert (agenda.due, agenda.next_look) == ({B}, 1.0)
    agenda.drained([B], 0.0, in_vain=False)
    assert (agenda.due, agenda.next_look) == (set(), 0.01)


def test_a_job_that_is_seen_and_cannot_be_had_is_tried_more_and_more_seldom() -> None:
    agenda, now = Agenda(), 0.0
    pauses: list[float] = []
    for _ in range(8):
        agenda.looked({A: -1.0}, now, 0.1, calm=False)
        agenda.drained([A], now, in_vain=True)
        pauses.append(round(agenda.next_look - now, 3))
        now = agenda.next_look
    assert pauses == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5]
    agenda.looked({A: -1.0}, now, 0.1, calm=False)
    agenda.drained([A], now, in_vain=False)
    assert agenda.next_look - now == pytest.approx(0.01), "it was to be had"


def test_a_look_that_is_wanted_is_due_at_once() -> None:
    agenda = Agenda()
    agenda.looked({}, 50.0, 30.0, calm=True)
    agenda.look_now()
    assert agenda.next_event() <= 50.0


def test_a_look_that_walked_over_much_is_followed_by_a_pause() -> None:
    agenda = Agenda()
    agenda.looked({A: 0.0}, 0.0, 0.1, calm=False, pause=3.0)
    assert agenda.next_look == 3.0
    agenda.drained([A], 0.5, in_vain=True)
    assert agenda.next_look == 3.0
    agenda.looked({}, 3.0, 30.0, calm=True, pause=2.0)
    assert agenda.next_look == 33.0, "it would not have looked sooner anyway"


def test_what_asks_for_a_look_does_not_wait_for_the_pause_and_a_hint_at_another_worker_does() -> None:
    agenda = Agenda()
    agenda.looked({}, 0.0, 30.0, calm=True, pause=3.0)
    agenda.look_soon()
    assert agenda.next_look == 3.0
    agenda.look_now()
    assert agenda.next_look == 0.0


@pytest.mark.parametrize("ask, due", [("look_now", 0.0), ("look_soon", 5.0)])
def test_a_look_that_is_asked_for_while_one_is_under_way_is_made_after_it(ask: str, due: float) -> None:
    agenda = Agenda()
    agenda.look_begins()
    getattr(agenda, ask)()
    agenda.looked({}, 2.0, 30.0, calm=True, pause=3.0)
    assert agenda.next_look == due
    agenda.look_begins()
    agenda.looked({}, 6.0, 30.0, calm=True)
    assert agenda.next_look == 36.0
