"""What a function that runs a batch gets: the jobs of the batch, and ways to say how each of them ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Generic, Protocol, TypeAlias, cast

import psycopg
from typing_extensions import TypeVar

from piecework.base.errors import BatchOutcomeMismatch, ProbesSpent
from piecework.base.ids import JobId
from piecework.base.texts import shown
from piecework.model.bisection import Bisection, ProbeBudget
from piecework.model.completion import Fail, Reschedule
from piecework.store.savepoints import intact, is_conflict, savepoint
from piecework.work.connections import AsyncConn
from piecework.work.current_job import CurrentJob

C = TypeVar("C", covariant=True, default=object)
R = TypeVar("R", covariant=True, default=None)
S = TypeVar("S")
T = TypeVar("T")

Outcome: TypeAlias = object
"""How one job of a batch ends: by `Reschedule`, by `Fail` (no further attempt), by another exception (its attempt has
failed), and anything else is its result."""
_AUTO = ProbeBudget.auto()
_MOST_NAMED = 20


class BatchItem(Generic[C]):
    """One job of a batch."""

    __slots__ = ("_job",)

    def __init__(self, job: CurrentJob[C]) -> None:
        self._job = job

    @property
    def id(self) -> JobId:
        """The job's id: the same in every attempt."""
        return self._job.id

    @property
    def job_type(self) -> str:
        """The name it was spawned under; an alias if it was spawned before the job type was renamed."""
        return self._job.job_type

    @property
    def queue(self) -> str:
        """The queue it was claimed from."""
        return self._job.queue

    @property
    def attempt(self) -> int:
        """The number of this attempt. From the second on a job is alone in its batch."""
        return self._job.attempt

    @property
    def claim_no(self) -> int:
        """The number of this claim of the job: it rises with each, and tells its runs apart."""
        return self._job.claim_no

    @property
    def config(self) -> C:
        """The decoded config."""
        return self._job.config

    @property
    def cancel_requested(self) -> bool:
        """Whether this job is to be cancelled: it ends so, unless it completes. The batch goes on, unless all are."""
        return self._job.cancel_requested

    def execution_state(self, type: type[S], /) -> S | None:
        """Return what was saved last, as `CurrentJob.execution_state` does."""
        return self._job.execution_state(type)

    async def save_state(self, state: object, /, *, conn: AsyncConn | None = None) -> None:
        """Save what the next run of the job is to find, as `CurrentJob.save_state` does."""
        await self._job.save_state(state, conn=conn)

    async def set_result(self, result: object, /, *, conn: AsyncConn | None = None) -> None:
        """Store the job's result so far, as `CurrentJob.set_result` does."""
        await self._job.set_result(result, conn=conn)

    async def progress(self, done: float, note: str = "") -> None:
        """Tell whoever looks at the job how far it is, as `CurrentJob.progress` does."""
        await self._job.progress(done, note)

    def __repr__(self) -> str:
        return f"<BatchItem {self.job_type} {self.id} attempt {self.attempt}>"


class BatchOutcomes(Generic[R]):
    """One outcome for each job of a batch. Made by `CurrentBatch.outcomes`, `run_isolated` and `run_bisected`, or of
    ids and outcomes, where a job that is left out, foreign or named twice makes the whole batch fail.

    Args:
        outcomes: a mapping, or pairs. An outcome is the job's result, `Reschedule`, `Fail`, which ends the job, or any
            other exception, after which it is tried again as its retry settings say.
    """

    def __init__(
        self,
        outcomes: Mapping[JobId, R | Reschedule | Fail | Exception]
        | Iterable[tuple[JobId, R | Reschedule | Fail | Exception]],
    ) -> None:
        pairs = cast("Mapping[JobId, Outcome]", outcomes).items() if isinstance(outcomes, Mapping) else outcomes
        self._pairs: tuple[tuple[JobId, Outcome], ...] = tuple(pairs)

    def __repr__(self) -> str:
        return f"<BatchOutcomes of {len(self._pairs)} jobs>"


class Desk(Protocol):
    """Where a batch can end its jobs before its function returns."""

    def transaction(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection]:
        """Lend a connection in a transaction, which is committed in the end."""
        ...

    def check_result(self, value: object) -> None:
        """Raise what storing this result would raise."""

    async def complete(self, conn: psycopg.AsyncConnection, outcomes: Mapping[str, Outcome]) -> None:
        """Write how the jobs end, in the transaction; raise `ClaimLost` if one of them is another worker's now."""


