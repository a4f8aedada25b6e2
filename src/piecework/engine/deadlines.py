"""A heap of deadlines: pure, so that one timer serves all runs."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")
_FEW = 64


class Deadline(Generic[T]):
    """A moment at which something is due. Made by `Deadlines.add`."""

    __slots__ = ("at", "what")

    def __init__(self, at: float, what: T) -> None:
        self.at = at
        self.what: T | None = what
        """None once it was taken off."""

    def __lt__(self, other: Deadline[T]) -> bool:
        return self.at < other.at


class Deadlines(Generic[T]):
    """Deadlines, the earliest first. Adding and taking off cost the logarithm of how many there are."""

    def __init__(self) -> None:
        self._heap: list[Deadline[T]] = []
        self._struck = 0

    def add(self, at: float, what: T) -> Deadline[T]:
        """Note that `what` is due at `at`."""
        deadline = Deadline(at, what)
        heapq.heappush(self._heap, deadline)
        return deadline

    def strike(self, deadline: Deadline[T]) -> None:
        """Take a deadline off. Once it was answered by `due` this does nothing."""
        if deadline.what is None:
            return
        deadline.what = None
        self._struck += 1
        # Most jobs end long before their deadline: without this their places would be kept until then.
        if self._struck > max(_FEW, len(self._heap) // 2):
            self._heap = [each for each in self._heap if each.what is not None]
            heapq.heapify(self._heap)
            self._struck = 0

    def due(self, now: float) -> list[T]:
        """Take off and return what is due by `now`, in the order of the deadlines."""
        found: list[T] = []
        while self._heap and (self._heap[0].at <= now or self._heap[0].what is None):
            deadline = heapq.heappop(self._heap)
            if deadline.what is None:
                self._struck -= 1
            else:
                found.append(deadline.what)
                deadline.what = None
        return found

    @property
    def earliest(self) -> float | None:
        """The earliest deadline that may be due; None if there is none. One that was struck off may still be it."""
        return self._heap[0].at if self._heap else None

    def __len__(self) -> int:
        """How many places the heap keeps."""
        return len(self._heap)
