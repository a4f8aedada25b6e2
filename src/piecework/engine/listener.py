"""Turns the database's notifications into hints for the claimer."""

from __future__ import annotations

from collections.abc import Callable

from piecework.base.errors import DatabaseError
from piecework.model.lanes import Lane
from piecework.store.link import Link
from piecework.store.listening import hints


class Listener:
    """Listens on a connection of its own, which it re-makes when it breaks.

    Args:
        hint: called with each lane that the database names.
        probe_every: seconds between two questions whether the connection still stands.
        missed: called when the connection was lost, or before it first stood: hints may have gone by.
    """

    def __init__(
        self, link: Link, hint: Callable[[Lane], None], missed: Callable[[], None], probe_every: float
    ) -> None:
        self._link = link
        self._hint = hint
        self._missed = missed
        self._probe_every = probe_every

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                async for lane in hints(self._link, self._missed, self._probe_every):
                    self._hint(lane)
            except DatabaseError:
                pass
            await self._link.pause()
