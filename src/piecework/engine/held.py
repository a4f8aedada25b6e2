"""A claim in the hands of a worker, and claims that run together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from piecework.engine.deadlines import Deadline
from piecework.engine.tracing import RunTrace
from piecework.model.job import ClaimedJob
from piecework.work.current_job import CurrentJob, sent_by
from piecework.work.registry import RegisteredJob

Stop: TypeAlias = Literal["release", "drop", "cancel", "timeout"]
"""Why a run was stopped. The worker itself stops: the claim is handed back, or it is another's already. Or somebody
cancelled the job, or the run took too long."""


@dataclass(slots=True, eq=False)
class Chain:
    """Claims of one concurrency key that wait for their turn."""

    line: deque[Held]
    moved: float
    """When one of them was the last to get its turn, in the seconds of the loop."""


class Held:
    """A claim, from its landing until its settle landed."""

    __slots__ = (
        "batch", "chain", "current", "deadline", "ended", "in_thread", "job", "registered", "running", "started",
        "stepped", "stop", "task", "trace", "waits", "worker_id",
    )  # fmt: skip

    def __init__(self, job: ClaimedJob, registered: RegisteredJob, worker_id: str) -> None:
        self.job = job
        self.registered = registered
        self.worker_id = worker_id
        self.in_thread = not registered.is_async
        self.current: CurrentJob | None = None
        self.trace: RunTrace | None = None
        self.started: float | None = None
        self.stepped: float | None = None
        """When its task made its first step: the loop may have had other things to do before."""
        self.running = False
        self.ended = False
        """Whether its batch has ended the job in a transaction, and goes on."""
        self.stop: Stop | None = None
        """The first reason wins, except that a claim which is another's is dropped in any case."""
        self.task: asyncio.Task[None] | None = None
        self.deadline: Deadline[Held] | None = None
        """Of its timeout, and when it was stopped, of our patience."""
        self.batch: HeldBatch | None = None
        """Which it runs in."""
        self.chain: Chain | None = None
        """Whose next job takes its place when it has ended, or in which it waits."""
        self.waits = False
        """Whether it waits in its chain, or has left it without a place: then it holds no capacity."""

    @property
    def returns_soon(self) -> bool:
        """Whether the job was ended in a transaction by what still runs."""
        return self.ended or (self.current is not None and sent_by(self.current) is not None)

    @property
    def claims(self) -> Sequence[Held]:
        """The claims that run as this one."""
        return (self,)

    @property
    def task_name(self) -> str:
        """The name of the task or thread that runs it."""
        return f"job-{self.job.job_type}-{self.job.id}"


class HeldBatch(Held):
    """Claims that run together: one unit of capacity, one task, one deadline. It stands for them where these count."""

    __slots__ = ("items", "left")

    def __init__(self, items: list[Held]) -> None:
        first = items[0]
        super().__init__(first.job, first.registered, first.worker_id)
        self.items = items
        """Those that are to run, or do."""
        self.left = len(items)
        """How many of them hold the capacity: their settles have not landed."""
        for item in items:
            item.batch = self

    @property
    def claims(self) -> Sequence[Held]:
        """The claims that run as this one."""
        return self.items

    @property
    def task_name(self) -> str:
        """The name of the task that runs it."""
        return f"job-batch-{self.job.job_type}-{len(self.items)}"
