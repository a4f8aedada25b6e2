"""Resident jobs, run by a worker: one of the type, and it never ends."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from engine.helpers import SOON, count, query, until

from piecework import CurrentJob, Fail, JobNotFinished, Jobs, Reschedule, ResidentJobRunner, RetrySettings

AT_ONCE = RetrySettings(n_attempts=1, min_backoff=timedelta(0), max_backoff=timedelta(0))
HOUR = Reschedule.after(timedelta(hours=1))


@pytest.mark.postgres(18, 15)
async def test_there_is_one_job_of_the_type_and_its_first_config_stays(jobs: Jobs, dsn: str) -> None:
    seen: list[int] = []

    @jobs.resident
    async def sweep(every: int) -> Reschedule:
        seen.append(every)
        return Reschedule.now() if len(seen) < 3 else HOUR

    handle = await sweep.spawn(1)
    assert handle.created
    again = await sweep.spawn(2)
    assert (again.id, again.created) == (handle.id, False)
    many = await jobs.spawn_all([sweep.spec(3), sweep.spec(4)])
    assert [each.id for each in many] == [handle.id] * 2
    async with jobs.worker():
        await until(lambda: len(seen) == 3)
        assert (await sweep.spawn(5)).id == handle.id
        with pytest.raises(JobNotFinished):
            await handle.result(timeout=timedelta(milliseconds=10))
    assert seen == [1, 1, 1]
    assert count(dsn, "jobs") == 1
    assert count(dsn, "finished_jobs") == 0


async def test_many_spawns_at_once_make_one_job(jobs: Jobs, dsn: str) -> None:
    @jobs.resident
    async def sweep(every: int) -> Reschedule:
        return HOUR

    handles = await asyncio.gather(*(sweep.spawn(number) for number in range(20)))
    assert len({handle.id for handle in handles}) == 1
    assert [handle.created for handle in handles].count(True) == 1
    assert count(dsn, "jobs") == 1


def completes() -> Any:
    return "done"


def returns_nothing() -> Any:
    return None


def returns_fail() -> Any:
    return Fail("it is no use")


def raises_fail() -> Any:
    raise Fail("it is no use")


def raises() -> Any:
    raise ValueError("boom")


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize(
    "end, kind, says",
    [
        (completes, "TypeError", "returned 'done': a resident job never ends, so it returns Reschedule.now()"),
        (returns_nothing, "TypeError", "returned None: a resident job never ends"),
        (returns_fail, "TypeError", "returned Fail('it is no use'): a resident job never ends"),
        (raises_fail, "RuntimeError", "raised Fail('it is no use'): a resident job never ends"),
        (raises, "ValueError", "boom"),
    ],
)
async def test_whatever_but_rescheduling_is_a_failed_attempt_and_another_follows(
    jobs: Jobs, dsn: str, end: Any, kind: str, says: str, in_thread: bool
) -> None:
    attempts: list[int] = []
    healthy = threading.Event()

    def sweep(job: CurrentJob) -> Reschedule:
        attempts.append(job.attempt)
        if len(attempts) < 5:
            return end()
        healthy.set()
        return HOUR

    async def sweep_on_loop(job: CurrentJob) -> Reschedule:
        return sweep(job)

    resident = jobs.resident("sweep", retry=AT_ONCE)(sweep if in_thread else sweep_on_loop)
    async with jobs.worker():
        handle = await resident.spawn()
        await until(healthy.is_set)
    assert attempts == [1, 2, 3, 4, 5]
    failed = query(
        dsn, "SELECT error->>'type', error->>'message' FROM piecework.attempts WHERE job_id = %s AND move = 'retry'",
        handle.id,
    )  # fmt: skip
    assert len(failed) == 4
    assert kind in str(failed[0][0])
    assert says in str(failed[0][1])
    assert (await handle.load()).status == "pending"


async def test_a_resident_runner_reschedules_itself_and_cannot_end(jobs: Jobs, dsn: str) -> None:
    ends: list[Any] = [Reschedule.now(), "done", Fail("no"), HOUR]

    class Sweep(ResidentJobRunner[None]):
        job_type = "sweep"
        retry = AT_ONCE

        async def run(self, job: CurrentJob[None]) -> Reschedule:
            assert job.config is None
            return ends.pop(0)  # type: ignore[no-any-return]

    sweep = jobs.add(Sweep())
    async with jobs.worker():
        handle = await sweep.spawn(None)
        assert not (await sweep.spawn(None)).created
        await until(lambda: not ends)
        with pytest.raises(JobNotFinished):
            await handle.result(timeout=timedelta(milliseconds=10))
    assert query(dsn, "SELECT move FROM piecework.attempts ORDER BY claim_no") == [
        ("reschedule",), ("retry",), ("retry",), ("reschedule",)
    ]  # fmt: skip


async def test_after_a_cancel_the_next_spawn_makes_a_new_one(jobs: Jobs) -> None:
    @jobs.resident
    async def sweep() -> Reschedule:
        return HOUR

    first = await sweep.spawn()
    assert await first.cancel()
    second = await sweep.spawn()
    assert second.created
    assert second.id != first.id
    assert (await first.wait(timeout=SOON)).status == "cancelled"
