"""Everybody at once: no deadlock, and the sums are right."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from uuid import UUID

import msgspec
import pytest

from piecework.base.errors import JobAlreadyExists
from piecework.base.ids import new_id
from piecework.model.job import ClaimedJob
from piecework.model.settlement import Settlement, cancelled, completed, released
from piecework.store.claiming import WorkerGone
from piecework.store.liveness import Pulse
from support.scene import NOW, Scene, new_job

pytestmark = pytest.mark.postgres(18, 15)

JOBS, WORKERS, ROUNDS = 300, 4, 25


def complete(job: ClaimedJob) -> Settlement:
    return completed(job, NOW, None)


def cancel(job: ClaimedJob) -> Settlement:
    return cancelled(job, NOW)


def retry(job: ClaimedJob) -> Settlement:
    return Settlement(job, "retry", NOW, attempt=2)


class Crowd:
    """Workers, rescuers and operators on the same jobs. A deadlock ends in an error of one of them."""

    def __init__(self, scene: Scene, ids: list[UUID]) -> None:
        self.scene = scene
        self.ids = ids
        self.landed: Counter[str] = Counter()
        self.rescued = 0

    async def work(self, seed: int) -> None:
        scene, draw = self.scene, random.Random(seed)
        link, worker = scene.another_link(), scene.worker()
        for _ in range(ROUNDS):
            try:
                jobs = await scene.claim(worker, 30, link=link)
            except WorkerGone:
                worker = scene.worker()
                continue
            draw.shuffle(jobs)
            ends = [draw.choice([complete, released, cancel, retry])(job) for job in jobs[draw.randrange(3) :]]
            while ends:
                answers = await scene.settle(worker, *ends, link=link)
                for end, answer in zip(ends, answers, strict=True):
                    self.landed[end.move] += answer == "landed"
                ends = [end for end, answer in zip(ends, answers, strict=True) if answer == "locked"]
        await link.drop()

    def rescue(self) -> None:
        pulse = Pulse(self.scene.store.dsn, self.scene.statements)
        own = str(new_id())
        for _ in range(ROUNDS):
            beat = pulse.beat(own, draining=False, job_types=[])
            if beat is None:
                own = self.scene.worker()
                continue
            for worker, beat_no, lease in beat.others[-2:]:
                self.rescued += len(pulse.rescue(worker, beat_no, lease) or [])
        pulse.close()

    async def operate(self, seed: int) -> None:
        store, draw = self.scene.store, random.Random(seed)
        for _ in range(ROUNDS):
            await store.cancel(draw.sample(self.ids, 40))
            await store.retry(draw.sample(self.ids, 80))

    async def look(self) -> None:
        for _ in range(ROUNDS):
            found = await self.scene.store.load(self.ids)
            assert all(found)


async def test_workers_rescuers_and_operators_on_the_same_jobs(scene: Scene) -> None:
    ids = [UUID(id) for id in await scene.spawn_many(JOBS)]
    crowd = Crowd(scene, ids)
    async with asyncio.TaskGroup() as group:
        for seed in range(WORKERS):
            group.create_task(crowd.work(seed))
        group.create_task(asyncio.to_thread(crowd.rescue))
        for seed in range(2):
            group.create_task(crowd.operate(seed))
        group.create_task(crowd.look())
    for worker in scene.rows("SELECT id, beat_no FROM workers"):
        assert scene.pulse.rescue(str(worker["id"]), worker["beat_no"], 1.0) is not None  # type: ignore[arg-type]
    assert scene.value("SELECT count(*) FROM cancel_requests") == 0, "every job that ran has ended, or was given back"
    dump = scene.dump()
    assert sorted(row["id"] for table in ("jobs", "finished_jobs") for row in dump[table]) == ids  # type: ignore[type-var]
    assert all(row["worker_id"] is None for row in dump["jobs"])
    moves = Counter(row["move"] for row in dump["attempts"])
    for move in ("release", "retry", "cancel"):
        assert moves[move] == crowd.landed[move] > 0
    claims = {(row["job_id"], row["claim_no"]) for row in dump["attempts"]}
    assert len(claims) == len(dump["attempts"]), "no claim ended twice"
    assert min(crowd.landed["complete"], crowd.rescued, moves["rescue"]) > 0


async def test_two_spawns_of_the_same_chosen_ids_in_opposite_orders_do_not_wait_for_each_other(scene: Scene) -> None:
    ids = sorted(str(new_id()) for _ in range(2))
    one, other = ([new_job(id=id, chosen=True)] for id in ids)
    user = scene.session(lock_timeout="2s")
    user.execute(scene.statements.sql("spawn"), [msgspec.json.encode(one).decode()])
    spawning = asyncio.create_task(scene.store.spawn([*other, *one]))
    await scene.until_blocked()
    user.execute(scene.statements.sql("spawn"), [msgspec.json.encode(other).decode()])
    user.commit()
    with pytest.raises(JobAlreadyExists):
        await spawning
    assert [str(row["id"]) for row in scene.dump()["jobs"]] == ids


async def test_the_rows_of_keys_are_locked_in_one_order_however_they_are_named(scene: Scene) -> None:
    keys = [f"key {number:02}" for number in range(60)]
    named = random.Random(4).sample(keys, len(keys))
    user, locker, watcher = (scene.session() for _ in range(3))
    user.execute("INSERT INTO concurrency_keys (queue, concurrency_key) SELECT 'default', unnest($1::text[])", [named])
    user.commit()
    user.execute("SELECT FROM concurrency_keys WHERE concurrency_key = $1 FOR UPDATE", [keys[30]])
    queues = ["default"] * len(keys)
    locking = asyncio.create_task(asyncio.to_thread(locker.execute, "SELECT lock_keys_1($1, $2)", [queues, named]))
    await scene.until_blocked()
    free = "SELECT concurrency_key FROM concurrency_keys ORDER BY 1 FOR NO KEY UPDATE SKIP LOCKED"
    assert [key for [key] in watcher.execute(free).fetchall()] == keys[31:]
    watcher.rollback()
    user.rollback()
    await locking
