"""Where claims wait before their runs begin: for capacity, for a batch of their type, for a job of their key."""

from __future__ import annotations

from piecework.engine.batches import Batches
from piecework.engine.capacity import Capacity
from piecework.engine.chains import Chains
from piecework.engine.held import Held


class Lines:
    """Takes claims whose run has not begun, and will not, out of whatever they wait in."""

    def __init__(self, capacity: Capacity, batches: Batches, chains: Chains) -> None:
        self._capacity = capacity
        self._batches = batches
        self._chains = chains

    def take_all(self) -> list[Held]:
        """Empty all lines, and return the claims in their order."""
        units = [*self._capacity.waiting, *self._batches.take_aside(), *self._chains.take_all()]
        self._capacity.waiting.clear()
        return [claim for unit in units for claim in unit.claims]

    def leave(self, held: Held) -> None:
        """Take one claim out."""
        if held.waits:
            self._chains.leave(held)
        elif held.batch is None:
            self._capacity.waiting.remove(held)
        else:
            self._batches.leave(held)
