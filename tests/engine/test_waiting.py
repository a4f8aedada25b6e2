"""Waiting for jobs that another process runs."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
from engine.app import App
from engine.fixtures import Gate
from engine.helpers import SOON, WorkerProcess, count, until

from piecework import JobCancelled, JobErrored, JobNotFinished, JobNotFound, Jobs

Workers = Callable[..., WorkerProcess]
NOT_LONG = timedelta(milliseconds=200)


async def test_the_result_of_a_job_that_another_process_runs_arrives(workers: Workers, app: App) -> None:
    handle = await app.erratic.spawn(3)
    waiting_before = handle.result(timeout=SOON)
    workers()
    assert await waiting_before == 3
    assert await handle.result(timeout=SOON) == 3
    assert (await handle.wait(timeout=timedelta(0))).result == 3


async def test_a_wait_that_times_out_raises_and_the_job_goes_on(workers: Workers, app: App, gate: Gate) -> None:
    workers()
    handle = await app.waits.spawn(str(gate))
    await until(app.ledger.runs)
    with pytest.raises(JobNotFinished, match="is still running"):
        await handle.result(timeout=NOT_LONG)
    with pytest.raises(TimeoutError):
        await handle.wait(timeout=NOT_LONG)
    gate.open()
    assert await handle.result(timeout=SOON) == "through"
    assert len(app.ledger.runs()) == 1


async def test_a_job_that_errored_elsewhere_raises_its_reason(workers: Workers, app: App) -> None:
    workers()
    handle = await app.erratic.spawn(7)
    with pytest.raises(JobErrored, match="unlucky number"):
        await handle.result(timeout=SOON)
    outcome = await handle.wait(timeout=SOON)
    assert outcome.status == "errored"
    assert outcome.error is not None
    assert outcome.error.message == "unlucky number"


async def test_a_job_that_was_cancelled_before_it_ran_raises_that(workers: Workers, app: App, dsn: str) -> None:
    handle = await app.note.options(delay=timedelta(hours=1)).spawn()
    workers()
    assert await handle.cancel()
    with pytest.raises(JobCancelled):
        await handle.result(timeout=SOON)
    assert (await handle.wait(timeout=SOON)).status == "cancelled"
    assert count(dsn, "jobs") == 0


async def test_waiting_for_a_job_that_does_not_exist_raises_at_once(app: App) -> None:
    with pytest.raises(JobNotFound):
        await app.jobs.handle(uuid.uuid4()).result(timeout=SOON)


async def test_many_waits_for_many_jobs_are_all_answered(workers: Workers, app: App) -> None:
    handles = await app.jobs.spawn_all(app.nap.spec(0.001 * (n % 50)) for n in range(500))
    workers()
    assert len(await handles.results(timeout=SOON)) == 500


async def test_a_job_is_waited_for_by_another_jobs_object_by_its_id(workers: Workers, app: App, dsn: str) -> None:
    workers()
    handle = await app.erratic.spawn(5)
    async with Jobs(dsn) as elsewhere:
        assert await elsewhere.handle(handle.id).result(timeout=SOON) == 5
