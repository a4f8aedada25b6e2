"""How much of a worker batches take, and how many rows are claimed for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from batched.helpers import QUICK, Doc, numbers, statuses
from engine.helpers import SOON, count, moves, query, until

from piecework import CurrentBatch, Jobs, WorkerSettings
from piecework.engine import batches


class Peak:
    """How many are inside at once, and the most that ever were."""

    def __init__(self) -> None:
        self.now = self.most = 0

    @asynccontextmanager
    async def inside(self) -> AsyncIterator[None]:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            yield
        finally:
            self.now -= 1


def claimed(dsn: str) -> int:
    return count(dsn, "jobs WHERE worker_id IS NOT NULL")


async def test_no_more_rows_are_claimed_than_the_free_batches_take_and_all_run_in_the_end(
    jobs: Jobs, dsn: str
) -> None:
    gate, peak, most = asyncio.Event(), Peak(), 0

    @jobs.batched(max_size=5, max_concurrent_batches=2)
    async def index(batch: CurrentBatch[Doc]) -> None:
        nonlocal most
        async with peak.inside():
            await gate.wait()
            await asyncio.sleep(0)
            most = max(most, claimed(dsn))

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(200))
    async with jobs.worker():
        await until(lambda: peak.now == 2)
        await asyncio.sleep(0.3)  # time to claim too many
        assert claimed(dsn) == 10
        gate.set()
        await handles.wait(timeout=SOON)
    assert peak.most == 2
    assert most <= 10


async def test_a_batch_takes_one_unit_of_the_concurrency(jobs: Jobs, dsn: str) -> None:
    gate = asyncio.Event()
    running: list[str] = []

    @jobs.batched(max_size=10)
    async def together(batch: CurrentBatch[Doc]) -> None:
        running.extend("together" for _ in batch.items)
        await gate.wait()

    @jobs.job
    async def alone() -> None:
        running.append("alone")
        await gate.wait()

    batch = await jobs.spawn_all(together.spec(Doc(number)) for number in range(10))
    async with jobs.worker(WorkerSettings(concurrency=2, prefetch=0)):
        await until(lambda: len(running) == 10)
        singles = await jobs.spawn_all(alone.spec() for _ in range(2))
        await until(lambda: "alone" in running)
        assert claimed(dsn) == 11
        gate.set()
        await batch.wait(timeout=SOON)
        await singles.wait(timeout=SOON)


async def test_rows_are_left_to_others_while_the_worker_could_not_begin_their_batch(jobs: Jobs, dsn: str) -> None:
    gate, began = asyncio.Event(), asyncio.Event()

    @jobs.job
    async def quick() -> None: ...

    @jobs.job
    async def blocks() -> None:
        began.set()
        await gate.wait()

    @jobs.batched
    async def together(batch: CurrentBatch[Doc]) -> None: ...

    async with jobs.worker(WorkerSettings(concurrency=1, prefetch=10)):
        await (await quick.spawn()).wait(timeout=SOON)  # short runs: from now on there is prefetch
        blocking = await blocks.spawn()
        await began.wait()
        batch = await jobs.spawn_all(together.spec(Doc(number)) for number in range(10))
        await asyncio.sleep(0.5)
        assert claimed(dsn) == 1
        gate.set()
        await blocking.wait(timeout=SOON)
        await batch.wait(timeout=SOON)


async def test_retries_that_run_alone_do_not_exceed_the_limit_of_batches(jobs: Jobs, dsn: str) -> None:
    peak, gate, ran = Peak(), asyncio.Event(), 0

    @jobs.batched(max_size=10, max_concurrent_batches=2, retry=QUICK)
    async def index(batch: CurrentBatch[Doc]) -> None:
        nonlocal ran
        async with peak.inside():
            if batch.items[0].attempt == 1:
                raise ValueError("at first")
            await gate.wait()
            ran += len(batch.items)

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(10))
    async with jobs.worker():
        await until(lambda: peak.now == 2)
        await asyncio.sleep(0.3)
        assert peak.now == 2
        gate.set()
        await handles.wait(timeout=SOON)
    assert peak.most == 2
    assert ran == 10


async def test_what_was_claimed_beyond_the_limit_is_handed_back_after_a_while(
    jobs: Jobs, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_STALE", 0.2)
    gate, peak = asyncio.Event(), Peak()
    running: list[int] = []

    @jobs.batched(max_size=10, max_concurrent_batches=1, concurrency_key="one", concurrency_limit=10)
    async def index(batch: CurrentBatch[Doc]) -> None:
        running.extend(numbers(batch))
        async with peak.inside():
            await gate.wait()
            await asyncio.sleep(0.05)

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(4))
    async with jobs.worker():
        await until(lambda: sum(moves(dsn, handle.id) == ["release"] for handle in handles) == 3)
        assert claimed(dsn) == len(running) == 1
        gate.set()
        await handles.wait(timeout=SOON)
    assert sorted(running) == [0, 1, 2, 3]
    assert peak.most == 1
    assert set(await statuses(handles)) == {"completed"}


async def test_a_job_that_was_claimed_beyond_the_limit_can_be_cancelled(jobs: Jobs, dsn: str) -> None:
    gate, peak = asyncio.Event(), Peak()
    running: list[int] = []

    @jobs.batched(max_concurrent_batches=1, concurrency_key="one", concurrency_limit=10)
    async def index(batch: CurrentBatch[Doc]) -> None:
        running.extend(numbers(batch))
        async with peak.inside():
            await gate.wait()
            await asyncio.sleep(0.05)

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(2))
    async with jobs.worker():
        await until(lambda: claimed(dsn) == 2 and running)
        waiting = handles[1 - running[0]]
        assert await waiting.cancel()
        assert (await waiting.wait(timeout=SOON)).status == "cancelled"
        assert len(running) == 1
        more = await jobs.spawn_all(index.spec(Doc(number)) for number in range(2, 5))
        await until(lambda: claimed(dsn) == 1 and count(dsn, "jobs") == 4)
        gate.set()
        await more.wait(timeout=SOON)
        await handles.wait(timeout=SOON)
    assert peak.most == 1


async def test_two_batched_types_have_limits_of_their_own(jobs: Jobs) -> None:
    first, second = Peak(), Peak()

    @jobs.batched(max_size=1, max_concurrent_batches=1)
    async def one(batch: CurrentBatch[Doc]) -> None:
        async with first.inside():
            await asyncio.sleep(0.001)

    @jobs.batched(max_size=1, max_concurrent_batches=3)
    async def three(batch: CurrentBatch[Doc]) -> None:
        async with second.inside():
            await asyncio.sleep(0.001)

    specs = [spec for n in range(50) for spec in (one.spec(Doc(n)), three.spec(Doc(n)))]
    handles = await jobs.spawn_all(specs)
    async with jobs.worker():
        await handles.wait(timeout=SOON)
    assert (first.most, second.most) == (1, 3)


async def test_jobs_of_a_former_name_are_in_batches_with_the_others(jobs: Jobs, dsn: str) -> None:
    batches_of: list[list[int]] = []

    @jobs.batched(aliases=["old"], max_concurrent_batches=1)
    async def new(batch: CurrentBatch[Doc]) -> None:
        batches_of.append(numbers(batch))

    handles = await jobs.spawn_all(new.spec(Doc(number)) for number in range(4))
    query(dsn, "UPDATE piecework.jobs SET job_type = 'old' WHERE id = ANY (%s)", [handles[0].id, handles[1].id])
    async with jobs.worker():
        await handles.wait(timeout=SOON)
    assert sorted(number for batch in batches_of for number in batch) == [0, 1, 2, 3]
