"""The class form of a batched job type."""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic

from typing_extensions import TypeVar

from piecework.work.batch import BatchOutcomes, CurrentBatch
from piecework.work.runner import EndingRunner

C = TypeVar("C", contravariant=True)
R = TypeVar("R", covariant=True, default=None)

MAX_BATCH_SIZE = 25
MAX_CONCURRENT_BATCHES = 2


class BatchedJobRunner(EndingRunner[C], Generic[C, R]):
    """Runs the jobs of one type together, a batch of those that are due at a time; spawned one by one, as any others.

    `C` and `R` as those of `JobRunner`. A batch is what one claim took: it is not waited for more. It counts as one
    among the jobs that run at once, and `timeout` limits its run as a whole.
    """

    max_batch_size: int = MAX_BATCH_SIZE
    """At most so many jobs run together."""
    max_concurrent_batches: int = MAX_CONCURRENT_BATCHES
    """At most so many batches run at once in one worker process."""

    @abstractmethod
    async def run_batch(self, batch: CurrentBatch[C], /) -> BatchOutcomes[R] | None:
        """Do the jobs, and return an outcome for each, or `None` when all are complete.

        What this raises fails the attempts of all of them, and each is tried again alone.
        """
