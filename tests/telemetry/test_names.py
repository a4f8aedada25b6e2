"""S6, S7, S8: tasks and threads bear the seed's names, by default and without a flag."""

from __future__ import annotations

import asyncio
import re
import threading

import pytest
from engine.helpers import SOON

from piecework import Jobs

UNNAMED = re.compile(r"(Task|Thread|asyncio|ThreadPoolExecutor)[-_]\d")


class Started:
    """Every task and thread that is started from now on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tasks: list[asyncio.Task[object]] = []
        self.threads: list[str] = []
        create_task, start = asyncio.BaseEventLoop.create_task, threading.Thread.start

        def recorded_task(loop: asyncio.BaseEventLoop, *args: object, **more: object) -> asyncio.Task[object]:
            task: asyncio.Task[object] = create_task(loop, *args, **more)  # type: ignore[arg-type]
            if "BaseEventLoop.shutdown_" not in repr(task.get_coro()):  # asyncio.run ends a loop by tasks of its own
                self.tasks.append(task)
            return task

        def recorded_start(thread: threading.Thread) -> None:
            self.threads.append(thread.name)
            start(thread)

        monkeypatch.setattr(asyncio.BaseEventLoop, "create_task", recorded_task)
        monkeypatch.setattr(threading.Thread, "start", recorded_start)

    @property
    def names(self) -> set[str]:
        return {task.get_name() for task in self.tasks} | set(self.threads)

    def unnamed(self) -> set[str]:
        return {name for name in self.names if UNNAMED.match(name)}


async def test_s6_s7_s8_every_task_and_thread_of_a_worker_is_named_by_default(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = Started(monkeypatch)

    @jobs.job("send-email")
    async def send_email() -> str:
        return str(asyncio.current_task() and asyncio.current_task().get_name())  # type: ignore[union-attr]

    @jobs.job("build-report")
    def build_report() -> str:
        return threading.current_thread().name

    async with jobs.worker():
        sent = await send_email.spawn()
        built = await build_report.spawn()
        assert await sent.result(timeout=SOON) == f"job-send-email-{sent.id}"
        assert await built.result(timeout=SOON) == f"job-build-report-{built.id}"
    assert {"job-poller-main-loop", f"job-send-email-{sent.id}", "job-heartbeat"} <= started.names
    assert started.unnamed() == set()


def test_s8_what_serves_a_program_without_an_event_loop_is_named(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(monkeypatch)
    jobs = Jobs(dsn)

    @jobs.job
    def later() -> None: ...

    with jobs:
        handle = later.spawn_sync()
        assert handle.load_sync().job_type == "later"
        assert handle.cancel_sync()
    assert started.names == {"piecework-loop", "job-call"}
