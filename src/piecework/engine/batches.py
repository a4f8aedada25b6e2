"""Claims that run together: how batches are formed of what a claim took, begun within their limit, and judged."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec.structs import replace

from piecework.base.texts import shown
from piecework.engine.batch_desk import BatchDesk
from piecework.engine.capacity import Capacity
from piecework.engine.held import Held, HeldBatch
from piecework.model.batches import form_batches
from piecework.model.settlement import Settlement, released
from piecework.store.lending import Lending
from piecework.store.statements import Statements
from piecework.work.batch import CurrentBatch, outcomes_of
from piecework.work.current_job import request_cancel
from piecework.work.registry import RegisteredJob

_STALE = 2.0


class Runs(Protocol):
    """What the executor does for each claim, whether it is in a batch or not."""

    capacity: Capacity

    def prepare(self, held: Held) -> Callable[[], object] | None:
        """Make a claim ready to run; None if it has ended already."""
        ...

    def conclude(self, held: Held, value: object, error: BaseException | None) -> None:
        """Settle a claim as what it returned or raised says."""

    def settle(self, held: Held, settlement: Settlement) -> None:
        """Hand the end of a run to the completer."""


class Batches:
    """The batches of a worker. Used on its loop.

    A batch is one unit of capacity. Of a type no more run at once than it allows: what a claim brought beyond that,
    since retries and jobs of one concurrency key run apart, is set aside, and handed back after two seconds.
    """

    def __init__(self, runs: Runs, lending: Lending, statements: Statements) -> None:
        self._runs = runs
        self._lending = lending
        self._statements = statements
        self._begun: Counter[str] = Counter()
        self._aside: list[HeldBatch] = []
        self._running: dict[HeldBatch, tuple[CurrentBatch, BatchDesk]] = {}
        self._loop = asyncio.get_running_loop()

    def form(self, claims: Sequence[Held]) -> list[HeldBatch]:
        """Form batches of what one claim took."""
        by_type: defaultdict[RegisteredJob, dict[str, Held]] = defaultdict(dict)
        for held in claims:
            by_type[held.registered][held.job.id] = held
        return [
            HeldBatch([held[job.id] for job in jobs])
            for registered, held in by_type.items()
            if registered.batching is not None
            for jobs in form_batches([each.job for each in held.values()], registered.batching.max_size)
        ]

    def may_begin(self, batch: HeldBatch) -> bool:
        """Whether its type allows for another batch now; if not it is set aside."""
        most = batch.registered.max_concurrent_per_process
        if most is None or self._begun[batch.registered.job_type] < most:
            return True
        self._aside.append(batch)
        self._loop.call_later(_STALE, self._hand_back, batch)
        return False

    def prepare(self, batch: HeldBatch) -> Callable[[], object] | None:
        """Make the jobs of a batch ready, and return the call that runs them; None if none of them can run."""
        batching = batch.registered.batching
        assert batching is not None, "batches are formed of batched jobs"
        self._begun[batch.registered.job_type] += 1
        batch.items = [item for item in batch.items if self._runs.prepare(item) is not None]
        ready = [item.current for item in batch.items if item.current is not None]
        if not ready:
            return None
        desk = BatchDesk(batch, self._lending, self._statements)
        current = CurrentBatch(ready, desk)
        self._running[batch] = current, desk
        return functools.partial(batching.run, current)

    def freed(self, batch: HeldBatch) -> None:
        """Let the next batch of the type begin, now that the last settle of one that had begun has landed."""
        job_type = batch.registered.job_type
        self._begun[job_type] -= 1
        for other in self._aside:
            if other.registered.job_type == job_type:
                self._aside.remove(other)
                self._runs.capacity.waiting.appendleft(other)
                break

    def leave(self, item: Held) -> None:
        """Take a job out of its batch, which has not begun."""
        batch = item.batch
        assert batch is not None, "it is in a batch"
        batch.items.remove(item)
        if not batch.items:
            line = self._aside if batch in self._aside else self._runs.capacity.waiting
            line.remove(batch)

    def cancel(self, item: Held) -> bool:
        """Note that a job of a batch that runs is to be cancelled; return whether the same holds for all others."""
        item.stop = "cancel"
        if item.current is not None:
            request_cancel(item.current)
        return item.batch is not None and all(each.stop == "cancel" for each in item.batch.items)

    def take_aside(self) -> list[HeldBatch]:
        """Give up all batches that were set aside, and return them."""
        aside, self._aside = self._aside, []
        return aside

    def conclude(self, batch: HeldBatch, value: object, error: BaseException | None) -> None:
        """Settle each claim of a batch: as the batch itself has done, or as what it returned or raised says."""
        current, desk = self._running.pop(batch)
        outcomes: dict[str, object] = {}
        if error is None and not desk.sent:
            try:
                outcomes = outcomes_of(current, value)
            except Exception as wrong:
                error = wrong
        for item in batch.items:
            item.running = False
            item.stop = item.stop or batch.stop
            outcome = outcomes.get(item.job.id) if error is None else error
            if desk.sent:
                sent = desk.sent[item.job.id]
                surplus = "" if error is None or batch.stop is not None else f"raised {shown(error)}"
                self._runs.settle(item, replace(released(item.job), sent=sent, surplus=surplus))
            elif desk.gives_back:
                self._runs.settle(item, released(item.job))
            elif isinstance(outcome, BaseException):
                self._runs.conclude(item, None, outcome)
            else:
                self._runs.conclude(item, outcome, None)

    def _hand_back(self, batch: HeldBatch) -> None:
        if batch in self._aside:
            self._aside.remove(batch)
            for item in batch.items:
                item.stop = "release"
                self._runs.settle(item, released(item.job))
