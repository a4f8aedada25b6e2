"""`spawn_all` of many jobs, which are inserted part by part: all of them or none, whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engine.helpers import count, query

from piecework import InvalidOptions, JobAlreadyExists, JobFunction, Jobs, JobSpec
from piecework.testing import FaultProxy, Moment

MANY = 3_500
SPAWN = rb"spawn_\d"


def note(jobs: Jobs) -> JobFunction:
    @jobs.job
    async def note(number: int) -> None: ...

    return note


async def test_many_jobs_are_spawned_in_the_order_of_their_specs(dsn: str) -> None:
    async with Jobs(dsn) as jobs:
        work = note(jobs)
        handles = await jobs.spawn_all(work.spec(number) for number in range(MANY))
    assert len(handles) == MANY
    stored = query(dsn, "SELECT id, (config->>'number')::integer FROM piecework.jobs ORDER BY run_at, id")
    assert stored == [(handle.id, number) for number, handle in enumerate(handles)]


@pytest.mark.parametrize("good", [0, 500, 1_000, 2_700])
async def test_specs_that_cannot_be_made_leave_nothing_of_those_before_them(dsn: str, good: int) -> None:
    async with Jobs(dsn) as jobs:
        work = note(jobs)

        def specs() -> Iterator[JobSpec[object]]:
            yield from (work.spec(number) for number in range(good))
            raise LookupError("no more")

        with pytest.raises(LookupError, match="no more"):
            await jobs.spawn_all(specs())
        twice = work.spec(0)
        with pytest.raises(InvalidOptions, match="a spec twice"):
            await jobs.spawn_all([twice, *[work.spec(number) for number in range(good)], twice])
        assert count(dsn, "jobs") == 0
        await work.spawn(1)
    assert count(dsn, "jobs") == 1


async def test_a_key_among_the_late_ones_is_answered_with_its_holder(dsn: str) -> None:
    async with Jobs(dsn) as jobs:
        work = note(jobs)
        holder = await work.options(key="one").spawn(0)
        specs = [*[work.spec(number) for number in range(MANY)], work.options(key="one").spec(1)]
        handles = await jobs.spawn_all(specs)
    assert (handles[-1].id, handles[-1].created) == (holder.id, False)
    assert all(handle.created for handle in handles[:-1])
    assert count(dsn, "jobs") == MANY + 1


async def test_an_id_that_exists_among_the_late_ones_leaves_nothing(dsn: str) -> None:
    async with Jobs(dsn) as jobs:
        work = note(jobs)
        there = await work.spawn(0)
        with pytest.raises(JobAlreadyExists, match=str(there.id)):
            await jobs.spawn_all([*[work.spec(number) for number in range(MANY)], work.options(id=there.id).spec(1)])
    assert count(dsn, "jobs") == 1


@pytest.mark.parametrize("moment", ["answer", "request", "after"])
@pytest.mark.parametrize("statement", [SPAWN, rb"COMMIT"])
async def test_many_jobs_whose_connection_broke_are_there_once(dsn: str, moment: Moment, statement: bytes) -> None:
    async with FaultProxy(dsn) as proxy, Jobs(proxy.dsn) as jobs:
        work = note(jobs)
        trap = proxy.trap(moment, statement, times=1)
        handles = await jobs.spawn_all(work.spec(number) for number in range(MANY))
        assert trap.hits == 1
        assert all(handle.created for handle in handles)
    assert {id for [id] in query(dsn, "SELECT id FROM piecework.jobs")} == {handle.id for handle in handles}
    assert count(dsn, "jobs") == MANY
