"""rescue: take the jobs of a dead worker back, and strike it off when nothing is left in its hands."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from piecework.base.ids import new_id
from piecework.model.settlement import completed
from support.scene import NOW, Scene

pytestmark = pytest.mark.postgres(18, 15)

LEASE = 18.0


def workers(scene: Scene) -> list[str]:
    return [str(row["id"]) for row in scene.rows("SELECT id FROM workers ORDER BY id")]


def beat_no(scene: Scene, worker: str) -> int:
    """The beat number that an observer sees."""
    beat = scene.pulse.beat(str(new_id()), draining=False, job_types=[])
    if beat is None:
        observer = scene.worker()
        beat = scene.pulse.beat(observer, draining=False, job_types=[])
        scene.sql.execute("DELETE FROM workers WHERE id = %s", [observer])
    assert beat is not None
    return {id: number for id, number, _ in beat.others}[worker]


async def test_a_rescued_job_is_due_at_once_with_its_failure_and_crash_counted(scene: Scene) -> None:
    worker = scene.worker()
    [id] = await scene.spawn_many(1)
    scene.sql.execute("UPDATE jobs SET attempt = 3, failures = 4, claim_no = 6, key = 'k'")
    await scene.claim(worker)
    row, before = scene.job(id), scene.clock()
    assert scene.pulse.rescue(worker, 0, LEASE) == [(id, "work")]
    run_at = scene.job(id)["run_at"]
    assert before <= run_at <= scene.clock()  # type: ignore[operator]
    assert scene.job(id) == {
        **row, "worker_id": None, "claimed_at": None, "run_at": run_at, "attempt": 4, "failures": 5, "crashes": 1
    }  # fmt: skip
    assert scene.attempts(id) == [
        {"job_id": UUID(id), "claim_no": 7, "worker_id": UUID(worker), "attempt": 3, "move": "rescue",
         "started_at": row["claimed_at"], "ended_at": run_at, "next_run_at": run_at,
         "error": {"type": "worker lost", "message": "the worker gave no sign of life for 00:00:18"}}
    ]  # fmt: skip
    assert workers(scene) == []


async def test_jobs_that_crashed_before_part_from_each_other(scene: Scene) -> None:
    """One of them may be what kills its worker: the others are not to be there each time."""
    worker, jobs = await scene.running(40)
    scene.sql.execute("UPDATE jobs SET crashes = 3")
    before = scene.clock()
    assert len(scene.pulse.rescue(worker, 0, LEASE) or []) == 40
    waits = [scene.job(job.id)["run_at"] - before for job in jobs]  # type: ignore[operator]
    assert len(set(waits)) > 30
    assert max(waits) > timedelta(seconds=LEASE)
    assert max(waits) < timedelta(seconds=3 * LEASE) + (scene.clock() - before)  # type: ignore[operator]
    assert {row["next_run_at"] for job in jobs for row in scene.attempts(job.id)} == {before + wait for wait in waits}


async def test_the_jobs_of_other_workers_and_waiting_jobs_are_left(scene: Scene) -> None:
    dead, jobs = await scene.running(3)
    alive, _ = await scene.running(3)
    await scene.spawn_many(3)
    left = "SELECT * FROM jobs WHERE id <> ALL (%s::uuid[]) ORDER BY id"
    mine = [job.id for job in jobs]
    before = scene.rows(left, mine)
    rescued = scene.pulse.rescue(dead, 0, LEASE)
    assert sorted(id for id, _ in rescued or []) == sorted(mine)
    assert scene.rows(left, mine) == before
    assert workers(scene) == [alive]


async def test_a_worker_with_nothing_in_its_hands_is_struck_off(scene: Scene) -> None:
    worker = scene.worker()
    await scene.sleeper(worker)
    assert scene.pulse.rescue(worker, 0, LEASE) == []
    assert workers(scene) == []
    assert scene.value("SELECT count(*) FROM idle_workers") == 0


async def test_a_rescue_hints_at_the_lanes(scene: Scene) -> None:
    worker, _ = await scene.running(5)
    scene.sql.execute(f"LISTEN {scene.statements.channel}")
    scene.pulse.rescue(worker, 0, LEASE)
    scene.sql.execute(f"NOTIFY {scene.statements.channel}, 'last'")
    heard = [n.payload for n in scene.sql.notifies(timeout=5, stop_after=2)]
    assert heard == ['["default", "work", 0, [], false]', "last"]


# who is left alone


async def test_a_worker_that_beat_since_it_was_observed_is_left_alone(scene: Scene) -> None:
    worker, _ = await scene.running(3)
    assert scene.pulse.beat(worker, draining=False, job_types=["work"]) is not None
    before = scene.dump()
    assert scene.pulse.rescue(worker, 0, LEASE) is None
    assert scene.dump() == before
    assert workers(scene) == [worker]


async def test_a_worker_whose_beat_is_under_way_is_left_alone(scene: Scene) -> None:
    worker, _ = await scene.running(3)
    beat = scene.session()
    beat.execute(scene.statements.sql("beat"), [worker, False, ["work"], None])
    assert scene.pulse.rescue(worker, 0, LEASE) is None
    beat.commit()
    assert scene.pulse.rescue(worker, 0, LEASE) is None


async def test_a_worker_whose_claim_is_under_way_is_left_alone(scene: Scene) -> None:
    """Else the jobs of that claim would belong to a worker that is struck off, and to nobody."""
    worker, _ = await scene.running(1)
    await scene.spawn_many(3)
    claim = scene.session()
    claim.execute(scene.statements.sql("claim"), [worker, ["default"], ["work"], [0], [9], 9])
    assert scene.pulse.rescue(worker, 0, LEASE) is None
    claim.commit()
    assert len(scene.pulse.rescue(worker, 0, LEASE) or []) == 4
    assert workers(scene) == []


async def test_a_worker_that_was_struck_off_before_is_no_news(scene: Scene) -> None:
    worker, _ = await scene.running(2)
    assert scene.pulse.rescue(worker, 0, LEASE) is not None
    before = scene.dump()
    assert scene.pulse.rescue(worker, 0, LEASE) is None
    assert scene.dump() == before


async def test_of_two_rescuers_one_takes_all(scene: Scene) -> None:
    worker, jobs = await scene.running(5)
    first = scene.session()
    first.execute(scene.statements.sql("rescue"), [worker, 0, timedelta(seconds=1)])
    assert scene.pulse.rescue(worker, 0, LEASE) is None
    first.commit()
    assert scene.pulse.rescue(worker, 0, LEASE) is None
    assert [scene.job(job.id)["crashes"] for job in jobs] == [1] * 5


# what could not be taken back at once


async def test_an_interrupted_rescue_is_repeated(scene: Scene) -> None:
    worker, _ = await scene.running(3)
    before = scene.dump()
    rescue = scene.session()
    rescue.execute(scene.statements.sql("rescue"), [worker, 0, timedelta(seconds=1)])
    rescue.rollback()
    assert scene.dump() == before
    assert len(scene.pulse.rescue(worker, 0, LEASE) or []) == 3


async def test_a_job_that_a_transaction_holds_is_taken_back_by_the_next_rescue(scene: Scene) -> None:
    worker, jobs = await scene.running(3)
    user = scene.session()
    user.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", [jobs[1].id])
    assert scene.pulse.rescue(worker, 0, LEASE) == [(jobs[0].id, "work"), (jobs[2].id, "work")]
    assert workers(scene) == [worker]
    assert scene.pulse.rescue(worker, beat_no(scene, worker), LEASE) == []
    assert workers(scene) == [worker]
    user.rollback()
    assert scene.pulse.rescue(worker, beat_no(scene, worker), LEASE) == [(jobs[1].id, "work")]
    assert workers(scene) == []
    assert [scene.job(job.id)["crashes"] for job in jobs] == [1, 1, 1]


async def test_a_worker_that_lost_some_of_its_jobs_is_told_so_by_its_next_beat_and_claim(scene: Scene) -> None:
    """What it lost is run by others now, so it may not go on as if it held everything."""
    worker, jobs = await scene.running(3)
    scene.session().execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", [jobs[1].id])
    assert len(scene.pulse.rescue(worker, 0, LEASE) or []) == 2
    assert scene.pulse.beat(worker, draining=False, job_types=["work"]) is None
    with pytest.raises(psycopg.errors.NoDataFound):
        scene.session().execute(scene.statements.sql("claim"), [worker, ["default"], ["work"], [0], [9], 9])


async def test_a_settle_that_is_under_way_ends_its_job_and_the_rescue_takes_the_others(scene: Scene) -> None:
    worker, jobs = await scene.running(3)
    settle = scene.session()
    settle.execute(scene.statements.sql("settle"), [worker, [jobs[0].id], [1], ["complete"], [0], None])
    assert len(scene.pulse.rescue(worker, 0, LEASE) or []) == 2
    settle.commit()
    assert scene.pulse.rescue(worker, beat_no(scene, worker), LEASE) == []
    assert workers(scene) == []
    assert scene.finished(jobs[0].id)["status"] == "completed"


async def test_what_a_dead_workers_job_row_still_names_may_be_settled_until_it_is_taken_back(scene: Scene) -> None:
    worker, jobs = await scene.running(2)
    user = scene.session()
    user.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", [jobs[1].id])
    assert len(scene.pulse.rescue(worker, 0, LEASE) or []) == 1
    user.rollback()
    assert await scene.settle(worker, *[completed(job, NOW, None) for job in jobs]) == ["lost", "landed"]


async def test_a_rescue_that_finds_no_leaf_of_the_history_makes_it(own_scene: Scene) -> None:
    worker, _ = await own_scene.running(3)
    for leaf in own_scene.leaves():
        own_scene.sql.execute(f"DROP TABLE {leaf}")
    assert len(own_scene.pulse.rescue(worker, 0, LEASE) or []) == 3


# leaving in order


async def test_a_worker_that_leaves_is_struck_off(scene: Scene) -> None:
    worker = scene.worker()
    await scene.sleeper(worker)
    assert scene.pulse.leave(worker)
    assert workers(scene) == []
    assert scene.value("SELECT count(*) FROM idle_workers") == 0


async def test_a_worker_that_leaves_with_jobs_in_its_hands_stays_to_be_rescued(scene: Scene) -> None:
    worker, _ = await scene.running(2)
    assert not scene.pulse.leave(worker)
    assert len(scene.pulse.rescue(worker, 0, LEASE) or []) == 2


async def test_a_worker_whose_claim_is_under_way_does_not_leave_before_it(scene: Scene) -> None:
    """A claim whose answer was lost may still run on the server: its jobs may not be left to nobody."""
    worker = scene.worker()
    await scene.spawn_many(3)
    claim = scene.session()
    claim.execute(scene.statements.sql("claim"), [worker, ["default"], ["work"], [0], [9], 9])
    assert not await asyncio.to_thread(scene.pulse.leave, worker)
    claim.commit()
    assert workers(scene) == [worker]
    assert len(scene.pulse.rescue(worker, 0, LEASE) or []) == 3


async def test_a_worker_whose_claim_ends_while_it_leaves_stays_to_be_rescued(scene: Scene) -> None:
    """The claim holds no row any more when the leaving worker looks, but it was not there when its statement began."""
    worker = scene.worker()
    await scene.spawn_many(1)
    gate = scene.session()
    gate.execute("SELECT pg_advisory_xact_lock(7)")
    leave = scene.session()
    leaving = asyncio.create_task(
        asyncio.to_thread(leave.execute, "SELECT pg_advisory_xact_lock(7), leave_1($1)", [worker])
    )
    await scene.until_blocked()
    assert len(await scene.claim(worker)) == 1
    gate.rollback()
    assert (await leaving).fetchone() == ("", False)
    leave.commit()
    assert workers(scene) == [worker]


async def test_a_worker_that_has_left_may_not_claim(scene: Scene) -> None:
    worker = scene.worker()
    await scene.spawn_many(1)
    leave = scene.session()
    leave.execute(scene.statements.sql("leave"), [worker])
    claim = asyncio.create_task(scene.link.value("claim", worker, ["default"], ["work"], [0], [9], 9))
    await scene.until_blocked()
    leave.commit()
    with pytest.raises(psycopg.errors.NoDataFound):
        await claim
