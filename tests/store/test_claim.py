"""claim: due jobs, lane by lane, each to one worker."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import msgspec
import pytest

from piecework.base.ids import new_id
from piecework.model.job import ClaimedJob
from piecework.model.lanes import Lane
from piecework.model.settlement import released
from piecework.store import claiming
from piecework.store.claiming import WorkerGone
from support.scene import LANE, Scene, new_job

pytestmark = pytest.mark.postgres(18, 15)


def ids(jobs: list[ClaimedJob]) -> list[str]:
    return [job.id for job in jobs]


async def test_a_claim_gives_all_that_a_run_needs(scene: Scene) -> None:
    worker = scene.worker()
    config = msgspec.Raw(b'{"a":[1,2.50,"\xc3\xbc"]}')
    job = new_job(queue="q", priority=-2, config=config, run_at=1_234_567_890_123_456)
    await scene.spawn(job)
    scene.sql.execute("UPDATE jobs SET claim_no = 4, attempt = 3, failures = 2, crashes = 1")
    [claimed] = await scene.claim(worker, 9, (Lane("q", "work", -2), 9))
    assert msgspec.json.decode(claimed.config) == {"a": [1, 2.5, "ü"]}
    assert msgspec.structs.replace(claimed, config=msgspec.Raw(b"")) == ClaimedJob(
        str(job.id), 5, "work", "q", -2, 1_234_567_890_123_456, 3, 2, 1, msgspec.Raw(b"")
    )


async def test_a_claim_gives_what_a_run_was_spawned_with_and_had_saved(scene: Scene) -> None:
    trace = {"traceparent": "00-1-2-01", "odd": '"]['}
    [traced, plain] = await scene.spawn(new_job(trace_context=trace), new_job())
    [saver] = await scene.spawn(new_job())
    scene.sql.execute(
        "INSERT INTO execution_states (job_id, saved_by, claim_no, state) VALUES (%s, %s, 1, '{\"at\": 7}')",
        [saver, str(new_id())],
    )
    scene.sql.execute("UPDATE jobs SET claim_no = 1 WHERE id = %s", [saver])
    jobs = {job.id: job for job in await scene.claim(scene.worker())}
    assert msgspec.json.decode(jobs[traced].trace_context) == trace
    assert jobs[traced].created_at > 0
    assert (bytes(jobs[plain].trace_context), jobs[plain].created_at) == (b"null", 0)
    assert msgspec.json.decode(jobs[saver].state) == {"at": 7}
    assert {bytes(job.inherited_state) for job in jobs.values()} == {b"null"}


async def test_each_job_is_of_its_lane_however_alike_their_names_are(scene: Scene) -> None:
    worker = scene.worker()
    names = ["a", "1 a", "a 1", '"a', "a\\", "aa", "ü", "-1"]
    lanes = [Lane(queue, job_type, priority) for queue in names for job_type in names for priority in (0, 1, -1)]
    spawned: dict[str, Lane] = {}
    for lane in lanes:
        [id] = await scene.spawn(new_job(queue=lane.queue, job_type=lane.job_type, priority=lane.priority))
        spawned[id] = lane
    jobs, counts, walk, _ = await claiming.claim(scene.link, worker, [(lane, 2) for lane in lanes], 1000)
    assert {job.id: Lane(job.queue, job.job_type, job.priority) for job in jobs} == spawned
    assert counts == [1] * len(lanes)
    assert walk.passed == 0


async def test_a_claim_counts_what_each_lane_gave_and_what_it_passed_over(scene: Scene) -> None:
    worker, lane, other = scene.worker(), Lane("counted", "work", 0), Lane("counted", "other", 0)
    spawned = await scene.spawn_many(7, queue="counted")
    await scene.spawn_many(2, queue="counted", job_type="other")
    scene.session().execute("SELECT FROM jobs WHERE id = ANY ($1) FOR UPDATE", [spawned[:3]])
    jobs, counts, walk, _ = await claiming.claim(scene.link, worker, [(lane, 9), (other, 1)], 100)
    assert (len(jobs), counts, walk.passed) == (5, [4, 1], 3)
    jobs, counts, walk, _ = await claiming.claim(scene.link, worker, [(lane, 9)], 100)
    assert (jobs, counts) == ([], [0])
    assert walk.passed >= 3


async def test_a_claim_writes_owner_number_and_moment_and_nothing_else(scene: Scene) -> None:
    worker = scene.worker()
    [id] = await scene.spawn_many(1, tags=["t"])
    row, before = scene.job(id), scene.clock()
    await scene.claim(worker)
    claimed_at = scene.job(id)["claimed_at"]
    assert before <= claimed_at <= scene.clock()  # type: ignore[operator]
    assert {**scene.job(id), "worker_id": str(scene.job(id)["worker_id"])} == {
        **row, "worker_id": worker, "claim_no": 1, "claimed_at": claimed_at
    }  # fmt: skip


async def test_within_a_lane_the_earliest_due_is_first_and_then_the_lowest_id(scene: Scene) -> None:
    worker = scene.worker()
    late = await scene.spawn_many(3, run_at=2_000_000)
    early = await scene.spawn_many(3, run_at=1_000_000)
    assert ids(await scene.claim(worker, 2)) == early[:2]
    assert ids(await scene.claim(worker, 2)) == [early[2], late[0]]
    assert ids(await scene.claim(worker, 9)) == late[1:]


async def test_a_claim_is_in_the_order_of_priority_moment_and_id(scene: Scene) -> None:
    worker = scene.worker()
    jobs = [new_job(priority=p, run_at=r) for p in (5, -5, 0) for r in (3, 1, 2) for _ in range(2)]
    await scene.spawn(*jobs)
    claimed = await scene.claim(worker, 99, *[(Lane("default", "work", p), 9) for p in (0, 5, -5)])
    assert ids(claimed) == [str(job.id) for job in sorted(jobs, key=lambda job: (job.priority, job.run_at, job.id))]


async def test_lanes_are_emptied_in_the_order_given_until_the_most_is_reached(scene: Scene) -> None:
    worker = scene.worker()
    for priority in range(3):
        await scene.spawn_many(4, priority=priority)
    asked = [(Lane("default", "work", priority), 3) for priority in (1, 0, 2)]
    assert Counter(job.priority for job in await scene.claim(worker, 5, *asked)) == {1: 3, 0: 2}
    assert scene.value("SELECT count(*) FROM jobs WHERE worker_id IS NULL") == 7


async def test_no_more_than_asked_of_a_lane(scene: Scene) -> None:
    worker = scene.worker()
    await scene.spawn_many(10)
    assert len(await scene.claim(worker, 100, (LANE, 4))) == 4


async def test_only_the_lanes_that_are_named_are_claimed_from(scene: Scene) -> None:
    worker = scene.worker()
    await scene.spawn(new_job(queue="other"), new_job(job_type="other"), new_job(priority=1))
    assert await scene.claim(worker) == []


async def test_what_is_not_due_is_not_claimed(scene: Scene) -> None:
    worker = scene.worker()
    [due] = await scene.spawn(new_job(delay=0))
    await scene.spawn(new_job(delay=3_600_000_000))
    assert ids(await scene.claim(worker)) == [due]


async def test_what_is_parked_keyed_or_running_is_not_claimed(scene: Scene) -> None:
    worker, _ = await scene.running(2)
    [parked, keyed, free] = await scene.spawn_many(3)
    scene.sql.execute("UPDATE jobs SET parked = true, concurrency_key = 'k' WHERE id = %s", [parked])
    scene.sql.execute("UPDATE jobs SET concurrency_key = 'k' WHERE id = %s", [keyed])
    assert ids(await scene.claim(worker)) == [free]


@pytest.mark.parametrize("lanes", [[], [(LANE, 0)]])
async def test_a_claim_of_nothing_is_nothing(scene: Scene, lanes: list[tuple[Lane, int]]) -> None:
    worker = scene.worker()
    await scene.spawn_many(1)
    if lanes:
        assert await scene.claim(worker, 9, *lanes) == []
    assert await scene.claim(worker, 0, (LANE, 9)) == []


# who may claim


async def test_an_unknown_worker_may_not_claim(scene: Scene) -> None:
    await scene.spawn_many(1)
    before = scene.dump()
    with pytest.raises(WorkerGone):
        await scene.claim(str(new_id()))
    assert scene.dump() == before


async def test_a_worker_that_was_struck_off_may_not_claim(scene: Scene) -> None:
    worker, _ = await scene.running()
    assert scene.pulse.rescue(worker, 0, 18.0) is not None
    with pytest.raises(WorkerGone):
        await scene.claim(worker)


async def test_a_claim_that_waits_out_a_rescue_is_refused(scene: Scene) -> None:
    worker, _ = await scene.running()
    await scene.spawn_many(3)
    rescue = scene.session()
    rescue.execute(scene.statements.sql("rescue"), [worker, 0, timedelta(seconds=1)])
    claim = asyncio.create_task(scene.claim(worker))
    await scene.until_blocked()
    rescue.commit()
    with pytest.raises(WorkerGone):
        await claim
    assert scene.value("SELECT count(*) FROM jobs WHERE worker_id IS NOT NULL") == 0


async def test_a_beat_and_a_claim_do_not_wait_for_each_other(scene: Scene) -> None:
    worker = scene.worker()
    await scene.spawn_many(2)
    beat = scene.session()
    beat.execute(scene.statements.sql("beat"), [worker, False, ["work"], None])
    assert len(await scene.claim(worker, 1)) == 1
    beat.commit()
    claim = scene.session()
    claim.execute(scene.statements.sql("claim"), [worker, ["default"], ["work"], [0], [1], 1])
    assert scene.pulse.beat(worker, draining=False, job_types=["work"]) is not None
    claim.commit()


# side by side


async def test_a_job_that_a_claim_holds_is_passed_over(scene: Scene) -> None:
    [worker, other] = [scene.worker(), scene.worker()]
    spawned = await scene.spawn_many(4)
    first = scene.session()
    first.execute(scene.statements.sql("claim"), [worker, ["default"], ["work"], [0], [2], 2])
    assert ids(await scene.claim(other)) == spawned[2:]
    first.rollback()
    assert ids(await scene.claim(other)) == spawned[:2]


async def test_a_job_whose_row_a_transaction_holds_is_passed_over(scene: Scene) -> None:
    worker = scene.worker()
    spawned = await scene.spawn_many(3)
    scene.session().execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", [spawned[0]])
    assert ids(await scene.claim(worker)) == spawned[1:]


async def test_a_job_that_is_not_committed_is_not_seen(scene: Scene) -> None:
    worker = scene.worker()
    user = scene.session()
    user.execute(scene.statements.sql("spawn"), [msgspec.json.encode([new_job()]).decode()])
    assert await scene.claim(worker) == []
    user.commit()
    assert len(await scene.claim(worker)) == 1


async def test_concurrent_claimers_never_get_the_same_claim(scene: Scene) -> None:
    """Each job is claimed, given back and claimed again, by six workers at once."""
    spawned = await scene.spawn_many(60)
    claims: list[tuple[str, int, str]] = []

    async def work() -> None:
        worker, link = scene.worker(), scene.another_link()
        for _ in range(15):
            jobs = await scene.claim(worker, 10, link=link)
            claims.extend((job.id, job.claim_no, worker) for job in jobs)
            while jobs:  # a claim that saw the row before locks it until its end
                answers = await scene.settle(worker, *map(released, jobs), link=link)
                assert set(answers) <= {"landed", "locked"}
                jobs = [job for job, answer in zip(jobs, answers, strict=True) if answer == "locked"]
        await link.drop()

    async with asyncio.TaskGroup() as group:
        for _ in range(6):
            group.create_task(work())
    assert len({(id, claim_no) for id, claim_no, _ in claims}) == len(claims) > 60
    numbers = {str(row["id"]): row["claim_no"] for row in scene.rows("SELECT id, claim_no FROM jobs")}
    assert sorted(numbers) == sorted(spawned)
    assert Counter(id for id, _, _ in claims) == Counter(numbers)
