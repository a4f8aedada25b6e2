"""Why a job does not run: each reason, and what it names."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from click.testing import CliRunner
from engine.app import App, settings
from engine.fixtures import Gate
from engine.helpers import SOON, WorkerProcess, count, until

from piecework import JobHandle, JobNotFound, Jobs, RetrySettings, new_id
from piecework.cli.main import command
from piecework.testing import ManualClock

DAY = timedelta(days=1)


async def why(handle: JobHandle[object]) -> str:
    explanation = await handle.explain()
    assert explanation.id == handle.id
    return f"{explanation.reason}: {explanation.text}"


async def test_a_job_that_is_due_later_says_when(jobs: Jobs) -> None:
    @jobs.job
    async def work() -> None: ...

    handle = await work.options(delay=DAY).spawn()
    run_at = (await handle.load()).run_at
    assert run_at is not None
    said = await why(handle)
    assert said.startswith(f"not_due: it may run at {run_at.isoformat(sep=' ', timespec='seconds')}, 86")
    assert said.endswith("s from now; attempt 1")
    async with ManualClock(jobs) as clock:
        assert "from now by the manual clock that is set for tests" in await why(handle)
        await clock.advance(2 * DAY)
        assert (await handle.explain()).reason == "no_worker", "due times go by it"


async def test_a_job_that_nobody_runs_says_who_is_missing(jobs: Jobs) -> None:
    @jobs.job
    async def work() -> None: ...

    handle = await work.spawn()
    elsewhere = await work.options(queue="reports").spawn()
    assert "no_worker: it is due, and no worker lives" in await why(handle)
    async with Jobs(service_dsn(jobs)) as others:

        @others.job
        async def unrelated() -> None: ...

        async with others.worker():
            assert "none of the 1 workers of the queue 'default' knows the job type 'work'" in await why(handle)
            assert "none of the 1 workers that live takes from the queue 'reports': start" in await why(elsewhere)


async def test_a_job_behind_its_concurrency_key_names_who_holds_it(jobs: Jobs, dsn: str) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    @jobs.job(concurrency_key="c")
    async def hold() -> None:
        started.set()
        await go_on.wait()

    async with jobs.worker():
        first = await hold.spawn()
        await started.wait()
        second, third = await hold.spawn(), await hold.spawn()
        await until(lambda: count(dsn, "jobs WHERE parked") == 2)
        assert await why(second) == (
            "behind_key: it waits behind its concurrency key 'c', of which 1 may run at once: held by "
            f"{first.id}, and 0 due jobs of the key come before it"
        )
        assert "and 1 due jobs of the key come before it" in await why(third)
        assert (await third.explain()).holders == (first.id,)
        running = await first.explain()
        assert running.reason == "running"
        assert running.worker_id == (await first.load()).worker_id
        await jobs.set_concurrency_limit("c", 0)
        assert "key_paused: the concurrency key 'c' is paused, or its limit is 0" in await why(second)
        await jobs.set_concurrency_limit("c", None)
        go_on.set()
        await third.result(timeout=SOON)


async def test_a_job_that_waits_for_its_turn_says_that_workers_live(jobs: Jobs) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    @jobs.job
    async def hold() -> None:
        started.set()
        await go_on.wait()

    async with jobs.worker(settings(concurrency=1, prefetch=0)):
        await hold.spawn()
        await started.wait()
        waiting = await hold.spawn()
        assert "waiting: it is due, and waits for its turn: 1 workers that live take" in await why(waiting)
        go_on.set()
        await waiting.result(timeout=SOON)


async def test_a_job_that_runs_says_where_and_whether_it_is_to_stop(
    app: App, workers: Callable[..., WorkerProcess], gate: Gate
) -> None:
    worker = workers()
    handle = await app.clings.spawn(str(gate))
    await until(app.ledger.runs)
    said = await why(handle)
    assert f"pid {worker.pid} (worker " in said
    assert said.startswith("running: it runs on ")
    assert said.endswith("attempt 1")
    await handle.cancel()
    assert (await why(handle)).endswith("attempt 1. Its cancellation is requested")
    gate.open()
    await handle.wait(timeout=SOON)


async def test_a_job_that_ended_says_how(jobs: Jobs) -> None:
    @jobs.job(retry=RetrySettings.never())
    async def work(number: int) -> float:
        return 1 / number

    good, bad = await jobs.spawn_all([work.spec(1), work.spec(0)])
    async with jobs.worker():
        await good.wait(timeout=SOON)
        await bad.wait(timeout=SOON)
    assert "finished: it ended completed at " in await why(good)
    assert (await why(bad)).endswith("in attempt 1: ZeroDivisionError: division by zero")
    assert (await asyncio.to_thread(bad.explain_sync)).reason == "finished"


async def test_a_job_that_is_not_there_is_an_error(jobs: Jobs) -> None:
    with pytest.raises(JobNotFound):
        await jobs.handle(new_id()).explain()
    with pytest.raises(JobNotFound):
        await asyncio.to_thread(jobs.handle(new_id()).explain_sync)


async def test_the_command_line_says_why(jobs: Jobs, dsn: str) -> None:
    @jobs.job(concurrency_key="c")
    async def work() -> None: ...

    handle = await work.options(key="k").spawn()

    def show(*options: str) -> str:
        return CliRunner().invoke(command, ["jobs", "show", str(handle.id), "--database-url", dsn, *options]).output

    text = await asyncio.to_thread(show)
    lines = {line[:15].strip(): line[16:] for line in text.splitlines()}
    assert lines["key"] == "k"
    assert lines["concurrency key"] == "c"
    assert lines["why"] == "it is due, and no worker lives: start one by `piecework worker MODULE:JOBS`"
    assert json.loads(await asyncio.to_thread(show, "--json"))["why"] == {
        "id": str(handle.id), "reason": "no_worker", "text": lines["why"], "holders": [], "worker_id": None,
    }  # fmt: skip


def service_dsn(jobs: Jobs) -> str:
    from piecework.jobs import service_of

    return service_of(jobs).store.dsn
