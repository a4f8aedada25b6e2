"""The search for the culprits of a batch, without a database."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from piecework.model.bisection import Bisection, ProbeBudget, Range


class Outcome:
    """What a search found, and what it asked for."""

    def __init__(self, items: int, bad: Callable[[Range], bool], budget: ProbeBudget) -> None:
        search = Bisection(items, budget)
        self.probes: list[Range] = []
        self.saved: set[int] = set()
        while (probe := search.next()) is not None:
            self.probes.append(probe)
            if bad(probe):
                search.failed(ValueError(f"{probe}"))
            else:
                search.succeeded()
                self.saved |= set(range(*probe))
        self.culprits = set(search.culprits)
        self.unresolved = set(search.unresolved)
        assert self.saved | self.culprits | self.unresolved == set(range(items))
        assert len(self.saved) + len(self.culprits) + len(self.unresolved) == items


def search(items: int, bad: Iterable[int], budget: ProbeBudget | None = None) -> Outcome:
    culprits = set(bad)
    return Outcome(items, lambda probe: not culprits.isdisjoint(range(*probe)), budget or ProbeBudget.auto())


def test_a_clean_batch_costs_one_probe() -> None:
    found = search(10, [])
    assert found.probes == [(0, 10)]
    assert found.saved == set(range(10))


def test_a_batch_of_nothing_costs_no_probe() -> None:
    assert search(0, []).probes == []


@pytest.mark.parametrize("items", [1, 2, 3, 10, 25, 64, 100])
def test_one_culprit_is_found_within_the_automatic_budget_wherever_it_is(items: int) -> None:
    for culprit in range(items):
        found = search(items, [culprit])
        assert found.culprits == {culprit}
        assert found.saved == set(range(items)) - {culprit}


def test_the_automatic_budget_is_two_probes_per_halving_and_one() -> None:
    assert [ProbeBudget.auto().probes(items) for items in (1, 2, 3, 4, 10, 16, 17)] == [1, 3, 5, 5, 9, 9, 11]


def test_the_longest_range_is_probed_first_and_of_equal_ones_the_first() -> None:
    found = search(10, [0], ProbeBudget.at_most(4))
    assert found.probes == [(0, 10), (0, 5), (5, 10), (2, 5)]
    assert found.saved == set(range(2, 10)), "four probes save eight of ten"
    assert found.unresolved == {0, 1}


def test_a_batch_of_culprits_alone_costs_twice_its_size_less_one_under_a_full_budget() -> None:
    found = search(6, range(6), ProbeBudget.full())
    assert len(found.probes) == 11
    assert found.culprits == set(range(6))


def test_a_full_budget_finds_every_culprit() -> None:
    for bad in ([0, 1], [3, 12], [0, 7, 8, 15], [15]):
        assert search(16, bad, ProbeBudget.full()).culprits == set(bad)


def test_scattered_culprits_do_not_keep_their_clean_siblings_from_being_saved() -> None:
    found = search(16, [3, 12])
    assert len(found.probes) == 9
    assert len(found.saved) == 10


def test_one_probe_splits_nothing() -> None:
    for budget in (ProbeBudget.at_most(1), ProbeBudget.at_most(0)):
        found = search(10, [4], budget)
        assert found.probes == [(0, 10)]
        assert found.unresolved == set(range(10))


def test_one_probe_of_one_item_is_enough_to_blame_it() -> None:
    assert search(1, [0], ProbeBudget.at_most(1)).culprits == {0}


def test_of_two_items_that_exclude_each_other_the_first_wins() -> None:
    taken: set[int] = set()

    def bad(probe: Range) -> bool:
        wanting = {1, 4} & set(range(*probe))
        if len(wanting) + len(taken) > 1:
            return True
        taken.update(wanting)
        return False

    found = Outcome(6, bad, ProbeBudget.auto())
    assert found.culprits == {4}


def test_a_conflict_probes_the_same_range_again_and_costs_nothing_of_the_budget() -> None:
    search = Bisection(10, ProbeBudget.at_most(1))
    assert search.next() == (0, 10)
    assert search.conflicted()
    assert search.next() == (0, 10)
    search.succeeded()
    assert search.next() is None
    assert not search.unresolved


def test_the_third_conflict_of_a_search_is_one_too_many() -> None:
    search = Bisection(4, ProbeBudget.auto())
    search.next()
    assert search.conflicted()
    search.failed(ValueError("culprit"))
    search.next()
    assert search.conflicted()
    assert not search.conflicted()
