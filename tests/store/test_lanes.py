"""look: where there is work, found by a loose index scan, and what else a look tells."""

from __future__ import annotations

import asyncio

import pytest

from piecework.base.ids import new_id
from piecework.model.lanes import Lane
from piecework.store import claiming
from support.scene import Scene, new_job

pytestmark = pytest.mark.postgres(18, 15)


async def test_every_lane_is_found_whatever_its_priority(scene: Scene) -> None:
    priorities = (-32768, -1, 0, 5, 6, 32767)
    lanes = [
        Lane(q, t, p, keyed) for q in ("a", "b") for t in ("x", "y", "z") for p in priorities for keyed in (False, True)
    ]
    jobs = [
        new_job(queue=q, job_type=t, priority=p, concurrency_key="k" if keyed else None)
        for q, t, p, keyed in lanes for _ in range(3)
    ]  # fmt: skip
    await scene.spawn(*jobs)
    assert sorted(await scene.look(["a", "b"], ["x", "y", "z"])) == sorted(lanes)


async def test_only_the_queues_and_job_types_asked_for_are_found(scene: Scene) -> None:
    await scene.spawn(*[new_job(queue=q, job_type=t) for q in ("a", "b") for t in ("x", "y")])
    assert list(await scene.look(["a"], ["y", "unknown"])) == [Lane("a", "y", 0)]
    assert await scene.look([], ["x"]) == await scene.look(["a"], []) == {}


async def test_a_lane_tells_how_long_until_its_first_job_is_due(scene: Scene) -> None:
    await scene.spawn(new_job(priority=1, delay=7_200_000_000), new_job(priority=1, delay=3_600_000_000),
                      new_job(priority=2, run_at=1))  # fmt: skip
    found = await scene.look(["default"], ["work"])
    assert 3500 < found[Lane("default", "work", 1)] <= 3600
    assert found[Lane("default", "work", 2)] < -1e9


async def test_what_may_not_be_claimed_makes_no_lane(scene: Scene) -> None:
    await scene.running(2)
    [*parked, keyed] = await scene.spawn_many(3)
    scene.sql.execute("UPDATE jobs SET concurrency_key = 'k' WHERE id = %s", [keyed])
    scene.sql.execute("UPDATE jobs SET parked = true WHERE id = ANY (%s)", [[*parked, keyed]])
    assert await scene.look(["default"], ["work"]) == {}


async def test_a_queue_or_type_named_twice_is_one_lane(scene: Scene) -> None:
    await scene.spawn_many(2)
    assert list(await scene.look(["default", "default"], ["work", "work"])) == [Lane("default", "work", 0)]


async def test_a_look_counts_what_the_worker_owns(scene: Scene) -> None:
    worker, _ = await scene.running(3)
    await scene.running(2)
    await scene.spawn_many(1)
    for id, owned in ((worker, 3), (scene.worker(), 0)):
        look = await claiming.look(scene.link, id, ["default"], ["work"])
        assert (look.owned, list(look.lanes)) == (owned, [Lane("default", "work", 0)])


async def test_a_look_tells_which_transactions_it_cannot_have_missed(scene: Scene) -> None:
    user = scene.session()
    [[open_one]] = user.execute("SELECT pg_current_xact_id()::text::bigint").fetchall()
    scene.sql.execute("SELECT pg_current_xact_id()")
    assert (await claiming.look(scene.link, str(new_id()), [], [])).xmin <= open_one
    user.rollback()
    async with asyncio.timeout(60):  # transactions of other tests hold it back as well
        while (await claiming.look(scene.link, str(new_id()), [], [])).xmin <= open_one:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
