"""Which items of a failing batch are the culprits: a search that halves what fails, within a budget of probes."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import NamedTuple

_MOST_CONFLICTS = 2


@dataclass(frozen=True, slots=True)
class ProbeBudget:
    """How many probes `run_bisected` may make. Made by `auto`, `at_most` and `full`."""

    most: int | None = None
    whole: bool = False

    @classmethod
    def auto(cls) -> ProbeBudget:
        """Of n items, 2 × ⌈log2 n⌉ + 1 probes: enough to find one culprit wherever it is."""
        return cls()

    @classmethod
    def at_most(cls, probes: int) -> ProbeBudget:
        """So many probes, at least one."""
        return cls(most=max(probes, 1))

    @classmethod
    def full(cls) -> ProbeBudget:
        """As many as it takes to find every culprit: up to 2 × n - 1 of n items."""
        return cls(whole=True)

    def probes(self, items: int) -> int:
        """Return how many probes of so many items may be made."""
        if self.most is not None:
            return self.most
        return max(2 * items - 1, 1) if self.whole else 2 * max(items - 1, 0).bit_length() + 1


class Range(NamedTuple):
    """Items next to each other: from `start` up to, and without, `end`."""

    start: int
    end: int


class Bisection:
    """The state of one search. Ask `next` for a range, probe it, and report `succeeded`, `failed` or `conflicted`.

    The longest pending range is probed next, of equally long ones the first: so that what is clean is saved early,
    should the budget not suffice. A failing range is split in the middle; a failing single item is a culprit.
    """

    def __init__(self, items: int, budget: ProbeBudget) -> None:
        self._pending = [(-items, Range(0, items))] if items else []
        self._budget = budget.probes(items)
        self._conflicts = 0
        self._probed: Range | None = None
        self.culprits: dict[int, Exception] = {}
        """The items that fail alone, and with what."""

    def next(self) -> Range | None:
        """Return the range to probe now; None when all is known, or the budget is spent."""
        if self._probed is None and self._pending and self._budget > 0:
            self._budget -= 1
            self._probed = heapq.heappop(self._pending)[1]
        return self._probed

    def succeeded(self) -> None:
        """The range has no culprit."""
        self._probed = None

    def failed(self, error: Exception) -> None:
        """The range has at least one culprit."""
        failing, self._probed = self._probed, None
        assert failing is not None, "no range was asked for"
        if failing.end - failing.start == 1:
            self.culprits[failing.start] = error
            return
        middle = (failing.start + failing.end) // 2
        for half in (Range(failing.start, middle), Range(middle, failing.end)):
            heapq.heappush(self._pending, (half.start - half.end, half))

    def conflicted(self) -> bool:
        """Another transaction was in the way, which says nothing about the items: whether to probe the range again.

        That is done twice in a search, and is not charged to the budget.
        """
        self._conflicts += 1
        return self._conflicts <= _MOST_CONFLICTS

    @property
    def unresolved(self) -> list[int]:
        """The items of which nothing is known, when the budget is spent."""
        return sorted(index for _, pending in self._pending for index in range(pending.start, pending.end))
