"""Claims of a lane whose front is full of what is gone, and is kept by somebody's snapshot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from piecework.model.cursors import FIRST_ID, Place
from piecework.model.job import ClaimedJob
from piecework.model.lanes import Lane
from piecework.model.settlement import completed
from piecework.store import claiming
from support.horizon import a_session
from support.scene import LANE, NOW, Scene

pytestmark = pytest.mark.postgres(18, 15)


def place_of(job: ClaimedJob) -> Place:
    return Place(job.run_at, job.id)


async def claim_after(scene: Scene, worker: str, after: Place | None, count: int = 100) -> claiming.Claimed:
    return await claiming.claim(scene.link, worker, [(LANE, count)], count, after)


async def work_off(scene: Scene, worker: str, count: int) -> Place:
    """Spawn so many jobs, run them, and return the place of the last one."""
    await scene.spawn_many(count)
    jobs = (await claim_after(scene, worker, None, count)).jobs
    assert len(jobs) == count
    await scene.settle(worker, *[completed(job, NOW, None) for job in jobs])
    return place_of(jobs[-1])


async def test_a_claim_after_a_place_takes_what_comes_after_it_in_the_order_of_the_lane(scene: Scene) -> None:
    worker = scene.worker()
    early = await scene.spawn_many(3, run_at=1_000_000)
    late = await scene.spawn_many(2, run_at=2_000_000)
    await scene.spawn_many(1, run_at=1_500_000, job_type="other")
    jobs, counts, _, _ = await claim_after(scene, worker, Place(1_000_000, early[1]))
    assert [job.id for job in jobs] == [early[2], *late]
    assert counts == [3]
    assert (await claim_after(scene, worker, Place(2_000_000, FIRST_ID))).jobs == []
    before = await claim_after(scene, worker, Place(1_000_000, FIRST_ID))
    assert [job.id for job in before.jobs] == early[:2]


async def test_a_claim_after_a_place_takes_no_more_than_it_is_asked_for(scene: Scene) -> None:
    worker = scene.worker()
    ids = await scene.spawn_many(5, run_at=1_000_000)
    jobs = (await claiming.claim(scene.link, worker, [(LANE, 2)], 9, Place(1_000_000, FIRST_ID))).jobs
    assert [job.id for job in jobs] == ids[:2]
    jobs = (await claiming.claim(scene.link, worker, [(LANE, 9)], 1, Place(1_000_000, FIRST_ID))).jobs
    assert [job.id for job in jobs] == ids[2:3]


async def test_a_place_ahead_of_the_clock_is_none(scene: Scene) -> None:
    """The clock was turned back: what came after the place is not due for long."""
    worker = scene.worker()
    await scene.spawn_many(2)
    ahead = Place(int(scene.clock().timestamp() + 3600) * 1_000_000, FIRST_ID)
    assert len((await claim_after(scene, worker, ahead)).jobs) == 2


async def test_a_claim_after_a_place_walks_over_nothing_that_lies_before_it(own_scene: Scene) -> None:
    """The place is a condition of the index, so pages do not grow with what is gone in front of it."""
    scene = own_scene
    worker, touched = scene.worker(), dict[str, list[int]](after=[], start=[])
    with a_session(scene.dsn):
        for _ in range(3):
            place = await work_off(scene, worker, 1_500)
            gone = scene.value("SELECT count(*) FROM finished_jobs")
            assert isinstance(gone, int)
            with pages(scene) as counted:
                touched["after"].append(counted("claim_after", [*claim(worker), *place]))
                touched["start"].append(counted("claim", claim(worker)))
            walked = (await claim_after(scene, worker, None)).walk
            assert walked.passed == gone
            assert walked.seconds > 0
            assert (await claim_after(scene, worker, place)).walk.passed == 0
    assert touched["after"][-1] <= touched["after"][0] + 3, touched
    assert touched["start"][-1] > touched["start"][0] + 50, f"{touched}: the scenario is none"


async def test_a_settle_looks_at_no_more_for_what_is_gone(own_scene: Scene) -> None:
    scene = own_scene
    worker, touched = scene.worker(), list[int]()
    with a_session(scene.dsn):
        for _ in range(3):
            place = await work_off(scene, worker, 1_500)
            await scene.spawn_many(50)
            jobs = (await claim_after(scene, worker, place)).jobs
            with pages(scene) as counted:
                ids, numbers = [job.id for job in jobs], [job.claim_no for job in jobs]
                moves, ages = ["complete"] * len(jobs), [1] * len(jobs)
                touched.append(counted("settle", [worker, ids, numbers, moves, ages, None]))
            await scene.settle(worker, *[completed(job, NOW, None) for job in jobs])
    assert touched[-1] <= touched[0] * 1.2, touched


async def test_a_look_tells_what_it_walked_over_and_counts_what_a_worker_owns_if_asked(own_scene: Scene) -> None:
    scene = own_scene
    worker = scene.worker()
    with a_session(scene.dsn):
        await work_off(scene, worker, 400)
        await scene.running(3)
        scene.sql.execute("UPDATE jobs SET worker_id = %s", [worker])
        await scene.spawn_many(1)
        look = await claiming.look(scene.link, worker, ["default"], ["work"])
        assert look.owned == 3
        assert look.walk.passed >= 800
        assert look.walk.seconds > 0
        unowned = await claiming.look(scene.link, worker, ["default"], ["work"], count_owned=False)
        assert (unowned.owned, list(unowned.lanes)) == (0, [Lane("default", "work", 0)])
        assert unowned.walk.passed <= look.walk.passed - 400


def claim(worker: str) -> list[object]:
    return [worker, ["default"], ["work"], [0], [50], 50]


@contextmanager
def pages(scene: Scene) -> Iterator[Counted]:
    with psycopg.connect(scene.dsn, autocommit=True, cursor_factory=psycopg.RawCursor) as session:
        yield Counted(scene, session)


class Counted:
    """Counts the pages that a statement touches; what it does is undone."""

    def __init__(self, scene: Scene, session: psycopg.Connection) -> None:
        self._scene = scene
        self._session = session

    def __call__(self, statement: str, params: list[object]) -> int:
        touched = 0
        for _ in range(2):  # the first call of a session reads the catalogs
            with self._session.transaction(force_rollback=True):
                text = b"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) " + self._scene.statements.sql(statement)
                row = self._session.execute(text, params).fetchone()
                assert row is not None
                found = row[0] if isinstance(row[0], list) else json.loads(row[0])
                plan = found[0]["Plan"]
                touched = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        return touched
