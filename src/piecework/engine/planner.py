"""What the next claims ask for: the lanes that have work, cut down to what could run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from piecework.engine.capacity import Capacity
from piecework.model.lanes import Call, Lane, allot, calls
from piecework.work.registry import RegisteredJob, Registry


class Planner:
    """Divides the free capacity among lanes. Who comes first changes from one plan to the next."""

    def __init__(self, registry: Registry, capacity: Capacity) -> None:
        self._registry = registry
        self._capacity = capacity
        self._rotation = 0

    def plan(self, due: Collection[Lane], most: int, apart: Collection[Lane]) -> list[Call]:
        """Return the claims to be made, in their order, of at most `most` jobs (of batched job types: batches).

        Args:
            due: the lanes that may have due jobs.
            apart: those that are claimed from by calls of their own.
        """
        names = self._registry.job_types
        registered = {name: job for name in names if (job := self._registry.get(name)) is not None}
        plain = frozenset(n for n, job in registered.items() if not job.is_async)
        self._rotation += 1
        shared = (plain, self._capacity.free_threads)
        asked = allot(sorted(due), most, self._caps(due, registered), shared, self._rotation)
        sizes = {n: job.batching.max_size for n, job in registered.items() if job.batching is not None}
        return calls(asked, sizes, apart)

    def _caps(self, due: Collection[Lane], registered: Mapping[str, RegisteredJob]) -> dict[str, int]:
        """Return the room left of each job type with a limit of its own. Its former names share it, by turns."""
        caps: dict[str, int] = {}
        sharing: defaultdict[RegisteredJob, list[str]] = defaultdict(list)
        for name in sorted({lane.job_type for lane in due}):
            job = registered.get(name)
            if job is not None and job.max_concurrent_per_process is not None:
                sharing[job].append(name)
                caps[name] = 0
        for job, names in sharing.items():
            assert job.max_concurrent_per_process is not None
            room = self._capacity.room_of(job.job_type, job.max_concurrent_per_process)
            if job.batching is not None:
                room = min(room, self._capacity.room_to_start)
            caps[names[self._rotation % len(names)]] = room
        return caps
