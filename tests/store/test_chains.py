"""What a claim takes of a free concurrency key beyond its limit: jobs that one worker is to run one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import pytest

from piecework.model.lanes import Lane
from piecework.model.settlement import Settlement, completed, released
from piecework.store import claiming
from piecework.store.claiming import Chains, Keyed
from support.scene import KEYED_LANE, NOW, Scene, new_job

pytestmark = pytest.mark.postgres(18, 15)

FIVE = Chains({"work": 5}, 100)
OTHER_LANE = Lane("default", "other", 0, keyed=True)


async def keyed(scene: Scene, *keys: str, **fields: object) -> list[str]:
    return await scene.spawn(*[new_job(concurrency_key=key, **fields) for key in keys])


async def chained(
    scene: Scene, worker: str, chains: Chains = FIVE, most: int = 10, lanes: Sequence[Lane] = (KEYED_LANE,)
) -> Keyed:
    return await claiming.claim_keyed(scene.link, worker, [(lane, most) for lane in lanes], most, chains)


def ids(found: Keyed) -> list[str]:
    return [job.id for job in found.jobs]


def holders(scene: Scene) -> dict[str, set[str]]:
    rows = scene.rows("SELECT concurrency_key, running FROM concurrency_keys")
    return {str(row["concurrency_key"]): set(map(str, row["running"])) for row in rows}  # type: ignore[call-overload]


async def test_of_a_free_key_as_many_are_taken_as_a_chain_is_long(scene: Scene) -> None:
    first, other = await keyed(scene, *"aaaaaaaa"), await keyed(scene, "b")
    found = await chained(scene, scene.worker())
    assert ids(found) == [*first[:5], *other]
    assert found.places == {}
    assert holders(scene) == {"a": set(first[:5]), "b": set(other)}


async def test_whoever_comes_second_gets_nothing_before_the_whole_chain_has_ended(scene: Scene) -> None:
    jobs = await keyed(scene, *"aaaaaaaa")
    worker, other = scene.worker(), scene.worker()
    found = await chained(scene, worker)
    for job in found.jobs:
        assert ids(await chained(scene, other)) == []
        assert await scene.settle(worker, completed(job, NOW, None)) == ["landed"]
    assert scene.freed == [KEYED_LANE]
    assert ids(await chained(scene, other)) == jobs[5:]


async def test_a_key_that_somebody_holds_gives_no_more_than_there_is_room_for(scene: Scene) -> None:
    jobs = await keyed(scene, *"aaaaaaaa", concurrency_limit=3)
    worker, other = scene.worker(), scene.worker()
    found = await scene.claim_keyed(worker)
    assert ids(found) == jobs[:3]
    await scene.settle(worker, completed(found.jobs[0], NOW, None))
    assert ids(await chained(scene, other)) == [jobs[3]]


async def test_with_a_limit_above_one_it_is_answered_how_many_may_run_at_once(scene: Scene) -> None:
    jobs = await keyed(scene, *"aaaaaaaa", concurrency_limit=3)
    worker, other = scene.worker(), scene.worker()
    found = await chained(scene, worker)
    assert ids(found) == jobs[:5]
    assert found.places == {("default", "a"): 3}
    for number in range(3):
        assert ids(await chained(scene, other)) == [], f"{5 - number} are held"
        await scene.settle(worker, completed(found.jobs[number], NOW, None))
    assert ids(await chained(scene, other)) == [jobs[5]]


async def test_what_operators_say_counts_for_chains_as_well(scene: Scene) -> None:
    jobs = await keyed(scene, *"aaaaaaaab")
    scene.sql.execute("INSERT INTO limits (scope, name, max_running) VALUES ('concurrency_key', 'a', 2)")
    scene.sql.execute("INSERT INTO limits (scope, name, max_running) VALUES ('concurrency_key', 'b', 0)")
    found = await chained(scene, scene.worker())
    assert ids(found) == jobs[:5]
    assert found.places == {("default", "a"): 2}


async def test_a_limit_that_is_lowered_while_a_chain_goes_on_lets_it_drain(scene: Scene) -> None:
    await keyed(scene, *"aaaaaaaaaa", concurrency_limit=4)
    worker, other = scene.worker(), scene.worker()
    found = await chained(scene, worker)
    scene.sql.execute("INSERT INTO limits (scope, name, max_running) VALUES ('concurrency_key', 'a', 1)")
    for job in found.jobs:
        assert ids(await chained(scene, other)) == []
        await scene.settle(worker, completed(job, NOW, None))
    assert len(ids(await chained(scene, other))) == 5


async def test_a_chain_ends_before_a_job_that_this_worker_does_not_know(scene: Scene) -> None:
    mine = await keyed(scene, *"aa")
    [unknown] = await scene.spawn(new_job(concurrency_key="a", job_type="unknown"))
    later = await keyed(scene, *"aa")
    worker = scene.worker()
    found = await chained(scene, worker)
    assert ids(found) == mine
    await scene.settle(worker, *[completed(job, NOW, None) for job in found.jobs])
    assert ids(await chained(scene, worker)) == []
    lane = Lane("default", "unknown", 0, keyed=True)
    whose = scene.worker()
    [job] = (await scene.claim_keyed(whose, 5, (lane, 5))).jobs
    assert job.id == unknown
    await scene.settle(whose, completed(job, NOW, None))
    assert ids(await chained(scene, worker)) == later


async def test_a_chain_ends_before_a_job_of_another_lane_also_where_that_is_asked_for(scene: Scene) -> None:
    first = await keyed(scene, *"aa")
    await scene.spawn(new_job(concurrency_key="a", job_type="other"))
    await keyed(scene, "a")
    chains = Chains({"work": 5, "other": 5}, 100)
    assert ids(await chained(scene, scene.worker(), chains, lanes=[KEYED_LANE, OTHER_LANE])) == first


async def test_the_first_of_another_lane_stands_alone_where_that_has_no_chains(scene: Scene) -> None:
    other = await keyed(scene, *"aa", job_type="other")
    await keyed(scene, *"aa")
    assert ids(await chained(scene, scene.worker(), lanes=[KEYED_LANE, OTHER_LANE])) == other[:1]


async def test_a_chain_ends_before_a_worse_priority_and_before_another_limit(scene: Scene) -> None:
    worse = await keyed(scene, *"aaa", priority=1)
    better = await keyed(scene, *"aa")
    lanes = [KEYED_LANE, Lane("default", "work", 1, keyed=True)]
    worker = scene.worker()
    found = await chained(scene, worker, lanes=lanes)
    assert ids(found) == better
    await scene.settle(worker, *[completed(job, NOW, None) for job in found.jobs])
    assert ids(await chained(scene, worker, lanes=lanes)) == worse
    two = await keyed(scene, *"bb", concurrency_limit=2)
    await keyed(scene, "b")
    assert ids(await chained(scene, worker)) == two


async def test_what_was_lost_with_a_worker_stands_in_no_chain(scene: Scene) -> None:
    jobs = await keyed(scene, *"aaa")
    worker = scene.worker()
    assert ids(await chained(scene, worker)) == jobs
    scene.pulse.rescue(worker, 0, 18.0)
    later = await keyed(scene, *"aa")
    worker, order = scene.worker(), list[list[str]]()
    while found := (await chained(scene, worker)).jobs:
        order.append([job.id for job in found])
        await scene.settle(worker, *[completed(job, NOW, None) for job in found])
    assert sorted(order[:3]) == sorted([id] for id in jobs), "due anew, in any order"
    assert order[3:] == [later]
    assert holders(scene) == {}


async def test_a_job_that_is_due_later_stands_in_no_chain(scene: Scene) -> None:
    [first] = await keyed(scene, "a")
    await keyed(scene, "a", run_at=int(scene.clock().timestamp() * 1e6) + 3_600_000_000)
    [third] = await keyed(scene, "a")
    assert ids(await chained(scene, scene.worker())) == [first, third]


async def test_no_more_wait_in_chains_than_there_is_room_for(scene: Scene) -> None:
    jobs = [await keyed(scene, *key * 5) for key in "abc"]
    found = await chained(scene, scene.worker(), Chains({"work": 5}, 6), most=20)
    assert sorted(ids(found)) == sorted([*jobs[0], *jobs[1][:3], *jobs[2][:1]])


async def test_the_first_keys_are_taken_and_the_others_are_left_alone(scene: Scene) -> None:
    jobs = [await keyed(scene, *key * 5) for key in "abcd"]
    found = await chained(scene, scene.worker(), most=2)
    assert ids(found) == [*jobs[0], *jobs[1]]
    assert found.again
    assert set(holders(scene)) == {"a", "b"}
    assert scene.rows("SELECT FROM jobs WHERE parked") == []
    assert ids(await chained(scene, scene.worker(), most=2)) == [*jobs[2], *jobs[3]]


async def test_what_stands_in_the_way_of_other_keys_is_parked_and_comes_back_in_its_order(scene: Scene) -> None:
    jobs = await keyed(scene, *"a" * 12)
    worker = scene.worker()
    found = await chained(scene, worker)
    [other] = await keyed(scene, "b")
    few = Chains({"work": 5}, 5)
    assert ids(await chained(scene, scene.worker(), few, most=5)) == []
    assert len(scene.rows("SELECT FROM jobs WHERE parked")) == 5
    assert ids(await chained(scene, scene.worker(), few, most=5)) == [other]
    assert len(scene.rows("SELECT FROM jobs WHERE parked")) == 7
    order = ids(found)
    while found.jobs:
        await scene.settle(worker, *[completed(job, NOW, None) for job in found.jobs])
        found = await chained(scene, worker)
        order += ids(found)
    assert order == jobs
    assert set(holders(scene)) == {"b"}


async def test_what_is_handed_back_of_a_chain_comes_first_again(scene: Scene) -> None:
    jobs = await keyed(scene, *"aaaaaaa")
    worker, other = scene.worker(), scene.worker()
    first, *waiting = (await chained(scene, worker)).jobs
    await scene.settle(worker, *[released(job) for job in waiting])
    assert ids(await chained(scene, other)) == []
    await scene.settle(worker, completed(first, NOW, None))
    assert ids(await chained(scene, other)) == jobs[1:6]


async def test_one_that_is_tried_again_in_a_while_lets_the_rest_of_its_chain_pass(scene: Scene) -> None:
    jobs = await keyed(scene, *"aaaaaa")
    worker = scene.worker()
    first, *rest = (await chained(scene, worker)).jobs
    await scene.settle(worker, Settlement(first, "retry", NOW, attempt=2, failures=1, delay=timedelta(0)))
    assert holders(scene) == {"a": {job.id for job in rest}}
    await scene.settle(worker, *[completed(job, NOW, None) for job in rest])
    assert ids(await chained(scene, worker)) == [jobs[5], first.id], "which is due anew"


async def test_a_chained_job_that_is_to_be_cancelled_is_its_workers(scene: Scene) -> None:
    _, second, *_ = await keyed(scene, *"aaa")
    worker = scene.worker()
    await chained(scene, worker)
    assert await scene.store.cancel([UUID(second)]) == ["requested"]


async def test_the_sweep_leaves_chains_alone_and_strikes_off_holders_that_do_not_run(scene: Scene) -> None:
    jobs = await keyed(scene, *"aaaaaaa")
    await chained(scene, scene.worker())
    await chained(scene, scene.worker())
    [row] = scene.rows("SELECT sweep_keys_1() AS count")
    assert row["count"] == 0
    scene.sql.execute("DELETE FROM jobs WHERE id = %s", [jobs[0]])  # as a completion in a user's transaction does
    scene.sql.execute(scene.statements.sql("sweep_keys"))
    assert holders(scene) == {"a": set(jobs[1:5])}
    assert len(scene.rows("SELECT FROM jobs WHERE parked")) == 2
