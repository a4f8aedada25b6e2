"""Everything in this process that waits for a job to end: many waiting, one look."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from piecework.base.errors import DatabaseUnreachable, NotOpen
from piecework.base.ids import JobId
from piecework.model.snapshot import JobSnapshot
from piecework.store.store import Store

_SHORTEST_PAUSE = 0.010
_LONGEST_PAUSE = 0.500
_IDS_PER_LOOK = 1000
_LAST_LOOK = 5.0


@dataclass(slots=True, eq=False)
class _Wait:
    """One job that somebody waits for."""

    id: JobId
    next_look: float
    pause: float = _SHORTEST_PAUSE
    futures: list[asyncio.Future[JobSnapshot | None]] = field(default_factory=list[asyncio.Future[JobSnapshot | None]])


class Waiters:
    """Waits for jobs to end, by looking at all waited-for jobs in one statement.

    The pause between two looks at a job grows from 10 to 500 ms; a hint makes the next look immediate. A database that
    cannot be reached is waited for as well, as long as the timeout of the wait allows. Used on the owning loop only.
    """

    def __init__(self) -> None:
        self._waits: dict[str, _Wait] = {}
        self._looking: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    async def wait(self, store: Store, ids: Sequence[JobId], timeout: timedelta) -> list[JobSnapshot | None]:
        """Wait until all jobs ended or `timeout` has passed, and return them as they are then, in the order of `ids`.

        A job that does not exist is answered with None, and not waited for.

        Raises:
            DatabaseUnreachable: the timeout passed, and the last look failed.
        """
        distinct = list(dict.fromkeys(ids))
        seconds = timeout.total_seconds()
        seen = await self._wait(store, distinct, seconds) if distinct and seconds > 0 else {}
        missing = [id for id in distinct if id not in seen]
        if missing:
            try:
                async with asyncio.timeout(_LAST_LOOK):
                    seen.update(zip(missing, await store.load(missing), strict=True))
            except TimeoutError:
                raise DatabaseUnreachable(f"the database did not answer within {_LAST_LOOK:g} s") from None
        return [seen[id] for id in ids]

    async def _wait(self, store: Store, ids: list[JobId], seconds: float) -> dict[JobId, JobSnapshot | None]:
        futures = [self._add(id) for id in ids]
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(store), name="job-waiters")
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wait(futures)
        except TimeoutError:
            pass
        finally:
            self._remove(ids, futures)
        return {id: future.result() for id, future in zip(ids, futures, strict=True) if future.done()}

    def hint(self, ids: Iterable[str]) -> None:
        """Say that these jobs may have ended: those that are waited for are looked at now."""
        if not self._waits:
            return
        hinted = [wait for wait in map(self._waits.get, ids) if wait is not None]
        for wait in hinted:
            wait.next_look = 0.0
        if hinted:
            self._wake.set()

    def close(self) -> None:
        """End every wait with `NotOpen`."""
        waits, self._waits = self._waits, {}
        for wait in waits.values():
            for future in wait.futures:
                if not future.done():
                    future.set_exception(NotOpen("the Jobs was closed during a wait for a job: the job goes on"))
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _add(self, id: JobId) -> asyncio.Future[JobSnapshot | None]:
        loop = asyncio.get_running_loop()
        wait = self._waits.get(str(id))
        if wait is None:
            wait = self._waits[str(id)] = _Wait(id, 0.0)
        wait.next_look, wait.pause = 0.0, _SHORTEST_PAUSE
        future: asyncio.Future[JobSnapshot | None] = loop.create_future()
        wait.futures.append(future)
        self._wake.set()
        return future

    def _remove(self, ids: list[JobId], futures: list[asyncio.Future[JobSnapshot | None]]) -> None:
        gone = set(futures)
        for future in gone:
            if future.done():
                future.exception()  # seen: of many that failed with one error, only the first is raised
        for id in ids:
            wait = self._waits.get(str(id))
            if wait is not None:
                wait.futures = [future for future in wait.futures if future not in gone]
                if not wait.futures:
                    del self._waits[str(id)]

    async def _look(self, store: Store) -> None:
        loop = asyncio.get_running_loop()
        while self._waits:
            self._wake.clear()
            now = loop.time()
            due = [wait for wait in self._waits.values() if wait.next_look <= now + wait.pause / 4][:_IDS_PER_LOOK]
            if due:
                await self._look_at(store, due)
                continue
            try:
                async with asyncio.timeout_at(min(wait.next_look for wait in self._waits.values())):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _look_at(self, store: Store, due: list[_Wait]) -> None:
        for wait in due:  # before the load: a hint that comes during it is one for the next look
            wait.next_look = asyncio.get_running_loop().time() + wait.pause
            wait.pause = min(wait.pause * 2, _LONGEST_PAUSE)
        try:
            snapshots = await store.load([wait.id for wait in due])
        except DatabaseUnreachable:
            return
        except Exception as error:
            for wait in due:
                self._settle(wait, error)
            return
        for wait, snapshot in zip(due, snapshots, strict=True):
            if snapshot is None or snapshot.finished:
                self._settle(wait, snapshot)

    def _settle(self, wait: _Wait, outcome: JobSnapshot | Exception | None) -> None:
        self._waits.pop(str(wait.id), None)
        for future in wait.futures:
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
