"""The heap of deadlines, by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from piecework.engine.deadlines import Deadline, Deadlines


def test_what_is_due_comes_in_the_order_of_the_deadlines_and_once() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for at, what in [(3.0, "c"), (1.0, "a"), (2.0, "b"), (9.0, "later")]:
        deadlines.add(at, what)
    assert deadlines.earliest == 1.0
    assert deadlines.due(0.5) == []
    assert deadlines.due(3.0) == ["a", "b", "c"]
    assert deadlines.due(3.0) == []
    assert deadlines.earliest == 9.0


def test_what_was_struck_off_is_never_due() -> None:
    deadlines: Deadlines[str] = Deadlines()
    struck = deadlines.add(1.0, "struck")
    deadlines.add(1.0, "kept")
    deadlines.strike(struck)
    deadlines.strike(struck)
    assert deadlines.due(5.0) == ["kept"]
    assert deadlines.earliest is None


def test_striking_off_what_was_due_already_changes_nothing() -> None:
    deadlines: Deadlines[str] = Deadlines()
    first = deadlines.add(1.0, "first")
    deadlines.add(2.0, "second")
    assert deadlines.due(1.0) == ["first"]
    deadlines.strike(first)
    assert deadlines.due(2.0) == ["second"]


def test_a_hundred_thousand_jobs_that_end_early_keep_few_places() -> None:
    deadlines: Deadlines[int] = Deadlines()
    running: list[Deadline[int]] = []
    for number in range(100_000):
        running.append(deadlines.add(3600.0 + number, number))
        if len(running) > 100:
            deadlines.strike(running.pop(0))
        assert len(deadlines) <= 400
    assert deadlines.due(1e9) == list(range(99_900, 100_000))


@given(st.lists(st.tuples(st.sampled_from(["add", "strike", "due"]), st.integers(0, 50)), max_size=300))
def test_it_does_what_a_list_would(steps: list[tuple[str, int]]) -> None:
    deadlines: Deadlines[int] = Deadlines()
    made: list[Deadline[int]] = []
    model: dict[int, int] = {}
    for kind, number in steps:
        if kind == "add":
            model[len(made)] = number
            made.append(deadlines.add(number, len(made)))
        elif kind == "strike" and made:
            deadlines.strike(made[number % len(made)])
            model.pop(number % len(made), None)
        else:
            due = sorted(what for what, at in model.items() if at <= number)
            found = deadlines.due(number)
            assert [model[what] for what in found] == sorted(model[what] for what in found)
            assert sorted(found) == due
            for what in found:
                del model[what]
        if model:
            assert deadlines.earliest is not None
            assert deadlines.earliest <= min(model.values())
