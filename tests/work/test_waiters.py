"""Many waits, one look: how often the database is asked, and what an outage does."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta

import pytest

from piecework import DatabaseUnreachable, JobId, JobNotFinished, Jobs, JobSnapshot, PermissionDenied
from piecework.store.store import Store
from piecework.work.spawner import JobSpawner
from piecework.work.waiters import Waiters

SOON = timedelta(seconds=20)


class Looks:
    """The number of ids of every look; `before` runs before each."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.before: Callable[[], None] = lambda: None
        self._more = asyncio.Event()

    def add(self, size: int) -> None:
        self.sizes.append(size)
        self._more.set()

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.sizes) < count:
                self._more.clear()
                await self._more.wait()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    looks, load = Looks(), Store.load

    async def counted(self: Store, ids: Sequence[JobId]) -> list[JobSnapshot | None]:
        try:
            looks.before()
            return await load(self, ids)
        finally:
            looks.add(len(ids))

    monkeypatch.setattr(Store, "load", counted)
    return looks


@pytest.fixture
async def jobs(dsn: str) -> AsyncIterator[Jobs]:
    jobs = Jobs(dsn)

    @jobs.job
    async def nothing(n: int) -> None: ...

    async with jobs:
        yield jobs


def waiters_of(jobs: Jobs) -> Waiters:
    return jobs._service.waiters


async def spawned(jobs: Jobs, count: int) -> list[JobId]:
    job = jobs._service.registry.get("nothing")
    assert job is not None
    spawner: JobSpawner[[int], None] = JobSpawner(jobs._service, job, job.placement)
    return [handle.id for handle in await jobs.spawn_all(spawner.spec(n) for n in range(count))]


async def cancel(jobs: Jobs, ids: list[JobId]) -> None:
    await jobs._service.store.cancel(ids)


async def test_jobs_that_are_waited_for_together_are_looked_at_together(jobs: Jobs, looks: Looks) -> None:
    ids = await spawned(jobs, 300)
    waits = [asyncio.create_task(jobs.handle(id).wait(timeout=SOON)) for id in ids]
    await looks.reach(4)
    assert set(looks.sizes) == {300}
    await cancel(jobs, ids)
    outcomes = await asyncio.gather(*waits)
    assert {outcome.status for outcome in outcomes} == {"cancelled"}


async def test_a_look_names_at_most_a_thousand_jobs(jobs: Jobs, looks: Looks) -> None:
    ids = await spawned(jobs, 2500)
    await cancel(jobs, ids)
    looks.sizes.clear()
    await asyncio.gather(*(jobs.handle(id).wait(timeout=SOON) for id in ids))
    assert sorted(looks.sizes) == [500, 1000, 1000]


async def test_the_pauses_between_looks_grow_to_half_a_second(jobs: Jobs, looks: Looks) -> None:
    (id,) = await spawned(jobs, 1)
    moments: list[float] = []
    looks.before = lambda: moments.append(asyncio.get_running_loop().time())
    with pytest.raises(JobNotFinished):
        await jobs.handle(id).wait(timeout=timedelta(seconds=1.2))
    pauses = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert len(pauses) <= 8  # 10, 20, 40, 80, 160, 320, 500 … ms, and the last look
    assert max(pauses) > 0.3
    assert max(pauses[:-1]) < 2


async def test_a_hint_makes_the_next_look_immediate(
    jobs: Jobs, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piecework.work.waiters._SHORTEST_PAUSE", 1000.0)
    monkeypatch.setattr("piecework.work.waiters._LONGEST_PAUSE", 1000.0)
    ids = await spawned(jobs, 2)
    waits = [asyncio.create_task(jobs.handle(id).wait(timeout=SOON)) for id in ids]
    await looks.reach(1)
    await cancel(jobs, ids)
    looks.sizes.clear()
    waiters_of(jobs).hint([str(ids[0]), "somebody-else"])
    assert (await waits[0]).status == "cancelled"
    assert looks.sizes == [1]
    assert not waits[1].done()
    waiters_of(jobs).hint([str(ids[1])])
    assert (await waits[1]).status == "cancelled"


async def test_nobody_looks_when_nobody_waits(jobs: Jobs, looks: Looks) -> None:
    (id,) = await spawned(jobs, 1)
    wait = asyncio.create_task(jobs.handle(id).wait(timeout=SOON))
    await looks.reach(1)
    looking = waiters_of(jobs)._looking
    assert looking is not None
    wait.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wait
    async with asyncio.timeout(5):
        await looking
    assert waiters_of(jobs)._waits == {}


async def test_two_waits_for_one_job_both_end(jobs: Jobs) -> None:
    (id,) = await spawned(jobs, 1)
    first = asyncio.create_task(jobs.handle(id).wait(timeout=SOON))
    second = asyncio.create_task(jobs.handle(id).wait(timeout=SOON))
    third = asyncio.create_task(jobs.handle(id).wait(timeout=timedelta(milliseconds=20)))
    with pytest.raises(JobNotFinished):
        await third
    await cancel(jobs, [id])
    assert (await first).status == (await second).status == "cancelled"


async def test_a_wait_outlasts_an_outage_of_the_database(jobs: Jobs, looks: Looks) -> None:
    (id,) = await spawned(jobs, 1)
    await cancel(jobs, [id])
    looks.sizes.clear()

    def fail_three_times() -> None:
        if len(looks.sizes) < 3:
            raise DatabaseUnreachable("gone")

    looks.before = fail_three_times
    assert (await jobs.handle(id).wait(timeout=SOON)).status == "cancelled"
    assert len(looks.sizes) == 4


async def test_a_wait_that_ends_in_an_outage_says_that_the_database_is_gone(jobs: Jobs, looks: Looks) -> None:
    def fail() -> None:
        raise DatabaseUnreachable("gone")

    (id,) = await spawned(jobs, 1)
    looks.before = fail
    with pytest.raises(DatabaseUnreachable, match="gone"):
        await jobs.handle(id).wait(timeout=timedelta(milliseconds=100))


async def test_an_error_that_waiting_cannot_cure_ends_every_wait(jobs: Jobs, looks: Looks) -> None:
    def fail() -> None:
        raise PermissionDenied("no")

    ids = await spawned(jobs, 3)
    looks.before = fail
    async with asyncio.timeout(10):
        ends = await asyncio.gather(*(jobs.handle(id).wait(timeout=SOON) for id in ids), return_exceptions=True)
    assert [type(end) for end in ends] == [PermissionDenied] * 3
