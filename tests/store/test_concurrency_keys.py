"""Invariant A: at most so many jobs of a concurrency key run, in their order, and none is left behind."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import pytest

from piecework.model.job import ClaimedJob
from piecework.model.lanes import Lane
from piecework.model.settlement import Settlement, completed, released
from support.scene import KEYED_LANE, NOW, Scene, new_job

pytestmark = pytest.mark.postgres(18, 15)


async def keyed(scene: Scene, *keys: str, **fields: object) -> list[str]:
    return await scene.spawn(*[new_job(concurrency_key=key, **fields) for key in keys])


async def claimed(scene: Scene, worker: str, most: int = 100) -> list[str]:
    return [job.id for job in (await scene.claim_keyed(worker, most)).jobs]


def holders(scene: Scene) -> dict[str, list[str]]:
    rows = scene.rows("SELECT concurrency_key, running FROM concurrency_keys")
    return {str(row["concurrency_key"]): sorted(map(str, row["running"])) for row in rows}  # type: ignore[call-overload]


def parked(scene: Scene) -> set[str]:
    return {str(row["id"]) for row in scene.rows("SELECT id FROM jobs WHERE parked")}


def retried(job: ClaimedJob, delay: timedelta = timedelta(hours=1)) -> Settlement:
    return Settlement(job, "retry", NOW, attempt=2, failures=1, delay=delay)


async def test_one_job_of_a_key_is_claimed_and_the_others_are_parked(scene: Scene) -> None:
    first, *others = await keyed(scene, *"aaa")
    [other_key] = await keyed(scene, "b")
    found = await scene.claim_keyed(scene.worker())
    assert {job.id for job in found.jobs} == {first, other_key}
    assert [job.concurrency_key for job in found.jobs] == ["a", "b"]
    assert parked(scene) == set(others)
    assert holders(scene) == {"a": [first], "b": [other_key]}


async def test_a_plain_claim_passes_over_jobs_with_a_key_and_the_other_way(scene: Scene) -> None:
    [with_key] = await keyed(scene, "a")
    [plain] = await scene.spawn_many(1)
    worker = scene.worker()
    assert [job.id for job in await scene.claim(worker)] == [plain]
    assert await claimed(scene, worker) == [with_key]


async def test_when_a_job_ends_the_next_one_of_its_key_comes_back_into_its_lane(scene: Scene) -> None:
    ids = await keyed(scene, *"aaa")
    worker = scene.worker()
    order: list[str] = []
    for _ in ids:
        [job] = (await scene.claim_keyed(worker)).jobs
        order.append(job.id)
        assert await claimed(scene, worker) == []
        await scene.settle(worker, completed(job, NOW, None))
        assert scene.freed == ([KEYED_LANE] if len(order) < 3 else [])
    assert order == ids
    assert holders(scene) == {}


async def test_the_order_within_a_key_is_priority_then_due_time_then_id(scene: Scene) -> None:
    late = await keyed(scene, "a", run_at=3_000)
    early = await keyed(scene, "a", "a", run_at=2_000)
    better = await keyed(scene, "a", run_at=9_000, priority=-1)
    worker, order = scene.worker(), list[str]()
    lanes = [(Lane("default", "work", priority, keyed=True), 10) for priority in (0, -1)]
    for _ in range(4):
        [job] = (await scene.claim_keyed(worker, 10, *lanes)).jobs
        order.append(job.id)
        await scene.settle(worker, completed(job, NOW, None))
    assert order == [*better, *early, *late]


@pytest.mark.parametrize("limit", [2, 3, 7])
async def test_as_many_run_at_once_as_the_jobs_limit_says(scene: Scene, limit: int) -> None:
    ids = await keyed(scene, *"aaaaa", concurrency_limit=limit)
    assert await claimed(scene, scene.worker()) == ids[:limit]
    assert parked(scene) == set(ids[limit:])


async def test_what_operators_say_of_a_key_counts_before_the_jobs_own_limit(scene: Scene) -> None:
    await keyed(scene, *"aaaabbbb", concurrency_limit=2)
    scene.sql.execute("INSERT INTO limits (scope, name, max_running) VALUES ('concurrency_key', 'a', 3)")
    await scene.claim_keyed(scene.worker())
    assert {key: len(ids) for key, ids in holders(scene).items()} == {"a": 3, "b": 2}


async def test_the_longest_beginning_of_a_key_that_has_a_limit_counts(scene: Scene) -> None:
    names = ("user:1", "user:22", "other")
    await keyed(scene, *[name for name in names for _ in range(5)])
    limits = {"user:*": 2, "user:2*": 3, "*": 1}
    for name, most in limits.items():
        scene.sql.execute(
            "INSERT INTO limits (scope, name, max_running) VALUES ('concurrency_key', %s, %s)", [name, most]
        )
    await scene.claim_keyed(scene.worker())
    assert {key: len(ids) for key, ids in holders(scene).items()} == {"user:1": 2, "user:22": 3, "other": 1}


async def test_the_keys_of_two_queues_are_two_keys(scene: Scene) -> None:
    ids = await scene.spawn(*[new_job(concurrency_key="a", queue=queue) for queue in ("x", "y")])
    lanes = [(Lane(queue, "work", 0, keyed=True), 5) for queue in ("x", "y")]
    assert sorted(job.id for job in (await scene.claim_keyed(scene.worker(), 5, *lanes)).jobs) == sorted(ids)


async def test_jobs_of_several_types_share_a_key(scene: Scene) -> None:
    ids = await scene.spawn(*[new_job(concurrency_key="a", job_type=name) for name in ("x", "y")])
    lanes = [(Lane("default", name, 0, keyed=True), 5) for name in ("y", "x")]
    worker = scene.worker()
    [job] = (await scene.claim_keyed(worker, 5, *lanes)).jobs
    assert job.id == ids[0]
    await scene.settle(worker, completed(job, NOW, None))
    assert scene.freed == [Lane("default", "y", 0, keyed=True)]


async def test_a_job_whose_type_the_worker_does_not_run_keeps_its_place_before_the_others(scene: Scene) -> None:
    [unknown] = await scene.spawn(new_job(concurrency_key="a", job_type="unknown"))
    [known] = await keyed(scene, "a")
    assert await claimed(scene, scene.worker()) == []
    assert parked(scene) == {known}
    lanes = [(Lane("default", "unknown", 0, keyed=True), 5)]
    assert [job.id for job in (await scene.claim_keyed(scene.worker(), 5, *lanes)).jobs] == [unknown]


async def test_a_lane_gives_no_more_than_is_asked_of_it_whichever_keys_it_has(scene: Scene) -> None:
    ids = await keyed(scene, *"abcdefgh")
    found = await scene.claim_keyed(scene.worker(), 100, (KEYED_LANE, 3))
    assert [job.id for job in found.jobs] == ids[:3]
    assert len(await claimed(scene, scene.worker(), 4)) == 4


async def test_backoff_yields_to_a_sibling_that_is_due(scene: Scene) -> None:
    first, second = await keyed(scene, *"aa")
    worker = scene.worker()
    [job] = (await scene.claim_keyed(worker)).jobs
    assert job.id == first
    await scene.settle(worker, retried(job))
    assert scene.freed == [KEYED_LANE]
    assert await claimed(scene, worker) == [second]


async def test_a_released_job_is_the_first_of_its_key_again(scene: Scene) -> None:
    first, _ = await keyed(scene, *"aa")
    worker = scene.worker()
    [job] = (await scene.claim_keyed(worker)).jobs
    await scene.settle(worker, released(job))
    assert await claimed(scene, worker) == [first]


async def test_a_rescued_job_lets_an_older_sibling_run_first(scene: Scene) -> None:
    first, second = await keyed(scene, *"aa")
    worker = scene.worker()
    assert await claimed(scene, worker) == [first]
    scene.pulse.rescue(worker, 0, 18.0)
    assert holders(scene) == {} or list(holders(scene).values()) == [[]]
    assert await claimed(scene, scene.worker()) == [second]


async def test_a_late_settle_of_a_rescued_job_leaves_the_key_to_its_new_holder(scene: Scene) -> None:
    await keyed(scene, *"aa")
    worker = scene.worker()
    [job] = (await scene.claim_keyed(worker)).jobs
    scene.pulse.rescue(worker, 0, 18.0)
    [second] = (await scene.claim_keyed(scene.worker())).jobs
    assert await scene.settle(worker, completed(job, NOW, None)) == ["lost"]
    assert holders(scene) == {"a": [second.id]}
    assert await claimed(scene, scene.worker()) == []


async def test_a_settle_that_is_sent_again_leaves_the_key_to_its_new_holder(scene: Scene) -> None:
    await keyed(scene, *"aa")
    worker = scene.worker()
    [job] = (await scene.claim_keyed(worker)).jobs
    await scene.settle(worker, completed(job, NOW, None))
    [second] = (await scene.claim_keyed(worker)).jobs
    assert await scene.settle(worker, completed(job, NOW, None)) == ["landed before"]
    assert holders(scene) == {"a": [second.id]}


async def test_cancelling_the_one_that_could_run_lets_the_next_one(scene: Scene) -> None:
    first, second, third = await keyed(scene, *"aaa")
    worker = scene.worker()
    [job] = (await scene.claim_keyed(worker)).jobs
    assert job.id == first
    await scene.settle(worker, retried(job, timedelta(0)))
    assert parked(scene) == {third}
    await scene.store.cancel([UUID(second)])
    assert await claimed(scene, worker) == [third]


async def test_a_limit_that_is_lowered_drains_and_one_that_is_raised_counts_with_the_next_end(scene: Scene) -> None:
    await keyed(scene, *"aaaaaaaa", concurrency_limit=3)
    worker = scene.worker()
    first, second, third = (await scene.claim_keyed(worker)).jobs
    scene.sql.execute("INSERT INTO limits (scope, name, max_running) VALUES ('concurrency_key', 'a', 1)")
    await scene.settle(worker, completed(first, NOW, None), completed(second, NOW, None))
    assert await claimed(scene, worker) == []
    scene.sql.execute("UPDATE limits SET max_running = 4")
    await scene.settle(worker, completed(third, NOW, None))
    assert len(await claimed(scene, worker)) == 4


async def test_a_key_whose_limit_is_zero_stands_still(scene: Scene) -> None:
    ids = await keyed(scene, *"aa")
    scene.sql.execute("INSERT INTO limits (scope, name, max_running) VALUES ('concurrency_key', 'a', 0)")
    assert await claimed(scene, scene.worker()) == []
    assert parked(scene) == set(ids)
    scene.sql.execute("DELETE FROM limits")
    scene.sql.execute(scene.statements.sql("sweep_keys"))
    assert await claimed(scene, scene.worker()) == [ids[0]]


async def test_an_open_spawn_of_a_key_delays_no_other_spawn_claim_or_settle_of_it(scene: Scene) -> None:
    worker = scene.worker()
    await keyed(scene, *"aa")
    [job] = (await scene.claim_keyed(worker)).jobs
    user = scene.session()
    [[_]] = user.execute(
        "SELECT spawn_1($1)", ['[{"id": "01890000-0000-7000-8000-000000000000", "job_type": "work", "config": {}, '
                               '"concurrency_key": "a"}]'],
    ).fetchall()
    async with asyncio.timeout(10):
        await keyed(scene, "a")
        await scene.settle(worker, completed(job, NOW, None))
        assert len(await claimed(scene, worker)) == 1
    user.rollback()


async def test_keys_in_another_workers_hands_are_skipped(scene: Scene) -> None:
    [a, b] = await keyed(scene, *"ab")
    await scene.claim_keyed(scene.worker(), 1)
    assert list(holders(scene)) == ["a"]
    neighbour = scene.session()
    neighbour.execute("SELECT FROM concurrency_keys WHERE concurrency_key = 'a' FOR UPDATE")
    [c] = await keyed(scene, "a")
    async with asyncio.timeout(10):
        found = await scene.claim_keyed(scene.worker())
    assert [job.id for job in found.jobs] == [b]
    assert found.again
    neighbour.rollback()
    assert await claimed(scene, scene.worker()) == []
    assert parked(scene) == {c}
    assert holders(scene)["a"] == [a]


async def test_the_sweep_frees_a_key_whose_holder_ended_without_it(scene: Scene) -> None:
    first, second = await keyed(scene, *"aa")
    worker = scene.worker()
    assert await claimed(scene, worker) == [first]
    scene.sql.execute("DELETE FROM jobs WHERE id = %s", [first])  # as a completion in a user's transaction does
    assert await claimed(scene, worker) == []
    scene.sql.execute(scene.statements.sql("sweep_keys"))
    assert await claimed(scene, worker) == [second]


async def test_the_sweep_leaves_keys_in_order_alone(scene: Scene) -> None:
    await keyed(scene, *"aab")
    await scene.claim_keyed(scene.worker())
    before = holders(scene), parked(scene)
    [row] = scene.rows("SELECT sweep_keys_1() AS count")
    assert row["count"] == 0
    assert (holders(scene), parked(scene)) == before


async def test_no_key_is_held_by_more_than_its_limit_and_none_is_left_behind(own_scene: Scene) -> None:
    """Claimers, spawners, cancels and rescues at once, and nothing left over at the end."""
    scene, keys, total = own_scene, [f"k{n}" for n in range(12)], 600
    limits = {key: 1 + n % 3 for n, key in enumerate(keys)}
    running: Counter[str] = Counter()
    ended: set[str] = set()
    order: dict[str, list[str]] = {key: [] for key in keys}
    spawned: list[str] = []

    async def spawner(draw: random.Random) -> None:
        for _ in range(total // 2 // 5):
            jobs = [new_job(concurrency_key=key, concurrency_limit=limits[key]) for key in draw.choices(keys, k=5)]
            await scene.spawn(*jobs)
            spawned.extend(job.id for job in jobs)

    async def worker(draw: random.Random) -> None:
        link, me = scene.another_link(), scene.worker()
        try:
            while len(ended) < total:
                jobs = (await scene.claim_keyed(me, 20, link=link)).jobs
                for job in jobs:
                    assert job.concurrency_key is not None
                    running[job.concurrency_key] += 1
                    assert running[job.concurrency_key] <= limits[job.concurrency_key]
                    order[job.concurrency_key].append(job.id)
                await asyncio.sleep(draw.random() / 100)
                await finish(me, jobs, draw, link)
        finally:
            await link.drop()

    async def finish(me: str, jobs: Sequence[ClaimedJob], draw: random.Random, link: object) -> None:
        for part in (jobs[::2], jobs[1::2]):
            ends = [retried(job, timedelta(0)) if draw.random() < 0.2 else completed(job, NOW, None) for job in part]
            for job in part:
                assert job.concurrency_key is not None
                running[job.concurrency_key] -= 1
            if not ends:
                continue
            assert set(await scene.settle(me, *ends, link=link)) <= {"landed"}  # type: ignore[arg-type]
            ended.update(end.job.id for end in ends if end.move == "complete")

    async with asyncio.timeout(100), asyncio.TaskGroup() as group:
        for seed in range(2):
            group.create_task(spawner(random.Random(seed)))
        for seed in range(4):
            group.create_task(worker(random.Random(seed)))
    assert len(spawned) == len(ended) == total
    assert holders(scene) == {}
    assert scene.rows("SELECT * FROM jobs") == []
