"""What a look at the tasks and threads of a worker shows."""

from __future__ import annotations

import asyncio
import contextvars
import threading

from engine.helpers import SOON

from piecework import CurrentJob, Jobs


def task_names() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks()]


def thread_names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


async def test_tasks_and_threads_of_a_worker_bear_names_that_say_what_they_are(jobs: Jobs) -> None:
    async with jobs.worker():
        assert {"job-poller-main-loop", "job-completer", "job-listener"} <= set(task_names())
        assert "job-heartbeat" in thread_names()


async def test_an_async_job_runs_in_a_task_with_its_name(jobs: Jobs) -> None:
    @jobs.job("send-email")
    async def send_email() -> str:
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    async with jobs.worker():
        handle = await send_email.spawn()
        assert await handle.result(timeout=SOON) == f"job-send-email-{handle.id}"


async def test_a_plain_job_runs_in_a_thread_with_its_name_and_leaves_none_behind(jobs: Jobs) -> None:
    @jobs.job("build-report")
    def build_report(job: CurrentJob) -> str:
        return threading.current_thread().name

    async with jobs.worker():
        for _ in range(2):
            handle = await build_report.spawn()
            assert await handle.result(timeout=SOON) == f"job-build-report-{handle.id}"
        assert "piecework-thread" in thread_names()
        assert not [name for name in thread_names() if "build-report" in name]


async def test_a_job_sees_the_context_in_which_its_worker_was_started_and_changes_it_for_itself_alone(
    jobs: Jobs,
) -> None:
    mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="none")

    @jobs.job
    def plain() -> str:
        before = mark.get()
        mark.set("plain")
        return before

    @jobs.job
    async def on_the_loop() -> str:
        before = mark.get()
        mark.set("on the loop")
        return before

    mark.set("app")
    async with jobs.worker():
        handles = await jobs.spawn_all([plain.spec(), on_the_loop.spec(), plain.spec(), on_the_loop.spec()])
        assert await handles.results(timeout=SOON) == ["app"] * 4