class CurrentBatch(Generic[C]):
    """The jobs that run together now."""

    __slots__ = ("_desk", "_first", "_items", "_used")

    def __init__(self, jobs: Sequence[CurrentJob[C]], desk: Desk) -> None:
        self._items = tuple(BatchItem(job) for job in jobs)
        self._first = jobs[0]
        self._desk = desk
        self._used = False

    @property
    def items(self) -> Sequence[BatchItem[C]]:
        """The jobs, at least one. No two have the same concurrency key; those that have one stand first, in the order
        of their keys, the others in the order of their ids."""
        return self._items

    @property
    def shutdown_requested(self) -> bool:
        """Whether the worker wants to stop: end soon. What has no outcome by then is handed back."""
        return self._first.shutdown_requested

    async def wait_for_shutdown(self) -> None:
        """Wait until the worker wants to stop."""
        await self._first.wait_for_shutdown()

    def outcomes(self, each: Callable[[BatchItem[C]], T | Reschedule | Fail], /) -> BatchOutcomes[T]:
        """Call `each` with every job, and return what it returned, or raised, as that job's outcome."""

        def outcome(item: BatchItem[C]) -> T | Reschedule | Fail | Exception:
            try:
                return each(item)
            except Exception as error:
                return error

        return BatchOutcomes([(item.id, outcome(item)) for item in self._items])

    async def run_isolated(
        self, each: Callable[[BatchItem[C], psycopg.AsyncConnection], Awaitable[T | Reschedule | Fail]], /
    ) -> BatchOutcomes[T]:
        """Run `each` for one job after the other, in one transaction with a savepoint around each.

        What it raises undoes what it wrote for that job alone, and is the job's outcome; what it returns keeps it. When
        all have run, the ends of the jobs are written in the same transaction: what `each` wrote and how the jobs ended
        is committed together or not at all. A batch can do this once.

        Raises:
            ClaimLost: a job of the batch is another worker's by now. Nothing is committed, the others are handed back.
            DatabaseError, psycopg.Error: the transaction cannot be begun, or cannot be committed.
        """

        async def run(conn: psycopg.AsyncConnection) -> list[Outcome]:
            return [await self._isolated(item, conn, each) for item in self._items]

        return cast("BatchOutcomes[T]", await self._in_transaction(run))

    async def _isolated(
        self,
        item: BatchItem[C],
        conn: psycopg.AsyncConnection,
        each: Callable[[BatchItem[C], psycopg.AsyncConnection], Awaitable[object]],
    ) -> Outcome:
        try:
            async with savepoint(conn):
                value = await each(item, conn)
                if not isinstance(value, Reschedule | Exception):
                    self._desk.check_result(value)
                return value
        except Exception as error:
            if not intact(conn):
                raise
            return error

    async def run_bisected(
        self,
        some: Callable[[Sequence[BatchItem[C]], psycopg.AsyncConnection], Awaitable[None]],
        /,
        *,
        budget: ProbeBudget = _AUTO,
    ) -> BatchOutcomes[None]:
        """Run `some` for all jobs at once, in one transaction; when it raises, search for those that it fails for.

        A range of jobs for which it raises is rolled back and halved, until the culprits stand alone or the budget is
        spent; the longest range is tried next. The jobs of a range for which it returns complete; a culprit's attempt
        fails with what was raised for it, that of a job of which nothing is known with `ProbesSpent`, and both run
        alone next time. A deadlock or a serialization failure says nothing about the jobs: the same range is tried
        again, twice in all, which the budget is not charged for. The ends of the jobs are committed as by
        `run_isolated`.

        `some` runs many times, for any jobs next to each other: what it does beside writing by its connection happens
        again each time.

        Raises:
            ClaimLost, DatabaseError, psycopg.Error: as `run_isolated`; also the third conflict of the search.
        """

        async def run(conn: psycopg.AsyncConnection) -> list[Outcome]:
            search = Bisection(len(self._items), budget)
            while (probe := search.next()) is not None:
                try:
                    async with savepoint(conn):
                        await some(self._items[probe.start : probe.end], conn)
                except Exception as error:
                    if not intact(conn) or (is_conflict(error) and not search.conflicted()):
                        raise
                    if not is_conflict(error):
                        search.failed(error)
                else:
                    search.succeeded()
            spent = ProbesSpent(
                f"the batch of {len(self._items)} jobs fails, and {budget.probes(len(self._items))} probes were spent "
                "before it was known whether because of this one: it runs alone next time"
            )
            unknown = dict.fromkeys(search.unresolved, spent)
            return [search.culprits.get(index, unknown.get(index)) for index in range(len(self._items))]

        return cast("BatchOutcomes[None]", await self._in_transaction(run))

    async def _in_transaction(
        self, run: Callable[[psycopg.AsyncConnection], Awaitable[list[Outcome]]]
    ) -> BatchOutcomes[object]:
        if self._used:
            raise RuntimeError("run_isolated or run_bisected was called for this batch before: its jobs have ended")
        async with self._desk.transaction() as conn:
            outcomes = await run(conn)
            pairs = [(item.id, outcome) for item, outcome in zip(self._items, outcomes, strict=True)]
            await self._desk.complete(conn, {str(id): outcome for id, outcome in pairs})
        self._used = True
        return BatchOutcomes(pairs)

    def __repr__(self) -> str:
        return f"<CurrentBatch of {len(self._items)} jobs>"


def outcomes_of(batch: CurrentBatch, returned: object) -> dict[str, Outcome]:
    """Return the outcome of each job of the batch, by its id, from what its function returned.

    Raises:
        TypeError: that was neither outcomes nor None.
        BatchOutcomeMismatch: not exactly one outcome per job.
    """
    ids = [item.id for item in batch.items]
    if returned is None:
        return {str(id): None for id in ids}
    if not isinstance(returned, BatchOutcomes):
        raise TypeError(f"a batch returns BatchOutcomes, or None when all its jobs complete, not {shown(returned)}: "
                        "write `return batch.outcomes(lambda item: …)`")
    pairs = cast("BatchOutcomes[object]", returned)._pairs  # pyright: ignore[reportPrivateUsage]
    found = dict(pairs)
    named = [id for id, _ in pairs]
    wrong = [
        *(f"{id} is not in the batch" for id in found if id not in ids),
        *(f"{id} has {named.count(id)}" for id in ids if named.count(id) != 1),
    ]
    if wrong:
        raise BatchOutcomeMismatch(
            f"the outcomes do not fit the batch of {len(ids)} jobs: {', '.join(wrong[:_MOST_NAMED])}. Each job needs "
            "exactly one: batch.outcomes(…) cannot miss any"
        )
    return {str(id): outcome for id, outcome in found.items()}
