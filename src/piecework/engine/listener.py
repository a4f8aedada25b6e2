"""Turns the database's notifications into hints for the claimer."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from piecework.base.errors import DatabaseError
from piecework.model.lanes import Lane
from piecework.store.link import Link
from piecework.store.listening import CancelHint, Deaf, LookHint, hints

log = logging.getLogger("piecework.worker")
_DEAF = 60.0
"""Seconds until it is found out whether the DSN leads past the pooler by now."""
_OTHERS_LOOK_AFTER = (0.1, 0.3)


class Listener:
    """Listens on a connection of its own, which it re-makes when it breaks.

    A hint names the workers that are to look at once. The others look a little later: should the named ones be gone or
    busy, the job is not left lying, and mostly it is taken by then. However many hints name others, one look follows
    them every 100 to 300 ms at most.

    Args:
        worker_id: asked at each hint: who this worker is.
        hint: called with each lane that has to be looked at.
        hint_to_another: called a little later when others were named.
        cancel: called with the ids and claim numbers of jobs of this worker that are to be cancelled.
        listening: called with True when hints come, with False when they do not; some may have gone by. Again with True
            when the time was turned, so that every lane has to be looked at.
        probe_every: seconds between two questions whether the connection still stands.
    """

    def __init__(
        self,
        link: Link,
        worker_id: Callable[[], str],
        hint: Callable[[Lane], None],
        hint_to_another: Callable[[Lane], None],
        cancel: Callable[[Sequence[tuple[str, int]]], None],
        listening: Callable[[bool], None],
        probe_every: float,
    ) -> None:
        self._link = link
        self._worker_id = worker_id
        self._hint = hint
        self._hint_to_another = hint_to_another
        self._later: asyncio.TimerHandle | None = None
        self._meanwhile: set[Lane] = set()
        self._cancel = cancel
        self._listening = listening
        self._probe_every = probe_every
        self._deaf = False

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                async for hint in hints(self._link, lambda: self._listening(True), self._probe_every):
                    if isinstance(hint, CancelHint):
                        if hint.worker == self._worker_id():
                            self._cancel(hint.cancel)
                    elif isinstance(hint, LookHint):
                        self._listening(True)
                    elif not hint.targets or self._worker_id() in hint.targets:
                        self._hint(hint.lane)
                    else:
                        self._look_later(hint.lane)
            except DatabaseError:
                self._listening(False)
            except Deaf:
                self._note_deaf()
                await asyncio.sleep(_DEAF)
            await self._link.pause()

    def _note_deaf(self) -> None:
        if not self._deaf:
            self._deaf = True
            log.warning(
                "a pooler stands before the database, and notifications do not pass it: this worker looks for jobs "
                "twice a second. Name the server's own address: Jobs(listen_dsn=…), or PIECEWORK_LISTEN_URL"
            )

    def _look_later(self, lane: Lane) -> None:
        self._meanwhile.add(lane)
        if self._later is None:
            self._look(set())

    def _look(self, lanes: set[Lane]) -> None:
        self._later = None
        for lane in lanes:
            self._hint_to_another(lane)
        if self._meanwhile:  # hinted at too late to be looked at now: the named ones have their time
            after = random.uniform(*_OTHERS_LOOK_AFTER)
            self._later = asyncio.get_running_loop().call_later(after, self._look, self._meanwhile)
            self._meanwhile = set()
