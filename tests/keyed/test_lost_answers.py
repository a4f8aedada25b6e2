"""The database created the jobs, or did not, and the connection broke before the spawner heard of it."""

from __future__ import annotations

import pytest
from engine.helpers import SOON, count

from piecework import Jobs
from piecework.testing import FaultProxy, Moment

SPAWN = rb"spawn_1"


@pytest.mark.parametrize("moment", ["answer", "request", "after"])
async def test_what_a_spawn_answers_is_as_if_nothing_had_been_lost(dsn: str, moment: Moment) -> None:
    async with FaultProxy(dsn) as proxy, Jobs(proxy.dsn) as jobs:

        @jobs.job
        async def work(number: int) -> int:
            return number

        holder = await work.options(key="held").spawn(0)
        trap = proxy.trap(moment, SPAWN, times=1)
        handles = await jobs.spawn_all([
            work.options(key="new").spec(1), work.options(key="held").spec(2), work.options(key="new").spec(3),
            work.spec(4), work.options(key="held").spec(5),
        ])  # fmt: skip
        assert trap.hits == 1
        assert [handle.created for handle in handles] == [True, False, False, True, False]
        assert [handle.id for handle in handles[1:]] == [holder.id, handles[0].id, handles[3].id, holder.id]
        assert count(dsn, "jobs") == 3
        async with jobs.worker():
            assert await handles.results(timeout=SOON) == [1, 0, 1, 4, 0]


async def test_a_job_that_ended_before_its_spawn_was_sent_again_is_not_made_again(dsn: str) -> None:
    async with FaultProxy(dsn) as proxy, Jobs(proxy.dsn) as jobs, Jobs(dsn) as elsewhere:
        runs: list[int] = []

        async def run(number: int) -> int:
            runs.append(number)
            return number

        elsewhere.job(run)
        work = jobs.job(run)
        async with elsewhere.worker():
            for number in range(20):
                trap = proxy.trap("answer", SPAWN, times=1)
                handles = await jobs.spawn_all([work.options(key="k").spec(number), work.options(key="k").spec(-1)])
                assert trap.hits == 1
                assert [handle.created for handle in handles] == [True, False]
                assert handles[0].id == handles[1].id
                assert await handles.results(timeout=SOON) == [number] * 2
        assert runs == [*range(20)]


async def test_a_single_spawn_of_a_held_key_is_answered_with_its_holder(dsn: str) -> None:
    async with FaultProxy(dsn) as proxy, Jobs(proxy.dsn) as jobs:

        @jobs.job
        async def work(number: int) -> int:
            return number

        first = await work.options(key="k").spawn(1)
        for moment in ("answer", "request", "after"):
            trap = proxy.trap(moment, SPAWN, times=1)
            again = await work.options(key="k").spawn(2)
            assert (again.id, again.created, trap.hits) == (first.id, False, 1)
        assert count(dsn, "jobs") == 1
