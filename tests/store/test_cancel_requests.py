"""cancel of running jobs: the request, who is told of it, and what becomes of it however the run ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import msgspec
import pytest

from piecework.base.ids import new_id
from piecework.model.job import ClaimedJob
from piecework.model.settlement import Settlement, cancelled, completed, released
from piecework.model.snapshot import ErrorInfo
from support.scene import NOW, Scene, uuids

pytestmark = pytest.mark.postgres(18, 15)

ERROR = ErrorInfo(type="ValueError", message="no")
STARTED = NOW - 2.5


def retry(job: ClaimedJob) -> Settlement:
    return Settlement(job, "retry", STARTED, attempt=2, failures=1, delay=timedelta(hours=1), error=ERROR)


def reschedule(job: ClaimedJob) -> Settlement:
    return Settlement(job, "reschedule", STARTED, attempt=1, delay=timedelta(hours=1))


def fail(job: ClaimedJob) -> Settlement:
    return Settlement(job, "fail", STARTED, attempt=1, failures=1, error=ERROR)


def cancel(job: ClaimedJob) -> Settlement:
    return cancelled(job, STARTED)


def complete(job: ClaimedJob) -> Settlement:
    return completed(job, STARTED, msgspec.Raw(b"7"))


Make = Callable[[ClaimedJob], Settlement]


def requests(scene: Scene) -> list[UUID]:
    return [row["job_id"] for row in scene.rows("SELECT job_id FROM cancel_requests ORDER BY job_id")]  # type: ignore[misc]


def beat(scene: Scene, worker: str) -> list[tuple[str, int]]:
    """What a beat of the worker tells it to cancel."""
    answer = scene.pulse.beat(worker, draining=False, job_types=["work"])
    assert answer is not None
    return answer.requests


async def test_a_cancel_of_a_running_job_leaves_its_row_alone_and_tells_its_worker(scene: Scene) -> None:
    worker, [job] = await scene.running()
    before = scene.dump()
    scene.sql.execute(f"LISTEN {scene.statements.channel}")
    assert await scene.store.cancel([UUID(job.id)]) == ["requested"]
    assert scene.dump()["finished_jobs"] == before["finished_jobs"] == []
    [row], [old] = scene.dump()["jobs"], before["jobs"]
    assert row == old
    [notice] = scene.sql.notifies(timeout=5, stop_after=1)
    assert msgspec.json.decode(notice.payload) == {"worker": worker, "cancel": [[job.id, 1]]}
    assert beat(scene, worker) == [(job.id, 1)]
    assert beat(scene, scene.worker()) == []


async def test_a_thousand_jobs_of_two_workers_are_requested_in_a_few_notices(scene: Scene) -> None:
    one, first = await scene.running(500)
    other, second = await scene.running(500)
    scene.sql.execute(f"LISTEN {scene.statements.channel}")
    assert await scene.store.cancel(uuids([*first, *second])) == ["requested"] * 1000
    scene.sql.execute(f"NOTIFY {scene.statements.channel}, 'last'")
    told: dict[str, list[str]] = {one: [], other: []}
    notices = 0
    for notice in scene.sql.notifies(timeout=10):
        if notice.payload == "last":
            break
        notices += 1
        hint = msgspec.json.decode(notice.payload)
        told[hint["worker"]] += [id for id, _ in hint["cancel"]]
    assert sorted(told[one]) == sorted(job.id for job in first)
    assert sorted(told[other]) == sorted(job.id for job in second)
    assert notices <= 12
    assert sorted(beat(scene, one)) == sorted((job.id, 1) for job in first)


async def test_a_request_made_twice_is_one(scene: Scene) -> None:
    worker, [job] = await scene.running()
    for _ in range(2):
        assert await scene.store.cancel([UUID(job.id), UUID(job.id)]) == ["requested"] * 2
    assert beat(scene, worker) == [(job.id, 1)]


@pytest.mark.parametrize("requested", [True, False])
async def test_a_run_that_was_cancelled_ends_its_job_with_one_attempt(scene: Scene, requested: bool) -> None:
    worker, [job] = await scene.running()
    if requested:
        await scene.store.cancel(uuids([job]))
    assert await scene.settle(worker, cancel(job)) == ["landed"]
    finished = scene.finished(job.id)
    assert (finished["status"], finished["claim_no"], finished["attempt"]) == ("cancelled", 1, 1)
    assert (finished["error"], finished["result"], str(finished["worker_id"])) == (None, None, worker)
    assert finished["started_at"] == finished["finished_at"] - timedelta(seconds=2.5)  # type: ignore[operator]
    [attempt] = scene.attempts(job.id)
    assert (attempt["move"], attempt["claim_no"], attempt["error"]) == ("cancel", 1, None)
    assert scene.dump()["jobs"] == []
    assert requests(scene) == []
    assert await scene.settle(worker, cancel(job)) == ["landed before"]


async def test_a_job_that_was_cancelled_before_its_run_began_has_no_start(scene: Scene) -> None:
    worker, [job] = await scene.running()
    assert await scene.settle(worker, cancelled(job, None)) == ["landed"]
    assert scene.finished(job.id)["started_at"] is None


@pytest.mark.parametrize("make", [retry, reschedule, released, fail])
async def test_whatever_else_a_run_ends_with_ends_a_job_that_is_to_be_cancelled(scene: Scene, make: Make) -> None:
    worker, [job, other] = await scene.running(2)
    await scene.store.cancel(uuids([job]))
    assert await scene.settle(worker, make(job), make(other)) == ["landed", "landed"]
    finished = scene.finished(job.id)
    assert (finished["status"], finished["error"]) == ("cancelled", None)
    [attempt] = scene.attempts(job.id)
    assert attempt["move"] == ("cancel" if make is fail else make(job).move)
    assert (attempt["error"] is None) == (make(job).error is None)
    [left] = [row for table in ("jobs", "finished_jobs") for row in scene.dump()[table] if str(row["id"]) == other.id]
    assert left.get("status", "pending") == ("errored" if make is fail else "pending")
    assert requests(scene) == []
    assert await scene.settle(worker, make(job)) == ["landed before"]


async def test_a_job_that_completes_in_spite_of_the_request_is_completed(scene: Scene) -> None:
    worker, [job] = await scene.running()
    await scene.store.cancel(uuids([job]))
    assert await scene.settle(worker, complete(job)) == ["landed"]
    assert (scene.finished(job.id)["status"], scene.finished(job.id)["result"]) == ("completed", 7)
    assert requests(scene) == []


async def test_a_rescue_ends_the_jobs_that_are_to_be_cancelled_and_gives_back_the_others(scene: Scene) -> None:
    worker, [job, other] = await scene.running(2)
    await scene.store.cancel(uuids([job]))
    assert len(scene.pulse.rescue(worker, 0, 1.0) or []) == 2
    assert scene.finished(job.id)["status"] == "cancelled"
    assert [attempt["move"] for attempt in scene.attempts(job.id)] == ["rescue"]
    assert [str(row["id"]) for row in scene.dump()["jobs"]] == [other.id]
    assert requests(scene) == []


async def test_a_settle_that_is_lost_leaves_the_request_of_another_claim(scene: Scene) -> None:
    worker, [job] = await scene.running()
    now = scene.worker()
    scene.sql.execute("UPDATE jobs SET worker_id = %s, claim_no = 2", [now])
    await scene.store.cancel(uuids([job]))
    assert await scene.settle(worker, retry(job)) == ["lost"]
    assert requests(scene) == uuids([job])
    assert beat(scene, now) == [(job.id, 2)]


@pytest.mark.parametrize("make", [retry, released, complete, fail])
async def test_a_cancel_waits_for_the_settle_under_way_and_finds_how_it_ended(scene: Scene, make: Make) -> None:
    worker, [job] = await scene.running()
    moved = make(job)
    session = scene.session()
    details = msgspec.json.encode([{"attempt": 1, "failures": 0, "crashes": 0, "delay": 0}]).decode()
    session.execute(scene.statements.sql("settle"), [worker, [job.id], [1], [moved.move], [1], details])
    asked = asyncio.create_task(scene.store.cancel(uuids([job])))
    await scene.until_blocked()
    session.commit()
    ended = moved.move in ("complete", "fail")
    assert await asked == ["finished" if ended else "cancelled"]
    assert scene.finished(job.id)["status"] == {"complete": "completed", "fail": "errored"}.get(moved.move, "cancelled")
    assert requests(scene) == []


@pytest.mark.parametrize("make", [retry, complete])
async def test_a_settle_that_meets_the_cancel_under_way_comes_again_and_sees_the_request(
    scene: Scene, make: Make
) -> None:
    worker, [job] = await scene.running()
    session = scene.session()
    session.execute(scene.statements.sql("cancel_jobs"), [uuids([job])])
    assert await scene.settle(worker, make(job)) == ["locked"]
    session.commit()
    assert await scene.settle(worker, make(job)) == ["landed"]
    assert scene.finished(job.id)["status"] == ("completed" if make is complete else "cancelled")
    assert requests(scene) == []


async def test_a_row_that_a_transaction_holds_for_long_is_requested_without_waiting_on_and_later_seen_to(
    scene: Scene,
) -> None:
    ids = await scene.spawn_many(3)
    holder = scene.session()
    holder.execute("SELECT FROM jobs WHERE id = ANY ($1) FOR UPDATE", [ids[:2]])
    assert await scene.store.cancel([UUID(id) for id in ids]) == ["requested", "requested", "cancelled"]
    holder.commit()
    worker = scene.worker()
    [first, second] = await scene.claim(worker)
    assert sorted(beat(scene, worker)) == sorted([(first.id, 1), (second.id, 1)])
    await scene.settle(worker, cancel(first), complete(second))
    assert requests(scene) == []


async def vanished(scene: Scene, job: ClaimedJob) -> None:
    scene.sql.execute("DELETE FROM jobs")


async def ended_in_another_way(scene: Scene, job: ClaimedJob) -> None:
    scene.sql.execute("ALTER TABLE cancel_requests RENAME TO hidden; CREATE TABLE cancel_requests (job_id uuid)")
    try:
        assert await scene.settle(str(scene.job(job.id)["worker_id"]), complete(job)) == ["landed"]
    finally:
        scene.sql.execute("DROP TABLE cancel_requests; ALTER TABLE hidden RENAME TO cancel_requests")


@pytest.mark.parametrize("happen", [vanished, ended_in_another_way], ids=lambda happen: happen.__name__)
async def test_a_request_whose_job_is_gone_goes_with_the_next_beat_of_anybody(
    scene: Scene, happen: Callable[[Scene, ClaimedJob], Awaitable[None]]
) -> None:
    _, [job] = await scene.running()
    _, [alive] = await scene.running()
    await scene.store.cancel(uuids([job, alive]))
    await happen(scene, job)
    if happen is vanished:
        scene.sql.execute("DELETE FROM cancel_requests WHERE job_id = %s", [alive.id])
    assert beat(scene, scene.worker()) == []
    assert requests(scene) == ([] if happen is vanished else uuids([alive]))


async def test_beats_do_not_wait_for_each_other_at_requests_that_are_left(scene: Scene) -> None:
    scene.sql.execute("INSERT INTO cancel_requests VALUES (%s, 1)", [new_id()])
    worker, other = scene.worker(), scene.worker()
    session = scene.session()
    session.execute(scene.statements.sql("beat"), [other, False, [], None])
    assert beat(scene, worker) == []
    session.commit()
    assert requests(scene) == []


async def test_a_job_that_is_brought_back_forgets_a_request_from_before(scene: Scene) -> None:
    worker, [job] = await scene.running()
    await scene.settle(worker, cancel(job))
    scene.sql.execute("INSERT INTO cancel_requests VALUES (%s, 1)", [job.id])
    assert await scene.store.retry(uuids([job])) == ["retried"]
    assert requests(scene) == []
    [again] = await scene.claim(worker)
    assert (again.id, beat(scene, worker)) == (job.id, [])


async def test_a_retry_of_a_job_that_is_to_be_cancelled_changes_nothing(scene: Scene) -> None:
    worker, [job] = await scene.running()
    await scene.store.cancel(uuids([job]))
    assert await scene.store.retry(uuids([job])) == ["live"]
    assert beat(scene, worker) == [(job.id, 1)]


async def test_a_job_that_ended_while_the_cancel_waited_and_was_brought_back_is_left_alone(scene: Scene) -> None:
    worker, [job] = await scene.running()
    session = scene.session()
    session.execute(scene.statements.sql("settle"), [worker, [job.id], [1], ["complete"], [1], None])
    session.execute(scene.statements.sql("retry_jobs"), [[UUID(job.id)], "-infinity"])
    asked = asyncio.create_task(scene.store.cancel(uuids([job])))
    await scene.until_blocked()
    session.commit()
    assert await asked == ["finished"]
    assert scene.job(job.id)["worker_id"] is None
    assert requests(scene) == []


async def test_a_second_request_waits_for_no_transaction_that_completes_the_job(scene: Scene) -> None:
    worker, [job, pending_behind] = await scene.running(2)
    assert await scene.settle(worker, released(pending_behind)) == ["landed"]
    ids = uuids([job, pending_behind])
    assert await scene.store.cancel(ids[:1]) == ["requested"]
    user = scene.session()
    claim = f'["{job.id}", 1, "complete", 1, null]'
    user.execute("SELECT complete_1($1)", [f'{{"worker": "{worker}", "claims": [{claim}]}}'])
    assert await scene.store.cancel(ids) == ["requested", "cancelled"]
    user.commit()
    assert await scene.store.cancel(ids) == ["finished", "finished"]
    assert requests(scene) == []
