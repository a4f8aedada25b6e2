"""settle: a value that the database refuses, and a history without a leaf for the day."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import msgspec
import psycopg
import pytest

from piecework.model.completion import Fail
from piecework.model.job import ClaimedJob
from piecework.model.settlement import Settlement, completed, failed_by_reason
from support.scene import NOW, Scene

pytestmark = pytest.mark.postgres(18, 15)

STARTED = NOW - 1
Make = Callable[[ClaimedJob], Settlement]


def complete(job: ClaimedJob) -> Settlement:
    return completed(job, STARTED, None)


def retry(job: ClaimedJob) -> Settlement:
    return Settlement(job, "retry", STARTED, attempt=2, failures=1, delay=timedelta(minutes=3))


# what the database refuses


@pytest.mark.parametrize("text", [b'"\\u0000"', b"1e400000", b"[" * 100_000 + b"]" * 100_000, b"nonsense"])
async def test_a_result_that_postgresql_refuses_is_a_data_error_and_nothing_lands(scene: Scene, text: bytes) -> None:
    worker, jobs = await scene.running(2)
    before = scene.dump()
    with pytest.raises(psycopg.DataError):
        await scene.settle(worker, complete(jobs[0]), completed(jobs[1], STARTED, msgspec.Raw(text)))
    assert scene.dump() == before
    assert await scene.settle(worker, complete(jobs[0])) == ["landed"]


async def test_any_reason_of_a_failure_can_be_stored(scene: Scene) -> None:
    worker, [job] = await scene.running()
    assert await scene.settle(worker, failed_by_reason(job, STARTED, Fail("a\0b \ud800 '\"\\ ü"))) == ["landed"]
    error = scene.finished(job.id)["error"]
    assert isinstance(error, dict)
    assert "'\"\\ ü" in error["message"]


# the history's leaves


def drop_leaves(scene: Scene) -> None:
    for leaf in scene.leaves():
        scene.sql.execute(f"DROP TABLE {leaf}")


@pytest.mark.parametrize("make", [complete, retry])
async def test_a_settle_that_finds_no_leaf_of_the_history_makes_it(own_scene: Scene, make: Make) -> None:
    worker, jobs = await own_scene.running(2)
    drop_leaves(own_scene)
    assert await own_scene.settle(worker, *map(make, jobs)) == ["landed", "landed"]


async def test_two_settles_that_find_no_leaf_both_land(own_scene: Scene) -> None:
    worker, jobs = await own_scene.running(20)
    drop_leaves(own_scene)
    links = [own_scene.another_link() for _ in range(4)]
    answers = await asyncio.gather(
        *[own_scene.settle(worker, *map(complete, jobs[n::4]), link=link) for n, link in enumerate(links)]
    )
    assert answers == [["landed"] * 5] * 4
    for link in links:
        await link.drop()
