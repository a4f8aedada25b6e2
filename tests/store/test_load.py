"""load and list: jobs as they were at one moment."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import msgspec
import pytest

from piecework.base.ids import new_id
from piecework.model.settlement import Settlement, completed, released
from piecework.model.snapshot import ErrorInfo, JobSnapshot
from piecework.store.overview import JobFilter, list_attempts, list_jobs
from support.scene import NOW, Scene, new_job, uuids

pytestmark = pytest.mark.postgres(18)

ERROR = ErrorInfo(type="E", message="m", traceback="t")
RAW = msgspec.Raw


async def load(scene: Scene, id: str) -> JobSnapshot:
    [snapshot] = await scene.store.load([UUID(id)])
    assert snapshot is not None
    return snapshot


def aged(days: float) -> UUID:
    """A UUIDv7 as if made so many days from now."""
    return UUID(int=new_id().int + (int(days * 86_400_000) << 80))


# one job at each station


async def test_a_pending_job(scene: Scene) -> None:
    [id] = await scene.spawn(new_job(queue="q", priority=2, tags=["a", "b"], config=RAW(b'{"a": 1}'), delay=60_000_000))
    row = scene.job(id)
    assert await load(scene, id) == JobSnapshot(
        id=UUID(id), job_type="work", status="pending", queue="q", priority=2, attempt=1, failures=0, crashes=0,
        claim_no=0, worker_id=None, run_at=row["run_at"], created_at=row["created_at"],  # type: ignore[arg-type]
        claimed_at=None, started_at=None, finished_at=None, tags=("a", "b"), config=RAW(b'{"a": 1}'), result=None,
        error=None,
    )  # fmt: skip


async def test_a_running_job(scene: Scene) -> None:
    worker, [job] = await scene.running()
    row = scene.job(job.id)
    assert await load(scene, job.id) == JobSnapshot(
        id=UUID(job.id), job_type="work", status="running", queue="default", priority=0, attempt=1, failures=0,
        crashes=0, claim_no=1, worker_id=UUID(worker), run_at=None, tags=(), config=RAW(b"{}"), result=None, error=None,
        created_at=row["created_at"], claimed_at=row["claimed_at"], finished_at=None,  # type: ignore[arg-type]
        started_at=row["claimed_at"],  # type: ignore[arg-type]
    )  # fmt: skip


async def test_a_completed_job(scene: Scene) -> None:
    worker, [job] = await scene.running()
    await scene.settle(worker, completed(job, NOW - 3, RAW(b"[1, 2]")))
    row = scene.finished(job.id)
    snapshot = await load(scene, job.id)
    assert snapshot == JobSnapshot(
        id=UUID(job.id), job_type="work", status="completed", queue="default", priority=0, attempt=1, failures=0,
        crashes=0, claim_no=1, worker_id=UUID(worker), run_at=None, tags=(), config=RAW(b"{}"), result=RAW(b"[1, 2]"),
        created_at=row["created_at"], claimed_at=row["started_at"], error=None,  # type: ignore[arg-type]
        started_at=row["started_at"], finished_at=row["finished_at"],  # type: ignore[arg-type]
    )  # fmt: skip
    assert snapshot.finished_at - snapshot.started_at == timedelta(seconds=3)  # type: ignore[operator]


async def test_an_errored_job_tells_why(scene: Scene) -> None:
    worker, [job] = await scene.running()
    await scene.settle(worker, Settlement(job, "fail", NOW, attempt=1, failures=1, error=ERROR))
    snapshot = await load(scene, job.id)
    assert (snapshot.status, snapshot.error, snapshot.result) == ("errored", ERROR, None)


async def test_a_cancelled_job(scene: Scene) -> None:
    [id] = await scene.spawn_many(1)
    await scene.store.cancel([UUID(id)])
    snapshot = await load(scene, id)
    assert (snapshot.status, snapshot.started_at, snapshot.worker_id) == ("cancelled", None, None)


async def test_a_job_that_is_retried_tells_of_its_last_failure(scene: Scene) -> None:
    worker, [job] = await scene.running()
    await scene.settle(worker, Settlement(job, "retry", NOW, attempt=2, failures=1, delay=timedelta(0), error=ERROR))
    [again] = await scene.claim(worker)
    newer = ErrorInfo(type="F", message="m2")
    await scene.settle(worker, Settlement(again, "retry", NOW, attempt=3, failures=2, delay=timedelta(0), error=newer))
    assert (await load(scene, job.id)).error == newer
    [again] = await scene.claim(worker)
    await scene.settle(worker, released(again))
    snapshot = await load(scene, job.id)
    assert (snapshot.status, snapshot.attempt, snapshot.error) == ("pending", 3, newer)


async def test_a_job_that_was_rescheduled_tells_of_no_failure(scene: Scene) -> None:
    worker, [job] = await scene.running()
    await scene.settle(worker, Settlement(job, "retry", NOW, attempt=2, failures=1, delay=timedelta(0), error=ERROR))
    [again] = await scene.claim(worker)
    await scene.settle(worker, Settlement(again, "reschedule", NOW, attempt=1))
    assert (await load(scene, job.id)).error is None


async def test_a_job_of_a_lost_worker_tells_so(scene: Scene) -> None:
    worker, [job] = await scene.running()
    scene.pulse.rescue(worker, 0, 18.0)
    error = (await load(scene, job.id)).error
    assert error is not None
    assert error.type == "worker lost"


# ids


async def test_jobs_come_in_the_order_of_their_ids_asked_for(scene: Scene) -> None:
    ids = [UUID(id) for id in await scene.spawn_many(4)]
    asked = [ids[2], new_id(), ids[0], ids[2], uuid4(), ids[3]]
    found = await scene.store.load(asked)
    assert [snapshot and snapshot.id for snapshot in found] == [ids[2], None, ids[0], ids[2], None, ids[3]]
    assert await scene.store.load([]) == []


@pytest.mark.parametrize(
    "id",
    [uuid4(), UUID(int=0), UUID(int=2**128 - 1), aged(-4000), aged(-3), aged(3), aged(4000),
     UUID("ffffffff-ffff-7000-8000-000000000000"), UUID("00000000-0000-7000-8000-000000000000")],
    ids=["v4", "nil", "max", "10 years old", "3 days old", "3 days ahead", "10 years ahead", "last v7", "first v7"],
)  # fmt: skip
async def test_a_job_is_found_whatever_age_its_id_tells(scene: Scene, id: UUID) -> None:
    """A caller may have chosen it, or made it on a machine whose clock is wrong."""
    worker = scene.worker()
    await scene.spawn(new_job(id=str(id), chosen=True))
    assert (await load(scene, str(id))).status == "pending"
    await scene.settle(worker, *[completed(job, NOW, None) for job in await scene.claim(worker)])
    assert (await load(scene, str(id))).status == "completed"
    other = new_id()
    await scene.spawn(new_job(id=str(other)))
    assert [snapshot and snapshot.id for snapshot in await scene.store.load([other, id])] == [other, id]
    assert await scene.store.retry([id]) == ["retried"]
    assert await scene.store.cancel([id]) == ["cancelled"]
    assert await scene.store.cancel([id]) == ["finished"]


# never torn


async def test_a_settle_that_is_not_committed_is_not_seen(scene: Scene) -> None:
    worker, [job] = await scene.running()
    settle = scene.session()
    settle.execute(scene.statements.sql("settle"), [worker, uuids([job]), [1], ["complete"], [0], None])
    assert (await load(scene, job.id)).status == "running"
    settle.commit()
    assert (await load(scene, job.id)).status == "completed"


async def test_a_job_is_in_one_place_at_every_moment(scene: Scene) -> None:
    worker, jobs = await scene.running(120)
    ids = uuids(jobs)
    looks = 0
    done = asyncio.Event()

    async def settle() -> None:
        for n in range(0, len(jobs), 2):
            await scene.settle(worker, *[completed(job, NOW, None) for job in jobs[n : n + 2]])
            await scene.store.retry(ids[n : n + 1])
        done.set()

    async def look() -> None:
        nonlocal looks
        while not done.is_set():
            found = await scene.store.load(ids)
            assert [snapshot and snapshot.id for snapshot in found] == ids
            looks += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(settle())
        group.create_task(look())
    assert looks > 10


# lists


async def test_the_newest_jobs_are_listed_first_live_and_finished(scene: Scene) -> None:
    worker, jobs = await scene.running(3)
    await scene.settle(worker, completed(jobs[1], NOW, RAW(b"1")))
    pending = [UUID(id) for id in await scene.spawn_many(2)]
    listed = await list_jobs(scene.store, JobFilter(), 10)
    assert [snapshot.id for snapshot in listed] == sorted([*uuids(jobs), *pending], reverse=True)
    assert listed == await scene.store.load([snapshot.id for snapshot in listed])
    assert await list_jobs(scene.store, JobFilter(), 2) == listed[:2]


async def test_a_list_keeps_to_its_filter(scene: Scene) -> None:
    worker, jobs = await scene.running(3)
    await scene.settle(worker, completed(jobs[0], NOW, None),
                       Settlement(jobs[1], "fail", NOW, attempt=1, failures=1, error=ERROR))  # fmt: skip
    [pending, other, third] = await scene.spawn(new_job(), new_job(queue="q"), new_job(job_type="t"))

    async def listed(**which: str) -> list[str]:
        return [str(job.id) for job in await list_jobs(scene.store, JobFilter(**which), 10)]  # type: ignore[arg-type]

    assert await listed(status="completed") == [jobs[0].id]
    assert await listed(status="errored") == [jobs[1].id]
    assert await listed(status="running") == [jobs[2].id]
    assert await listed(status="pending") == [third, other, pending]
    assert await listed(status="cancelled") == []
    assert await listed(queue="q") == [other]
    assert await listed(job_type="t", status="pending") == [third]


async def test_the_attempts_of_a_job_are_listed_in_their_order(scene: Scene) -> None:
    worker, [job] = await scene.running()
    await scene.settle(worker, Settlement(job, "retry", NOW, attempt=2, failures=1, delay=timedelta(0), error=ERROR))
    [again] = await scene.claim(worker)
    await scene.settle(worker, released(again))
    await scene.claim(worker)
    scene.pulse.rescue(worker, 0, 18.0)
    listed = await list_attempts(scene.store, UUID(job.id))
    assert [(past.claim_no, past.attempt, past.ended) for past in listed] == [
        (1, 1, "retry"), (2, 2, "release"), (3, 2, "rescue"),
    ]  # fmt: skip
