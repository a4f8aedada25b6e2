"""cancel and retry: what an operator does to jobs that no worker holds. Of two operators one wins."""

from __future__ import annotations

import asyncio
import random
from uuid import UUID

import pytest

from piecework.base.ids import new_id
from piecework.model.settlement import Settlement, completed
from piecework.model.snapshot import ErrorInfo
from support.scene import NOW, Scene, new_job, uuids

pytestmark = pytest.mark.postgres(18, 15)


async def test_a_pending_job_is_cancelled_into_the_history(scene: Scene) -> None:
    [id] = await scene.spawn(new_job(queue="q", priority=4, tags=["t"], delay=60_000_000))
    scene.sql.execute("UPDATE jobs SET claim_no = 3, attempt = 2, failures = 1, crashes = 1, metadata = '{}'")
    row, before = scene.job(id), scene.clock()
    assert await scene.store.cancel([UUID(id)]) == ["cancelled"]
    finished = scene.finished(id)
    assert before <= finished["finished_at"] <= scene.clock()  # type: ignore[operator]
    kept = {k: v for k, v in row.items() if k not in ("claimed_at", "parked")}
    assert finished == {
        **kept, "status": "cancelled", "result": None, "error": None, "started_at": None, "worker_id": None,
        "finished_at": finished["finished_at"],
    }  # fmt: skip
    assert scene.dump()["jobs"] == []


async def test_each_id_of_a_cancel_is_answered(scene: Scene) -> None:
    worker, [ended] = await scene.running()
    await scene.settle(worker, completed(ended, NOW, None))
    _, [running] = await scene.running()
    [pending] = await scene.spawn_many(1)
    before = scene.rows("SELECT * FROM jobs WHERE worker_id IS NOT NULL"), scene.finished(ended.id)
    ids = [UUID(pending), UUID(running.id), UUID(ended.id), new_id(), UUID(pending)]
    assert await scene.store.cancel(ids) == ["cancelled", "requested", "finished", "unknown", "cancelled"]
    assert (scene.rows("SELECT * FROM jobs"), scene.finished(ended.id)) == before
    assert await scene.store.cancel([UUID(pending)]) == ["finished"]
    assert await scene.store.cancel([]) == []


async def test_a_job_that_is_being_claimed_is_not_cancelled(scene: Scene) -> None:
    worker = scene.worker()
    [id] = await scene.spawn_many(1)
    claim = scene.session()
    claim.execute(scene.statements.sql("claim"), [worker, ["default"], ["work"], [0], [1], 1])
    cancel = asyncio.create_task(scene.store.cancel([UUID(id)]))
    await scene.until_blocked()
    claim.commit()
    assert await cancel == ["requested"]
    assert str(scene.job(id)["worker_id"]) == worker


async def test_a_job_that_is_being_cancelled_is_not_claimed(scene: Scene) -> None:
    worker = scene.worker()
    [id] = await scene.spawn_many(1)
    cancel = scene.session()
    cancel.execute(scene.statements.sql("cancel_jobs"), [[UUID(id)]])
    assert await scene.claim(worker) == []
    cancel.commit()
    assert await scene.claim(worker) == []
    assert scene.finished(id)["status"] == "cancelled"


async def test_a_finished_job_is_brought_back_with_its_counters_anew(scene: Scene) -> None:
    worker = scene.worker()
    [id] = await scene.spawn(new_job(queue="q", priority=4, tags=["t"]))
    scene.sql.execute("UPDATE jobs SET attempt = 2, failures = 1, crashes = 1, metadata = '{}', queue = 'default', "
                      "priority = 0, claim_no = 8")  # fmt: skip
    row = scene.job(id)
    [job] = await scene.claim(worker)
    error = ErrorInfo(type="E", message="m")
    await scene.settle(worker, Settlement(job, "fail", NOW, attempt=2, failures=2, crashes=1, error=error))
    before = scene.clock()
    assert await scene.store.retry([UUID(id)]) == ["retried"]
    run_at = scene.job(id)["run_at"]
    assert before <= run_at <= scene.clock()  # type: ignore[operator]
    assert scene.job(id) == {**row, "claim_no": 10, "attempt": 1, "failures": 0, "crashes": 0, "run_at": run_at}
    assert scene.dump()["finished_jobs"] == []
    assert [attempt["claim_no"] for attempt in scene.attempts(id)] == [9]


async def test_each_id_of_a_retry_is_answered(scene: Scene) -> None:
    worker, jobs = await scene.running(3)
    await scene.settle(worker, completed(jobs[0], NOW, None))
    [pending] = await scene.spawn_many(1)
    assert await scene.store.cancel([UUID(pending)]) == ["cancelled"]
    ids = [UUID(jobs[0].id), UUID(jobs[1].id), new_id(), UUID(pending)]
    assert await scene.store.retry(ids) == ["retried", "live", "unknown", "retried"]
    assert await scene.store.retry(ids) == ["live", "live", "unknown", "live"]
    assert await scene.store.retry([]) == []


async def test_a_settle_of_the_claim_before_a_retry_is_lost_or_has_landed_before(scene: Scene) -> None:
    worker, jobs = await scene.running(2)
    late = [completed(job, NOW, None) for job in jobs]
    await scene.settle(worker, late[0])
    scene.pulse.rescue(worker, 0, 18.0)
    assert await scene.store.cancel([UUID(jobs[1].id)]) == ["cancelled"]
    assert await scene.store.retry(uuids(jobs)) == ["retried", "retried"]
    before = scene.dump()
    # The row that told of the first one is gone with the retry, and the job is to run again as asked.
    assert await scene.settle(worker, *late) == ["lost", "lost"]
    assert scene.dump() == before


async def test_a_retry_hints_at_the_lanes(scene: Scene) -> None:
    ids = [UUID(id) for id in await scene.spawn_many(3)]
    await scene.store.cancel(ids)
    scene.sql.execute(f"LISTEN {scene.statements.channel}")
    await scene.store.retry(ids)
    scene.sql.execute(f"NOTIFY {scene.statements.channel}, 'last'")
    heard = [n.payload for n in scene.sql.notifies(timeout=5, stop_after=2)]
    assert heard == ['["default", "work", 0, [], false]', "last"]


async def test_of_two_retries_one_brings_the_job_back(scene: Scene) -> None:
    [id] = await scene.spawn_many(1)
    await scene.store.cancel([UUID(id)])
    first = scene.session()
    since = scene.value("SELECT '-infinity'::timestamptz::text")
    assert first.execute(scene.statements.sql("retry_jobs"), [[UUID(id)], since]).rowcount == 1
    second = asyncio.create_task(scene.store.retry([UUID(id)]))
    await scene.until_blocked()
    first.commit()
    assert await second == ["live"]
    assert scene.job(id)["claim_no"] == 1


async def test_operators_in_each_others_way_lose_no_job(scene: Scene) -> None:
    """Six operators cancel and retry the same jobs in any order; every job stays in one place."""
    ids = [UUID(id) for id in await scene.spawn_many(30)]

    async def operate(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(12):
            some = draw.sample(ids, 10)
            await (scene.store.cancel(some) if draw.random() < 0.5 else scene.store.retry(some))

    async with asyncio.TaskGroup() as group:
        for seed in range(6):
            group.create_task(operate(seed))
    dump = scene.dump()
    assert sorted(row["id"] for table in ("jobs", "finished_jobs") for row in dump[table]) == ids  # type: ignore[type-var]
