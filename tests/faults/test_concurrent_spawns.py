"""Many callers spawn one job each at the same time: each job is there once, and each caller knows of it."""

from __future__ import annotations

import asyncio
import threading

import pytest
from engine.helpers import count, query

from piecework import DatabaseUnreachable, JobAlreadyExists, JobFunction, Jobs, new_id
from piecework.testing import FaultProxy, Moment

MANY = 120
SPAWN = rb"spawn_\d"


def note(jobs: Jobs) -> JobFunction:
    @jobs.job
    async def note(number: int) -> None: ...

    return note


def stored(dsn: str) -> set[object]:
    return {id for [id] in query(dsn, "SELECT id FROM piecework.jobs")}


def transactions(dsn: str) -> int:
    return int(str(query(dsn, "SELECT count(DISTINCT xmin::text) FROM piecework.jobs")[0][0]))


@pytest.mark.parametrize("moment", ["answer", "request", "after"])
@pytest.mark.parametrize("times", [1, 2])
async def test_jobs_whose_connection_broke_are_there_once(dsn: str, moment: Moment, times: int) -> None:
    async with FaultProxy(dsn) as proxy, Jobs(proxy.dsn) as jobs:
        work = note(jobs)
        await work.spawn(0)
        trap = proxy.trap(moment, SPAWN, times=times)
        outcomes = await asyncio.gather(*[work.spawn(n) for n in range(MANY)], return_exceptions=True)
        assert trap.hits == times
    handles = [each for each in outcomes if not isinstance(each, BaseException)]
    assert all(isinstance(each, DatabaseUnreachable) for each in outcomes if isinstance(each, BaseException))
    assert {handle.id for handle in handles} <= stored(dsn)
    assert all(handle.created for handle in handles)
    if times == 1:
        assert len(handles) == MANY
        assert count(dsn, "jobs") == MANY + 1


async def test_an_id_that_exists_fails_its_own_caller_alone(dsn: str) -> None:
    async with Jobs(dsn) as jobs:
        work, mine = note(jobs), new_id()
        await work.options(id=mine).spawn(0)
        calls = [(work.options(id=mine) if n == 50 else work).spawn(n) for n in range(MANY)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(outcomes.pop(50), JobAlreadyExists)
    assert {handle.id for handle in outcomes if not isinstance(handle, BaseException)} | {mine} == stored(dsn)
    assert count(dsn, "jobs") == MANY


async def test_of_callers_with_one_key_one_creates_the_job(dsn: str) -> None:
    async with Jobs(dsn) as jobs:
        work = note(jobs)
        calls = [(work.options(key="k") if n % 2 else work).spawn(n) for n in range(MANY)]
        handles = await asyncio.gather(*calls)
    keyed, plain = handles[1::2], handles[::2]
    assert [handle.created for handle in keyed].count(True) == 1
    assert len({handle.id for handle in keyed}) == 1
    assert all(handle.created for handle in plain)
    assert {handle.id for handle in handles} == stored(dsn)


def test_threads_that_spawn_at_the_same_time_share_transactions(dsn: str) -> None:
    ids: list[object] = []
    start = threading.Barrier(20)
    with Jobs(dsn) as jobs:
        work = note(jobs)

        def spawn() -> None:
            start.wait(20)
            for n in range(20):
                ids.append(work.spawn_sync(n).id)

        threads = [threading.Thread(target=spawn) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(ids) == stored(dsn)
    assert len(ids) == 400
    assert transactions(dsn) < 400


async def test_what_waits_when_the_jobs_is_closed_is_spawned(dsn: str) -> None:
    jobs = Jobs(dsn)
    work = note(jobs)
    async with jobs:
        calls = [asyncio.create_task(work.spawn(n)) for n in range(MANY)]
        await asyncio.sleep(0)
    handles = [await call for call in calls]
    assert {handle.id for handle in handles} == stored(dsn)
    assert transactions(dsn) < MANY


async def test_a_caller_that_gives_up_is_alone_in_that(dsn: str) -> None:
    async with Jobs(dsn) as jobs:
        work = note(jobs)
        calls = [asyncio.create_task(work.spawn(n)) for n in range(MANY)]
        await asyncio.sleep(0)
        for call in calls[::3]:
            call.cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await work.spawn(MANY)
    handles = [each for each in outcomes if not isinstance(each, BaseException)]
    assert len(handles) == MANY - MANY // 3
    assert {handle.id for handle in handles} <= stored(dsn)
