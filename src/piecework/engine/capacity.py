"""What a worker holds, and how much more it may take (invariant E). Used on the worker's loop only."""

from __future__ import annotations

from collections import Counter, deque

from piecework.engine.held import Held
from piecework.model.settings import WorkerSettings

_SHORT_RUN = 0.05
_EWMA = 0.02


class Capacity:
    """Counts of what is held: reserved when a claim lands, given back when its settle landed, exactly once.

    Jobs beyond `concurrency` are prefetched while runs are short, so that the next claim overlaps with this one's runs.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._concurrency = settings.concurrency
        self._threads = settings.threads
        self._prefetch = settings.prefetch
        self._held: Counter[str] = Counter()
        self._held_in_threads = 0
        self._mean_run: float | None = None
        self.held = 0
        self.started = 0
        """Jobs whose run has begun and whose settle has not landed. A batch counts as one."""
        self.waiting: deque[Held] = deque()
        """Claimed and not begun, in order; jobs that are to run in a batch as that."""

    @property
    def window(self) -> int:
        """How many jobs may be held in all, for now."""
        short = self._mean_run is not None and self._mean_run < _SHORT_RUN
        return self._concurrency + (min(self._prefetch, self._concurrency) if short else 0)

    @property
    def room(self) -> int:
        """How many more jobs, or batches of them, may be claimed."""
        return max(self.window - self.held, 0)

    @property
    def may_start(self) -> bool:
        """Whether another run may begin."""
        return self.started < self._concurrency

    @property
    def room_to_start(self) -> int:
        """How many more jobs, or batches, could begin at once if they were claimed."""
        return max(self._concurrency - self.held, 0)

    @property
    def free_threads(self) -> int:
        """How many more `def` jobs may be claimed: each has its thread from the start."""
        return max(self._threads - self._held_in_threads, 0)

    def room_of(self, job_type: str, limit: int) -> int:
        """How many more jobs, or batches, of a type with a limit of its own may be claimed."""
        return max(limit - self._held[job_type], 0)

    def reserve(self, unit: Held) -> None:
        """Count a job, or a batch, under the present name of its type, and have it wait for its run."""
        self.held += 1
        self._held[unit.registered.job_type] += 1
        self._held_in_threads += unit.in_thread
        self.waiting.append(unit)

    def free(self, unit: Held) -> None:
        """Give back what a job, or a batch, had reserved."""
        self.held -= 1
        self._held[unit.registered.job_type] -= 1
        self._held_in_threads -= unit.in_thread
        self.started -= unit.started is not None

    def lasted(self, seconds: float) -> None:
        """Note how long a run took: prefetching follows from it."""
        mean = self._mean_run
        self._mean_run = seconds if mean is None else mean + _EWMA * (seconds - mean)

    def overestimated(self) -> None:
        """Note that what was prefetched did not get its turn: prefetch no more until runs have been short for long."""
        self._mean_run = 1.0
