"""Gathers settlements and writes many in one call: sends when the previous call has returned, never on a timer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

import psycopg

from piecework.base.errors import DatabaseError
from piecework.engine.facts import facts_of
from piecework.model.lanes import Lane
from piecework.model.settlement import Settlement, unstorable
from piecework.store.link import Link
from piecework.store.settling import Answer, settle

log = logging.getLogger("piecework.worker")
_MOST = 1000
_MOST_BYTES = 64 * 2**20
"""Of results in one call: PostgreSQL takes no text of 1 GiB, and what it refuses whole would be sent for ever."""
_FIRST_LOCKED_PAUSE, _LONGEST_LOCKED_PAUSE = 0.004, 0.1

Answered: TypeAlias = Callable[[Settlement, Answer], None]
"""Told of every settlement that is answered for good: the moment at which its capacity is free."""


class Completer:
    """The one writer of settles in a worker, on a connection of its own.

    A settlement stays here until the database has answered it: a lost answer is cured by sending it again, a row that
    an open transaction holds by sending it later, a value that the database refuses by halving the batch until the
    culprit stands alone and fails.

    Args:
        answered: called for each settlement with its final answer.
        flushed: called once per call with the ids that ended or moved.
        freed: called with each lane into which a job came back that had waited for its concurrency key.
    """

    def __init__(
        self,
        link: Link,
        answered: Answered,
        flushed: Callable[[Sequence[str]], None],
        freed: Callable[[Lane], None] = lambda lane: None,
    ) -> None:
        self._link = link
        self._answered = answered
        self._flushed = flushed
        self._freed = freed
        # Jobs with a concurrency key are settled under its lock, by calls of their own.
        self._plain: deque[tuple[str, Settlement]] = deque()
        self._keyed: deque[tuple[str, Settlement]] = deque()
        self._turn = 0
        self._wake = asyncio.Event()
        self._stopping = False
        self._locked_pause = _FIRST_LOCKED_PAUSE
        self._most = _MOST
        self.sent = 0
        """When the settles were sent that are answered now, in nanoseconds since the epoch."""

    def put(self, worker_id: str, settlement: Settlement) -> None:
        """Take a settlement of a claim that `worker_id` made."""
        self._line(settlement).append((worker_id, settlement))
        self._wake.set()

    def stop(self) -> None:
        """Let `run` return when nothing is left to write."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Write what comes, until stopped."""
        now = asyncio.get_running_loop().time
        while True:
            while not (self._plain or self._keyed):
                if self._stopping:
                    return
                self._wake.clear()
                await self._wake.wait()
            worker_id, batch = self._next_batch()
            self.sent = time.time_ns()
            try:
                answers, lanes = await settle(self._link, worker_id, batch, now())
            except psycopg.DataError as error:
                self._halve(worker_id, batch, error)
            except DatabaseError:
                # Whether it landed is unknown: the same settles are sent again, and are answered `landed before`.
                self._put_back(worker_id, batch)
                await self._link.pause()
            except BaseException:
                self._put_back(worker_id, batch)
                raise
            else:
                self._most = _MOST
                self._take_answers(worker_id, batch, answers)
                for lane in lanes:
                    self._freed(lane)

    def _line(self, settlement: Settlement) -> deque[tuple[str, Settlement]]:
        return self._plain if settlement.job.concurrency_key is None else self._keyed

    def _next_batch(self) -> tuple[str, list[Settlement]]:
        self._turn ^= 1
        line = self._keyed if self._keyed and (self._turn or not self._plain) else self._plain
        worker_id = line[0][0]
        batch: list[Settlement] = []
        size = 0
        while line and len(batch) < self._most and size < _MOST_BYTES and line[0][0] == worker_id:
            settlement = line.popleft()[1]
            batch.append(settlement)
            if settlement.result is not None:
                size += memoryview(settlement.result).nbytes
        return worker_id, batch

    def _put_back(self, worker_id: str, batch: Sequence[Settlement]) -> None:
        self._line(batch[0]).extendleft((worker_id, settlement) for settlement in reversed(batch))

    def _halve(self, worker_id: str, batch: list[Settlement], error: psycopg.DataError) -> None:
        if len(batch) > 1:
            self._most = (len(batch) + 1) // 2
            self._put_back(worker_id, batch)
            return
        self._most = _MOST
        reason = f"{error.diag.message_primary or error}"
        job = batch[0].job
        log.warning(
            "job %s (%s) cannot be settled as it ended: %s",
            job.id, job.job_type, reason, extra=facts_of(job, worker_id),
        )  # fmt: skip
        self._put_back(worker_id, [unstorable(batch[0], reason)])

    def _take_answers(self, worker_id: str, batch: Sequence[Settlement], answers: Sequence[Answer]) -> None:
        locked = [s for s, answer in zip(batch, answers, strict=True) if answer == "locked"]
        for settlement, answer in zip(batch, answers, strict=True):
            if answer != "locked":
                self._answered(settlement, answer)
        self._flushed([settlement.job.id for settlement in batch])
        if locked:
            # Mostly a claimer of another worker holds the row for a moment; sometimes it is a user's open transaction.
            asyncio.get_running_loop().call_later(self._locked_pause, self._again, worker_id, locked)
            self._locked_pause = min(self._locked_pause * 2, _LONGEST_LOCKED_PAUSE)
        else:
            self._locked_pause = _FIRST_LOCKED_PAUSE

    def _again(self, worker_id: str, locked: Sequence[Settlement]) -> None:
        for settlement in locked:
            self.put(worker_id, settlement)
