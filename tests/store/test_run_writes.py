"""What a run writes of its own claim: fenced, in a transaction of its own or of the application's (invariant C)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta

import msgspec
import psycopg
import pytest

from piecework.model.completion import Fail, Reschedule
from piecework.model.job import ClaimedJob
from piecework.model.retry import RetrySettings
from piecework.model.settlement import Settlement, completed, failed, failed_by_reason, released, rescheduled
from piecework.store.run_writes import (
    Request,
    answers,
    completions,
    guarded,
    reported_progress,
    reported_result,
    saved_state,
)
from support.scene import LANE, NOW, Scene, new_job

pytestmark = pytest.mark.postgres(18, 15)

Session = psycopg.Connection
Lose = Callable[[Scene, str, ClaimedJob], None]


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def send(scene: Scene, request: Request, session: Session | None = None, count: int = 1) -> list[str]:
    """Send it, in a transaction of its own unless there is a session."""
    statement = scene.statements.sql(request.statement)
    if session is not None:
        return list(answers(session.execute(statement, [request.payload]).fetchall()[0][0], count))
    with scene.session() as own:
        return list(answers(own.execute(statement, [request.payload]).fetchall()[0][0], count))


def save(worker: str, job: ClaimedJob, state: object, *, inherits: bool = False) -> Request:
    return saved_state(worker, job, raw(state), inherits=inherits)


def end(worker: str, *settlements: Settlement) -> Request:
    return completions(worker, settlements, NOW)


def states(scene: Scene) -> list[object]:
    return [row["state"] for row in scene.rows("SELECT state FROM execution_states")]


def give_up(scene: Scene, worker: str, job: ClaimedJob) -> None:
    scene.pulse.rescue(worker, 0, 18.0)


def give_to_another(scene: Scene, worker: str, job: ClaimedJob) -> None:
    scene.sql.execute("UPDATE jobs SET worker_id = gen_random_uuid() WHERE id = %s", [job.id])


def claim_again(scene: Scene, worker: str, job: ClaimedJob) -> None:
    scene.sql.execute("UPDATE jobs SET claim_no = claim_no + 1 WHERE id = %s", [job.id])


def end_it(scene: Scene, worker: str, job: ClaimedJob) -> None:
    scene.sql.execute("DELETE FROM jobs WHERE id = %s", [job.id])


LOSSES = [give_up, give_to_another, claim_again, end_it]


@pytest.mark.parametrize("lose", LOSSES)
async def test_a_run_that_lost_its_claim_saves_and_reports_nothing(scene: Scene, lose: Lose) -> None:
    worker, [job] = await scene.running()
    assert send(scene, save(worker, job, 1)) == ["landed"]
    assert send(scene, reported_result(worker, job, raw("mine"))) == ["landed"]
    lose(scene, worker, job)
    for request in (
        save(worker, job, 2), save(worker, job, 2, inherits=True), reported_progress(worker, job, 0.5, "late"),
        reported_result(worker, job, raw("late")),
    ):  # fmt: skip
        assert send(scene, request) == ["lost"]
    assert states(scene) == [1]
    assert scene.rows("SELECT done, note, result FROM progress") == [{"done": None, "note": "", "result": "mine"}]


async def test_the_last_save_counts_and_a_claim_answers_it(scene: Scene) -> None:
    worker, [job] = await scene.running()
    for state in ({"a": 1}, [2], {"a": 3}):
        assert send(scene, save(worker, job, state)) == ["landed"]
    assert await scene.settle(worker, released(job)) == ["landed"]
    [again] = await scene.claim(worker)
    assert json.loads(bytes(again.state)) == {"a": 3}
    assert send(scene, save(worker, again, None)) == ["landed"]
    assert states(scene) == [None]
    await scene.settle(worker, completed(again, NOW, None))
    assert states(scene) == []


async def test_a_state_that_is_inherited_belongs_to_the_key_and_outlives_the_job(scene: Scene) -> None:
    worker, [job] = await scene.running(key="k")
    assert send(scene, save(worker, job, 1, inherits=True)) == ["landed"]
    assert send(scene, save(worker, job, 2, inherits=True)) == ["landed"]
    await scene.settle(worker, completed(job, NOW, None))
    [row] = scene.rows("SELECT job_id, job_type, key, saved_by::text, state FROM execution_states")
    assert row == {"job_id": None, "job_type": "work", "key": "k", "saved_by": job.id, "state": 2}
    await scene.spawn(new_job(key="k"))
    [heir] = await scene.claim(worker)
    assert (json.loads(bytes(heir.inherited_state)), json.loads(bytes(heir.state))) == (2, None)
    worker, [plain] = await scene.running()
    assert send(scene, save(worker, plain, 3, inherits=True)) == ["landed"]
    assert scene.value("SELECT job_id::text FROM execution_states WHERE state = '3'") == plain.id


async def test_reports_of_progress_and_of_a_result_leave_each_other_alone_and_the_last_of_each_counts(
    scene: Scene,
) -> None:
    worker, [job] = await scene.running()
    for request in (
        reported_progress(worker, job, 0.25, "a"), reported_result(worker, job, raw("A")),
        reported_progress(worker, job, 3, ""), reported_result(worker, job, raw("B")),
        reported_result(worker, job, raw("A")),
    ):  # fmt: skip
        assert send(scene, request) == ["landed"]
    assert scene.rows("SELECT done, note, result FROM progress") == [{"done": 3.0, "note": "", "result": "A"}]
    assert send(scene, reported_result(worker, job, None)) == ["landed"]
    assert scene.value("SELECT result FROM progress") is None
    await scene.settle(worker, completed(job, NOW, None))
    assert scene.rows("SELECT FROM progress") == []
    assert scene.finished(job.id)["result"] is None


async def test_while_a_save_is_uncommitted_nobody_settles_or_rescues_the_job(scene: Scene) -> None:
    worker, [job] = await scene.running()
    with scene.session() as session:
        assert send(scene, save(worker, job, 1), session) == ["landed"]
        assert await scene.settle(worker, completed(job, NOW, None)) == ["locked"]
        assert scene.pulse.rescue(worker, 0, 18.0) == []
        assert send(scene, reported_progress(worker, job, 1, "")) == ["landed"], "two writes do not exclude each other"
    assert await scene.settle(worker, completed(job, NOW, None)) == ["landed"]
    assert states(scene) == []


async def test_an_uncommitted_completion_is_waited_for_by_a_save_for_seconds_and_not_for_ever(scene: Scene) -> None:
    worker, [job] = await scene.running()
    with scene.session() as session:
        send(scene, end(worker, completed(job, NOW, None)), session)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await asyncio.to_thread(send, scene, save(worker, job, 1))
        saving = asyncio.create_task(asyncio.to_thread(send, scene, save(worker, job, 1)))
        await scene.until_blocked()
        session.commit()
        assert await saving == ["lost"]
    assert states(scene) == []


# Completion


async def test_claims_end_each_in_its_own_way_when_the_transaction_is_committed(scene: Scene) -> None:
    worker, jobs = await scene.running(4)
    error = ValueError("no")
    settlements = [
        completed(jobs[0], NOW - 2, raw({"n": 1})), rescheduled(jobs[1], NOW, Reschedule.after(timedelta(hours=1))),
        failed(jobs[2], RetrySettings(), (), NOW, timedelta(0), error, 0.5), failed_by_reason(jobs[3], NOW, Fail("x")),
    ]  # fmt: skip
    before = scene.dump()
    with scene.session() as session:
        assert send(scene, end(worker, *settlements), session, 4) == ["landed"] * 4
        assert scene.dump() == before
        assert send(scene, end(worker, *settlements), session, 4) == ["landed before"] * 4
    first = scene.finished(jobs[0].id)
    assert (first["status"], first["result"]) == ("completed", {"n": 1})
    ran = scene.value("SELECT finished_at - started_at FROM finished_jobs WHERE id = %s", jobs[0].id)
    assert ran == timedelta(seconds=2)
    assert scene.finished(jobs[3].id)["status"] == "errored"
    assert [(row["attempt"], row["failures"]) for row in map(scene.job, (jobs[1].id, jobs[2].id))] == [(1, 0), (2, 1)]
    assert [scene.attempts(job.id)[0]["move"] for job in jobs[1:]] == ["reschedule", "retry", "fail"]
    assert scene.rows("SELECT FROM guards") == []


async def test_a_rolled_back_completion_leaves_the_claim_as_it_was(scene: Scene) -> None:
    worker, [job] = await scene.running()
    with scene.session() as session:
        send(scene, end(worker, completed(job, NOW, None)), session)
        session.rollback()
    assert await scene.settle(worker, completed(job, NOW, None)) == ["landed"]
    assert scene.rows("SELECT FROM guards") == []


async def test_a_completion_leaves_concurrency_keys_alone(scene: Scene) -> None:
    await scene.spawn_many(2, concurrency_key="k")
    worker = scene.worker()
    [job] = (await scene.claim_keyed(worker)).jobs
    before = scene.rows("SELECT xmin::text, * FROM concurrency_keys")
    with scene.session() as session:
        assert send(scene, end(worker, completed(job, NOW, None)), session) == ["landed"]
    assert scene.rows("SELECT xmin::text, * FROM concurrency_keys") == before
    assert await scene.settle(worker, completed(job, NOW, None)) == ["landed before"]
    [successor] = (await scene.claim_keyed(worker)).jobs
    assert successor.id != job.id


@pytest.mark.parametrize("lose", LOSSES)
async def test_a_completion_of_a_lost_claim_does_not_raise_and_cannot_be_committed(scene: Scene, lose: Lose) -> None:
    worker, [job] = await scene.running()
    lose(scene, worker, job)
    before = scene.dump()
    session = scene.session()
    assert send(scene, end(worker, completed(job, NOW, None)), session) == ["lost"]
    session.execute("INSERT INTO limits (scope, name) VALUES ('queue', 'an effect')")
    with pytest.raises(psycopg.DatabaseError, match="its claim 1 was lost") as refused:
        session.commit()
    assert refused.value.sqlstate == "PW001"
    assert scene.rows("SELECT FROM limits") == []
    assert scene.dump() == before


async def test_one_lost_claim_of_many_spoils_the_commit(scene: Scene) -> None:
    worker, jobs = await scene.running(3)
    give_to_another(scene, worker, jobs[1])
    session = scene.session()
    request = end(worker, *[completed(job, NOW, None) for job in jobs])
    assert send(scene, request, session, 3) == ["landed", "lost", "landed"]
    with pytest.raises(psycopg.DatabaseError, match=str(jobs[1].id)):
        session.commit()
    assert len(scene.rows("SELECT FROM jobs")) == 3


async def test_a_guarded_transaction_without_the_completion_cannot_be_committed(scene: Scene) -> None:
    worker, [job] = await scene.running()
    session = scene.session()
    assert send(scene, guarded(worker, [job]), session) == ["landed"]
    with pytest.raises(psycopg.DatabaseError) as refused:
        session.commit()
    assert refused.value.sqlstate == "PW001"
    assert send(scene, guarded(worker, [job]), session) == ["landed"]
    send(scene, end(worker, completed(job, NOW, None)), session)
    session.commit()
    assert scene.finished(job.id)["status"] == "completed"


async def test_a_guard_tells_that_a_claim_is_lost_already_and_holds_no_row(scene: Scene) -> None:
    worker, jobs = await scene.running(2)
    session = scene.session()
    assert send(scene, guarded(worker, jobs), session, 2) == ["landed"] * 2
    assert scene.pulse.rescue(worker, 0, 18.0) is not None, "nobody waits for the transaction"
    assert len(await scene.claim(scene.worker())) == 2
    session.rollback()
    assert send(scene, guarded(worker, jobs), session, 2) == ["lost"] * 2
    session.rollback()


async def test_a_lost_claim_whose_savepoint_is_rolled_back_spoils_the_commit_of_a_guarded_transaction(
    scene: Scene,
) -> None:
    worker, [job] = await scene.running()
    session = scene.session()
    send(scene, guarded(worker, [job]), session)
    give_up(scene, worker, job)
    session.execute("INSERT INTO limits (scope, name) VALUES ('queue', 'an effect')")
    session.execute("SAVEPOINT s")
    assert send(scene, end(worker, completed(job, NOW, None)), session) == ["lost"]
    session.execute("ROLLBACK TO SAVEPOINT s")
    with pytest.raises(psycopg.DatabaseError) as refused:
        session.commit()
    assert refused.value.sqlstate == "PW001"
    assert scene.rows("SELECT FROM limits") == []


async def test_a_completion_that_is_rolled_back_to_a_savepoint_spoils_the_commit_of_a_guarded_transaction(
    scene: Scene,
) -> None:
    worker, [job] = await scene.running()
    session = scene.session()
    send(scene, guarded(worker, [job]), session)
    session.execute("SAVEPOINT s")
    assert send(scene, end(worker, completed(job, NOW, None)), session) == ["landed"]
    session.execute("ROLLBACK TO SAVEPOINT s")
    with pytest.raises(psycopg.DatabaseError) as refused:
        session.commit()
    assert refused.value.sqlstate == "PW001"
    assert scene.job(job.id)["claim_no"] == 1


async def test_a_completion_in_a_savepoint_that_is_released_is_committed(scene: Scene) -> None:
    worker, [job] = await scene.running()
    with scene.session() as session:
        session.execute("SAVEPOINT s")
        send(scene, guarded(worker, [job]), session)
        send(scene, end(worker, completed(job, NOW, None)), session)
        session.execute("RELEASE SAVEPOINT s")
    assert scene.finished(job.id)["status"] == "completed"


async def test_constraints_that_are_checked_at_once_leave_the_guard_for_the_end(scene: Scene) -> None:
    worker, [job] = await scene.running()
    with scene.session() as session:
        session.execute("SET CONSTRAINTS ALL IMMEDIATE")
        send(scene, guarded(worker, [job]), session)
        send(scene, end(worker, completed(job, NOW, None)), session)
    assert scene.finished(job.id)["status"] == "completed"


async def test_a_row_that_is_held_for_a_moment_is_waited_for(scene: Scene) -> None:
    worker, [job] = await scene.running()
    with scene.session() as other, scene.session() as session:
        send(scene, save(worker, job, 1), other)
        completing = asyncio.create_task(
            asyncio.to_thread(send, scene, end(worker, completed(job, NOW, None)), session)
        )
        await scene.until_blocked()
        other.commit()
        assert await completing == ["landed"]
    assert states(scene) == []


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_above_read_committed_a_claim_that_is_held_is_completed_and_one_that_was_lost_raises(
    scene: Scene, level: str
) -> None:
    worker, jobs = await scene.running(2)
    session = scene.session()
    session.execute(f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {level}")
    session.commit()
    session.execute("SELECT FROM jobs")
    send(scene, reported_progress(worker, jobs[0], 1, "a lock of its row is no change"))
    send(scene, guarded(worker, jobs[:1]), session)
    assert send(scene, end(worker, completed(jobs[0], NOW, None)), session) == ["landed"]
    session.commit()
    session.execute("SELECT FROM jobs")
    give_up(scene, worker, jobs[1])
    with pytest.raises(psycopg.errors.SerializationFailure):
        send(scene, end(worker, completed(jobs[1], NOW, None)), session)
    session.rollback()


async def test_a_cancel_that_was_requested_ends_a_job_that_its_transaction_reschedules(scene: Scene) -> None:
    worker, jobs = await scene.running(2)
    await scene.store.cancel([job_id for row in scene.rows("SELECT id FROM jobs") for job_id in [row["id"]]])  # type: ignore[misc]
    with scene.session() as session:
        request = end(worker, completed(jobs[0], NOW, None), rescheduled(jobs[1], NOW, Reschedule.now()))
        assert send(scene, request, session, 2) == ["landed"] * 2
    assert [scene.finished(job.id)["status"] for job in jobs] == ["completed", "cancelled"]
    assert scene.rows("SELECT FROM cancel_requests") == []


async def test_whoever_sleeps_is_told_of_a_job_that_a_transaction_reschedules_when_it_is_committed(
    scene: Scene,
) -> None:
    worker, [job] = await scene.running()
    await scene.sleeper()
    scene.sql.execute(f"LISTEN {scene.statements.channel}")
    with scene.session() as session:
        send(scene, end(worker, rescheduled(job, NOW, Reschedule.now())), session)
        assert list(scene.sql.notifies(timeout=0.05)) == []
    [notice] = scene.sql.notifies(timeout=20, stop_after=1)
    assert json.loads(notice.payload)[:3] == [LANE.queue, LANE.job_type, LANE.priority]
    scene.sql.execute("UNLISTEN *")
