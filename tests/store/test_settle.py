"""settle: how claims end, many in one call, each fenced by (id, claim number, worker)."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest

from piecework.base.ids import new_id
from piecework.model.job import ClaimedJob
from piecework.model.lanes import Lane
from piecework.model.settlement import Settlement, completed, released
from piecework.model.snapshot import ErrorInfo
from support.scene import NOW, Row, Scene, new_job, uuids

pytestmark = pytest.mark.postgres(18, 15)

ERROR = ErrorInfo(type="ValueError", message="no", traceback="at line 1")
MOMENT = datetime(2030, 5, 6, 7, 8, 9, 123_456, tzinfo=UTC)
AGE = timedelta(seconds=2.5)
STARTED = NOW - AGE.total_seconds()


def complete(job: ClaimedJob) -> Settlement:
    return completed(job, STARTED, msgspec.Raw(b'{"sum": 1}'))


def complete_without_result(job: ClaimedJob) -> Settlement:
    return completed(job, STARTED, None)


def fail(job: ClaimedJob) -> Settlement:
    return Settlement(job, "fail", STARTED, attempt=4, failures=3, crashes=1, error=ERROR)


def retry(job: ClaimedJob) -> Settlement:
    delay = timedelta(minutes=3, microseconds=1)
    return Settlement(job, "retry", STARTED, attempt=3, failures=5, crashes=1, delay=delay, error=ERROR)


def reschedule(job: ClaimedJob) -> Settlement:
    return Settlement(job, "reschedule", STARTED, attempt=1, run_at=MOMENT)


release = released
ALL_MOVES = [complete, complete_without_result, fail, retry, reschedule, release]
Make = Callable[[ClaimedJob], Settlement]


async def odd_job(scene: Scene) -> tuple[str, ClaimedJob, Row]:
    """A running job that has a past; no column is at its default."""
    [id] = await scene.spawn(new_job(queue="q", priority=3, tags=["x"], config=msgspec.Raw(b'{"n": 1}')))
    scene.sql.execute(
        "UPDATE jobs SET claim_no = 6, attempt = 2, failures = 4, crashes = 1, key = 'k', timeout = '1 minute', "
        """metadata = '{"m": 1}', trace_context = '{"t": 1}', created_at = created_at - interval '1 hour'"""
    )
    worker = scene.worker()
    [job] = await scene.claim(worker, 1, (Lane("q", "work", 3), 1))
    assert (job.id, job.claim_no) == (id, 7)
    return worker, job, scene.job(id)


def history(row: Row, **values: object) -> Row:
    """The finished row that a running row becomes."""
    left = {k: v for k, v in row.items() if k not in ("claimed_at", "parked")}
    return {**left, "result": None, "error": None, **values}


# rows before, rows after


@pytest.mark.parametrize(("make", "result"), [(complete, {"sum": 1}), (complete_without_result, None)])
async def test_complete_moves_the_job_to_the_history(scene: Scene, make: Make, result: object) -> None:
    worker, job, row = await odd_job(scene)
    before = scene.clock()
    assert await scene.settle(worker, make(job)) == ["landed"]
    after = scene.clock()
    finished = scene.finished(job.id)
    assert before <= finished["finished_at"] <= after  # type: ignore[operator]
    assert finished == history(
        row, status="completed", result=result, started_at=finished["finished_at"] - AGE,  # type: ignore[operator]
        finished_at=finished["finished_at"],
    )  # fmt: skip
    assert scene.dump()["jobs"] == scene.dump()["attempts"] == []


@pytest.mark.parametrize("text", [b"null", b'"\xc3\xbc"', b"[1, 2.50, 1e3]", b"12345678901234567890123"])
async def test_any_json_is_a_result(scene: Scene, text: bytes) -> None:
    worker, [job] = await scene.running()
    await scene.settle(worker, completed(job, STARTED, msgspec.Raw(text)))
    [snapshot] = await scene.store.load(uuids([job]))
    assert snapshot is not None
    assert snapshot.result is not None
    assert msgspec.json.decode(snapshot.result) == msgspec.json.decode(text)


async def test_fail_moves_the_job_to_the_history_and_leaves_an_attempt(scene: Scene) -> None:
    worker, job, row = await odd_job(scene)
    assert await scene.settle(worker, fail(job)) == ["landed"]
    finished = scene.finished(job.id)
    moment = finished["finished_at"]
    started = moment - AGE  # type: ignore[operator]
    error = {"type": "ValueError", "message": "no", "traceback": "at line 1"}
    assert finished == history(
        row, status="errored", error=error, attempt=4, failures=3, started_at=started, finished_at=moment
    )
    assert scene.attempts(job.id) == [
        {"job_id": UUID(job.id), "claim_no": 7, "worker_id": UUID(worker), "attempt": 4, "move": "fail",
         "started_at": started, "ended_at": moment, "error": error, "next_run_at": None}
    ]  # fmt: skip
    assert scene.dump()["jobs"] == []


async def test_a_job_that_is_refused_before_it_runs_fails_without_a_start(scene: Scene) -> None:
    worker, job, _ = await odd_job(scene)
    await scene.settle(worker, Settlement(job, "fail", None, attempt=1, failures=4, crashes=5, error=ERROR))
    assert scene.finished(job.id)["started_at"] is None
    assert scene.attempts(job.id)[0]["started_at"] is None


async def test_retry_gives_the_job_back_after_the_delay(scene: Scene) -> None:
    worker, job, row = await odd_job(scene)
    assert await scene.settle(worker, retry(job)) == ["landed"]
    [attempt] = scene.attempts(job.id)
    moment = attempt["ended_at"]
    run_at = moment + timedelta(minutes=3, microseconds=1)  # type: ignore[operator]
    assert scene.job(job.id) == {
        **row, "worker_id": None, "claimed_at": None, "run_at": run_at, "attempt": 3, "failures": 5, "crashes": 1
    }  # fmt: skip
    assert attempt == {
        "job_id": UUID(job.id), "claim_no": 7, "worker_id": UUID(worker), "attempt": 2, "move": "retry",
        "started_at": moment - AGE, "ended_at": moment, "next_run_at": run_at,  # type: ignore[operator]
        "error": {"type": "ValueError", "message": "no", "traceback": "at line 1"},
    }  # fmt: skip
    assert scene.dump()["finished_jobs"] == []


async def test_reschedule_gives_the_job_back_at_the_moment_with_its_counters_anew(scene: Scene) -> None:
    worker, job, row = await odd_job(scene)
    assert await scene.settle(worker, reschedule(job)) == ["landed"]
    assert scene.job(job.id) == {
        **row, "worker_id": None, "claimed_at": None, "run_at": MOMENT, "attempt": 1, "failures": 0, "crashes": 0
    }  # fmt: skip
    [attempt] = scene.attempts(job.id)
    assert (attempt["move"], attempt["attempt"], attempt["next_run_at"], attempt["error"]) == (
        "reschedule", 2, MOMENT, None,
    )  # fmt: skip


async def test_release_gives_the_job_back_as_it_was_taken(scene: Scene) -> None:
    worker, job, row = await odd_job(scene)
    assert await scene.settle(worker, release(job)) == ["landed"]
    assert scene.job(job.id) == {**row, "worker_id": None, "claimed_at": None}
    [attempt] = scene.attempts(job.id)
    assert (attempt["move"], attempt["started_at"], attempt["next_run_at"]) == ("release", None, row["run_at"])


async def test_cancel_moves_the_job_to_the_history(scene: Scene) -> None:
    worker, job, row = await odd_job(scene)
    await scene.link.value("settle", worker, [UUID(job.id)], [job.claim_no], ["cancel"], [None], None)
    finished = scene.finished(job.id)
    assert finished == history(row, status="cancelled", started_at=None, finished_at=finished["finished_at"])


async def test_a_job_that_was_given_back_is_claimed_with_the_next_number(scene: Scene) -> None:
    worker, [job] = await scene.running()
    await scene.settle(worker, release(job))
    [again] = await scene.claim(worker)
    assert (again.id, again.claim_no, again.run_at) == (job.id, 2, job.run_at)


async def test_each_job_of_a_batch_gets_its_own_end_whatever_the_order(scene: Scene) -> None:
    worker, jobs = await scene.running(60)
    random.Random(1).shuffle(jobs)
    moves = [ALL_MOVES[n % len(ALL_MOVES)] for n in range(60)]
    settlements = [
        msgspec.structs.replace(make(job), attempt=n + 1) for n, (make, job) in enumerate(zip(moves, jobs, strict=True))
    ]
    assert await scene.settle(worker, *settlements) == ["landed"] * 60
    for n, (make, job) in enumerate(zip(moves, jobs, strict=True)):
        if make in (complete, complete_without_result, fail):
            finished = scene.finished(job.id)
            assert finished["status"] == ("errored" if make is fail else "completed")
            assert finished["result"] == ({"sum": 1} if make is complete else None)
            assert (finished["error"] is None) == (make is not fail)
            if make is not complete_without_result:  # it goes without details, the attempt is the row's
                assert finished["attempt"] == n + 1
        else:
            assert scene.job(job.id)["attempt"] == n + 1
            assert [attempt["move"] for attempt in scene.attempts(job.id)] == [make(job).move]
    assert scene.value("SELECT count(*) FROM jobs WHERE worker_id IS NOT NULL") == 0


# answers


async def test_a_settle_that_is_sent_again_is_told_so_and_changes_nothing(scene: Scene) -> None:
    worker, jobs = await scene.running(len(ALL_MOVES))
    batch = [make(job) for make, job in zip(ALL_MOVES, jobs, strict=True)]
    assert await scene.settle(worker, *batch) == ["landed"] * len(batch)
    before = scene.dump()
    assert await scene.settle(worker, *batch) == ["landed before"] * len(batch)
    for settlement in batch:
        assert await scene.settle(worker, settlement) == ["landed before"]
    assert scene.dump() == before


async def test_a_settle_sent_again_after_the_job_ran_and_ended_elsewhere_has_landed_before(scene: Scene) -> None:
    worker, jobs = await scene.running(3)
    batch = [retry(jobs[0]), reschedule(jobs[1]), release(jobs[2])]
    await scene.settle(worker, *batch)
    scene.sql.execute("UPDATE jobs SET run_at = clock_timestamp()")
    other = scene.worker()
    assert await scene.settle(other, *map(complete, await scene.claim(other))) == ["landed"] * 3
    before = scene.dump()
    assert await scene.settle(worker, *batch) == ["landed before"] * 3
    assert scene.dump() == before


async def test_a_settle_sent_again_while_the_first_still_runs_waits_for_its_answer(scene: Scene) -> None:
    worker, jobs = await scene.running(len(ALL_MOVES))
    batch = [make(job) for make, job in zip(ALL_MOVES, jobs, strict=True)]
    details = msgspec.json.encode([{"attempt": 1, "failures": 0, "crashes": 0}] * len(batch)).decode()
    moves = [settlement.move for settlement in batch]
    first = scene.session()
    first.execute(scene.statements.sql("settle"), [worker, uuids(jobs), [1] * 6, moves, [0] * 6, details])
    assert await scene.settle(worker, *batch) == ["locked"] * len(batch)
    first.commit()
    before = scene.dump()
    assert await scene.settle(worker, *batch) == ["landed before"] * len(batch)
    assert scene.dump() == before


@pytest.mark.parametrize("make", [complete, retry])
async def test_a_job_whose_row_a_transaction_holds_is_locked_and_lands_afterwards(scene: Scene, make: Make) -> None:
    worker, jobs = await scene.running(3)
    before = scene.job(jobs[1].id)
    user = scene.session()
    user.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", [UUID(jobs[1].id)])
    assert await scene.settle(worker, *map(make, jobs)) == ["landed", "locked", "landed"]
    assert scene.job(jobs[1].id) == before
    user.rollback()
    assert await scene.settle(worker, *map(make, jobs)) == ["landed before", "landed", "landed before"]


async def test_one_job_twice_in_a_batch_ends_once(scene: Scene) -> None:
    worker, jobs = await scene.running(3)
    twice = [complete(jobs[0]), complete(jobs[1]), complete(jobs[0]), retry(jobs[2]), retry(jobs[2])]
    assert await scene.settle(worker, *twice) == ["landed", "landed", "landed before", "landed", "landed before"]
    dump = scene.dump()
    assert [len(dump[table]) for table in ("jobs", "finished_jobs", "attempts")] == [1, 2, 1]


# the fence


async def rescued(scene: Scene, worker: str) -> None:
    assert scene.pulse.rescue(worker, 0, 18.0) is not None


async def rescued_and_claimed(scene: Scene, worker: str) -> list[ClaimedJob]:
    await rescued(scene, worker)
    return await scene.claim(scene.worker())


async def rescued_and_completed(scene: Scene, worker: str) -> None:
    jobs = await rescued_and_claimed(scene, worker)
    await scene.settle(str(scene.job(jobs[0].id)["worker_id"]), *map(complete, jobs))


async def rescued_and_retried(scene: Scene, worker: str) -> None:
    jobs = await rescued_and_claimed(scene, worker)
    await scene.settle(str(scene.job(jobs[0].id)["worker_id"]), *map(retry, jobs))


async def rescued_and_cancelled(scene: Scene, worker: str) -> None:
    await rescued(scene, worker)
    ids = [row["id"] for row in scene.rows("SELECT id FROM jobs")]
    assert await scene.store.cancel(ids) == ["cancelled"] * len(ids)  # type: ignore[arg-type]


async def claimed_by_another_with_the_same_number(scene: Scene, worker: str) -> list[ClaimedJob]:
    """What a failover to a replica that had not seen the first claim leads to."""
    scene.sql.execute("UPDATE jobs SET worker_id = NULL, claim_no = claim_no - 1")
    return await scene.claim(scene.worker())


async def completed_by_another_with_the_same_number(scene: Scene, worker: str) -> None:
    jobs = await claimed_by_another_with_the_same_number(scene, worker)
    await scene.settle(str(scene.job(jobs[0].id)["worker_id"]), *map(complete, jobs))


async def retried_by_another_with_the_same_number(scene: Scene, worker: str) -> None:
    jobs = await claimed_by_another_with_the_same_number(scene, worker)
    await scene.settle(str(scene.job(jobs[0].id)["worker_id"]), *map(retry, jobs))


async def claimed_again_by_itself(scene: Scene, worker: str) -> None:
    scene.sql.execute("UPDATE jobs SET claim_no = claim_no + 1")


async def deleted(scene: Scene, worker: str) -> None:
    scene.sql.execute("DELETE FROM jobs")


@pytest.mark.parametrize(
    "happen",
    [rescued, rescued_and_claimed, rescued_and_completed, rescued_and_retried, rescued_and_cancelled,
     claimed_by_another_with_the_same_number, completed_by_another_with_the_same_number,
     retried_by_another_with_the_same_number, claimed_again_by_itself, deleted],
    ids=lambda happen: happen.__name__,
)  # fmt: skip
async def test_late_settles_are_lost_and_change_nothing(
    scene: Scene, happen: Callable[[Scene, str], Awaitable[object]]
) -> None:
    worker, jobs = await scene.running(len(ALL_MOVES))
    await happen(scene, worker)
    before = scene.dump()
    late = [make(job) for make, job in zip(ALL_MOVES, jobs, strict=True)]
    assert await scene.settle(worker, *late) == ["lost"] * len(late)
    assert scene.dump() == before
    for settlement in late:
        assert await scene.settle(worker, settlement) == ["lost"]
    assert scene.dump() == before


async def test_a_lost_claim_does_not_take_the_rest_of_its_batch_along(scene: Scene) -> None:
    worker, jobs = await scene.running(4)
    scene.sql.execute("UPDATE jobs SET worker_id = %s WHERE id = %s", [scene.worker(), jobs[1].id])
    other = scene.job(jobs[1].id)
    unknown = msgspec.structs.replace(jobs[0], id=str(new_id()))
    batch = [complete(jobs[0]), complete(jobs[1]), complete(unknown), fail(jobs[2]), retry(jobs[3])]
    assert await scene.settle(worker, *batch) == ["landed", "lost", "lost", "landed", "landed"]
    assert scene.job(jobs[1].id) == other
    dump = scene.dump()
    assert [len(dump[table]) for table in ("jobs", "finished_jobs", "attempts")] == [2, 2, 2]


async def test_a_settle_that_waits_out_a_rescue_is_lost(scene: Scene) -> None:
    worker, [job] = await scene.running()
    rescue = scene.session()
    rescue.execute(scene.statements.sql("rescue"), [worker, 0, timedelta(seconds=1)])
    assert await scene.settle(worker, complete(job)) == ["locked"]
    rescue.commit()
    before = scene.dump()
    assert await scene.settle(worker, complete(job)) == ["lost"]
    assert scene.dump() == before
