"""Batches whose worker is lost, or given up for dead."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from batched.app import SETTINGS, make
from batched.helpers import Doc, loaded
from engine.helpers import SOON, count, moves, query, until

from piecework import BatchOutcomes, CurrentBatch, Jobs


async def test_the_jobs_of_a_batch_whose_worker_was_killed_run_again_each_alone(dsn: str) -> None:
    jobs, index = make(dsn, deadly=False)
    async with jobs:
        handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(5))
        deadly = await asyncio.create_subprocess_exec(
            sys.executable, make.__code__.co_filename, dsn, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        async with asyncio.timeout(SOON.total_seconds()):
            assert await deadly.wait() == -9
        assert count(dsn, "jobs WHERE worker_id IS NOT NULL") == 5
        async with jobs.worker(SETTINGS):
            assert await handles.results(timeout=SOON) == [1] * 5
        assert [moves(dsn, handle.id) for handle in handles] == [["rescue"]] * 5
        assert [(each.attempt, each.crashes) for each in await loaded(handles)] == [(2, 1)] * 5


async def test_a_batch_of_a_worker_that_was_given_up_for_dead_changes_nothing(jobs: Jobs, dsn: str) -> None:
    stopped, batches = asyncio.Event(), list[int]()

    @jobs.batched
    async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes[int]:
        batches.append(len(batch.items))
        if batch.items[0].attempt == 1:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()
        return batch.outcomes(lambda item: item.attempt)

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(3))
    async with jobs.worker(SETTINGS):
        await until(lambda: batches)
        # What another worker does that saw no sign of life of this one.
        [(id,)] = query(dsn, "SELECT id FROM piecework.workers")
        while count(dsn, "workers WHERE id = %s", id):
            query(dsn, "SELECT piecework.rescue_1(id, beat_no, lease) FROM piecework.workers")
        async with asyncio.timeout(SOON.total_seconds()):
            await stopped.wait()
        assert await handles.results(timeout=SOON) == [2, 2, 2]
    assert batches == [3, 1, 1, 1]
    assert [moves(dsn, handle.id) for handle in handles] == [["rescue"]] * 3
