"""Turns the database's notifications into hints for the claimer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from piecework.base.errors import DatabaseError
from piecework.model.lanes import Lane
from piecework.store.link import Link
from piecework.store.listening import CancelHint, hints

_OTHERS_LOOK_AFTER = (0.1, 0.3)


class Listener:
    """Listens on a connection of its own, which it re-makes when it breaks.

    A hint names the workers that are to look at once. The others look a little later: should the named ones be gone or
    busy, the job is not left lying, and mostly it is taken by then.

    Args:
        worker_id: asked at each hint: who this worker is.
        hint: called with each lane that has to be looked at.
        cancel: called with the ids and claim numbers of jobs of this worker that are to be cancelled.
        listening: called with True when hints come, with False when they do not; some may have gone by.
        probe_every: seconds between two questions whether the connection still stands.
    """

    def __init__(
        self,
        link: Link,
        worker_id: Callable[[], str],
        hint: Callable[[Lane], None],
        cancel: Callable[[Sequence[tuple[str, int]]], None],
        listening: Callable[[bool], None],
        probe_every: float,
    ) -> None:
        self._link = link
        self._worker_id = worker_id
        self._hint = hint
        self._cancel = cancel
        self._listening = listening
        self._probe_every = probe_every

    async def run(self) -> None:
        """Listen until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                async for hint in hints(self._link, lambda: self._listening(True), self._probe_every):
                    if isinstance(hint, CancelHint):
                        if hint.worker == self._worker_id():
                            self._cancel(hint.cancel)
                    elif not hint.targets or self._worker_id() in hint.targets:
                        self._hint(hint.lane)
                    else:
                        loop.call_later(random.uniform(*_OTHERS_LOOK_AFTER), self._hint, hint.lane)
            except DatabaseError:
                self._listening(False)
            await self._link.pause()
