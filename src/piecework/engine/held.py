"""A claim in the hands of a worker."""

from __future__ import annotations

import asyncio
from typing import Literal, TypeAlias

from piecework.engine.deadlines import Deadline
from piecework.engine.tracing import RunTrace
from piecework.model.job import ClaimedJob
from piecework.work.current_job import CurrentJob
from piecework.work.registry import RegisteredJob

Stop: TypeAlias = Literal["release", "drop", "cancel", "timeout"]
"""Why a run was stopped. The worker itself stops: the claim is handed back, or it is another's already. Or somebody
cancelled the job, or the run took too long."""


class Held:
    """A claim, from its landing until its settle landed."""

    __slots__ = (
        "current", "deadline", "in_thread", "job", "registered", "running", "started", "stop", "task", "trace",
        "worker_id",
    )  # fmt: skip

    def __init__(self, job: ClaimedJob, registered: RegisteredJob, worker_id: str) -> None:
        self.job = job
        self.registered = registered
        self.worker_id = worker_id
        self.in_thread = not registered.is_async
        self.current: CurrentJob | None = None
        self.trace: RunTrace | None = None
        self.started: float | None = None
        self.running = False
        self.stop: Stop | None = None
        """The first reason wins, except that a claim which is another's is dropped in any case."""
        self.task: asyncio.Task[None] | None = None
        self.deadline: Deadline[Held] | None = None
        """Of its timeout, and when it was stopped, of our patience."""
