"""Group commit: what is spawned while other spawns are under way goes together in the next statement."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import NamedTuple

import psycopg

from piecework.base.errors import DatabaseError, SpawnError
from piecework.model.job import NewJob

_UNDER_WAY = 2
"""Statements at once. Of more, each has fewer jobs, and the commits are what costs."""
_MOST_JOBS, _MOST_BYTES = 1_000, 1 << 20
"""Of one statement."""
_SMALL_JOBS, _SMALL_BYTES = 100, 1 << 16
"""What is larger goes by itself: those behind it should not wait for it."""


def is_small(jobs: Sequence[NewJob]) -> bool:
    """Whether these jobs, which are spawned by one call, may go with those of other calls.

    Those with a key or an id of the caller's may not: they wait for whoever holds it.
    """
    if len(jobs) == 1:
        [job] = jobs
        return job.key is None and not job.chosen and len(job.config) <= _SMALL_BYTES
    return len(jobs) <= _SMALL_JOBS and _size(jobs) <= _SMALL_BYTES and all(is_small([job]) for job in jobs)


def _size(jobs: Sequence[NewJob]) -> int:
    return sum(len(job.config) for job in jobs)


class _Call(NamedTuple):
    jobs: Sequence[NewJob]
    size: int
    answer: asyncio.Future[Exception | None]


class Gathering:
    """Sends at once what is spawned while few statements are under way, and what waits when one of them has returned.

    There is no timer: who spawns alone waits for nobody. What waits is sent in its order, all that is there by one
    statement, and when the database refuses that, half of it and then the other half, so that each call gets its own
    answer. Used on one loop.

    Args:
        send: inserts jobs without keys, all or none; when it returns they are committed.
    """

    def __init__(self, send: Callable[[Sequence[NewJob]], Awaitable[object]]) -> None:
        self._send = send
        self._under_way = 0
        self._waiting: deque[_Call] = deque()
        self._senders: set[asyncio.Task[None]] = set()

    async def spawn(self, jobs: Sequence[NewJob]) -> None:
        """Insert jobs that are small, all or none. A call that is cancelled while it waits inserts nothing.

        Raises:
            Exception: what `send` raises for these jobs.
        """
        if self._under_way < _UNDER_WAY:
            self._under_way += 1
            try:
                await self._send(jobs)
            finally:
                self._go_on()
            return
        call = _Call(jobs, _size(jobs), asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if (error := await call.answer) is not None:
            raise error

    async def close(self) -> None:
        """Wait until what was spawned is sent and answered."""
        while waiting := [call.answer for call in self._waiting if not call.answer.done()]:
            await asyncio.wait(waiting)
        if self._senders:
            await asyncio.wait(self._senders)

    def _go_on(self) -> None:
        """Have what waits sent, now that a statement has returned."""
        if not self._waiting:
            self._under_way -= 1
            return
        # In a context of its own: whoever happens to be done first has nothing to do with the others' jobs.
        sender = asyncio.create_task(self._send_waiting(), name="job-spawns", context=Context())
        self._senders.add(sender)
        sender.add_done_callback(self._senders.discard)

    async def _send_waiting(self) -> None:
        group: list[_Call] = []
        try:
            while group := self._next_group():
                await self._send_together(group)
                await asyncio.sleep(0)  # whoever was answered may spawn again, and goes with the next ones
        except BaseException:  # the loop ends
            for call in (*group, *self._waiting):
                call.answer.cancel()
            raise
        finally:
            self._under_way -= 1

    def _next_group(self) -> list[_Call]:
        group: list[_Call] = []
        count = size = 0
        while self._waiting:
            call = self._waiting[0]
            if not call.answer.done():  # else it was cancelled
                count, size = count + len(call.jobs), size + call.size
                if group and (count > _MOST_JOBS or size > _MOST_BYTES):
                    break
                group.append(call)
            self._waiting.popleft()
        return group

    async def _send_together(self, group: Sequence[_Call]) -> None:
        try:
            await self._send([job for call in group for job in call.jobs])
        except DatabaseError as error:  # it has nothing to do with the jobs
            for call in group:
                _answer(call, _again(error))
        except (SpawnError, psycopg.Error) as error:  # refused: nothing was inserted
            if len(group) == 1:
                _answer(group[0], error)
                return
            middle = len(group) // 2
            await self._send_together(group[:middle])
            await self._send_together(group[middle:])
        except Exception as error:  # nobody knows whether it landed: sent in halves, it might be there twice
            for call in group:
                _answer(call, error)
        else:
            for call in group:
                _answer(call, None)


def _answer(call: _Call, error: Exception | None) -> None:
    if not call.answer.done():
        call.answer.set_result(error)


def _again(error: DatabaseError) -> DatabaseError:
    """Return the same error for another caller: raising it adds to its traceback."""
    other = copy.copy(error).with_traceback(error.__traceback__)
    other.__cause__ = error.__cause__
    return other
