"""Concurrency keys where calls meet: each leaves alone what it has not locked, and the sweep finds what is left."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from piecework.model.settlement import Settlement, completed
from support.scene import NOW, Scene, new_job

pytestmark = pytest.mark.postgres(18, 15)


async def keyed(scene: Scene, *keys: str, **fields: object) -> list[str]:
    return await scene.spawn(*[new_job(concurrency_key=key, **fields) for key in keys])


async def claimed(scene: Scene, worker: str, most: int = 100) -> list[str]:
    return [job.id for job in (await scene.claim_keyed(worker, most)).jobs]


def holders(scene: Scene) -> dict[str, list[str]]:
    rows = scene.rows("SELECT concurrency_key, running FROM concurrency_keys")
    return {str(row["concurrency_key"]): [*map(str, row["running"])] for row in rows}  # type: ignore[call-overload]



def parked(scene: Scene) -> list[str]:
    return [str(row["id"]) for row in scene.rows("SELECT id FROM jobs WHERE parked")]


async def test_a_claim_locks_no_job_of_a_key_in_another_workers_hands(scene: Scene) -> None:
    """That worker would pass over it, and take a later one."""
    [a, b] = await keyed(scene, *"ab")
    scene.sql.execute("INSERT INTO concurrency_keys (queue, concurrency_key) VALUES ('default', 'a')")
    neighbour, claiming = scene.session(), scene.session()
    neighbour.execute("SELECT FROM concurrency_keys WHERE concurrency_key = 'a' FOR NO KEY UPDATE")
    claiming.execute(
        "SELECT claim_keyed_1($1::uuid, '{default}', '{work}', '{0}', '{9}', '{1}', 9, 0, 0)",
        [scene.worker()],
    )
    free = scene.rows("SELECT id FROM jobs FOR UPDATE SKIP LOCKED")
    assert [str(row["id"]) for row in free] == [a]
    claiming.commit()
    assert holders(scene) == {"a": [], "b": [b]}


async def test_what_is_parked_while_there_is_room_is_freed_by_the_next_sweep_though_others_run(scene: Scene) -> None:
    *running, next_one, waiting = await keyed(scene, *"aaaaa", concurrency_limit=3)
    worker = scene.worker()
    jobs = (await scene.claim_keyed(worker)).jobs
    assert [job.id for job in jobs] == running
    await scene.settle(worker, completed(jobs[0], NOW, None))
    # A job that goes on in a user's transaction, and is cancelled there, leaves its key alone.
    scene.sql.execute("SELECT cancel_1(ARRAY[%s::uuid], true)", [next_one])
    assert await claimed(scene, worker) == []
    scene.sql.execute(scene.statements.sql("sweep_keys"))
    assert await claimed(scene, worker) == [waiting]


async def test_a_cancel_that_finds_its_job_given_back_hands_the_key_on(scene: Scene) -> None:
    *first, waiting = await keyed(scene, *"aaaa", concurrency_limit=3)
    worker = scene.worker()
    assert await claimed(scene, worker) == first
    settling = scene.session()
    settling.execute(
        "SELECT settle_keyed_1($1::uuid, ARRAY[$2::uuid], ARRAY[1], ARRAY['release'], ARRAY[NULL::bigint], $3, "
        "ARRAY['default'], ARRAY['a'])",
        [worker, first[0], '[{"attempt": 1, "failures": 0, "crashes": 0}]'],
    )
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        cancelling = group.create_task(scene.store.cancel([UUID(first[0])]))
        await scene.until_blocked()
        settling.commit()
    assert cancelling.result() == ["cancelled"]
    assert await claimed(scene, worker) == [waiting]


async def test_a_cancel_that_waits_for_a_job_has_locked_no_key_meanwhile(scene: Scene) -> None:
    _, behind = await keyed(scene, *"aa")
    await claimed(scene, scene.worker())
    _, [running] = await scene.running()
    user = scene.session()
    user.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", [running.id])
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        cancelling = group.create_task(scene.store.cancel([UUID(behind), UUID(running.id)]))
        await scene.until_blocked()
        assert len(scene.rows("SELECT FROM concurrency_keys FOR NO KEY UPDATE SKIP LOCKED")) == 1
    user.rollback()
    assert cancelling.result() == ["cancelled", "requested"]


async def test_a_job_that_runs_again_before_its_key_was_handed_on_holds_one_place(scene: Scene) -> None:
    first, second = await keyed(scene, *"aa", concurrency_limit=2)
    worker, other = scene.worker(), scene.worker()
    [job] = (await scene.claim_keyed(worker, 1)).jobs
    user = scene.session()
    again = f'["{first}", 1, "reschedule", 1, {{"attempt": 1, "failures": 0, "crashes": 0}}]'
    user.execute("SELECT complete_1($1)", [f'{{"worker": "{worker}", "claims": [{again}]}}'])
    user.commit()
    assert await claimed(scene, other, 1) == [first]
    assert holders(scene) == {"a": [first]}
    assert await scene.settle(worker, completed(job, NOW, None)) == ["landed before"]
    assert holders(scene) == {"a": [first]}
    assert await claimed(scene, other) == [second]


async def test_a_settle_waits_for_no_key_that_came_into_use_while_it_was_under_way(scene: Scene) -> None:
    """It has not locked that, and so may neither change nor drop it, nor wait for it out of the order of locks."""
    [first] = await keyed(scene, "a")
    worker = scene.worker()
    [job] = (await scene.claim_keyed(worker)).jobs
    retry = Settlement(job, "retry", NOW, attempt=2, failures=1, delay=timedelta(0))
    await scene.settle(worker, retry)
    assert holders(scene) == {}
    halt, claiming, link = scene.session(), scene.session(), scene.another_link()
    halt.execute("LOCK TABLE attempts")  # which a settle reads once it has locked its keys, and a claim never
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        again = group.create_task(scene.settle(worker, retry, link=link))
        await scene.until_blocked()
        [taken] = (await scene.claim_keyed(scene.worker())).jobs
        assert taken.id == first
        scene.sql.execute("DELETE FROM jobs WHERE id = %s", [first])  # as a completion in a user's transaction does
        claiming.execute("SELECT FROM concurrency_keys WHERE concurrency_key = 'a' FOR NO KEY UPDATE")
        halt.rollback()
        assert await again == ["landed before"]
    claiming.rollback()
    await link.drop()
    assert holders(scene) == {"a": [first]}
    scene.sql.execute(scene.statements.sql("sweep_keys"))
    assert holders(scene) == {}


async def test_a_key_whose_row_another_has_just_written_is_handed_on(scene: Scene) -> None:
    """Who waits for the lock of a row gets the row as it is then, not as it was."""
    first, _, other = await keyed(scene, *"aaa", concurrency_limit=2)
    worker = scene.worker()
    jobs = (await scene.claim_keyed(worker)).jobs
    assert (jobs[0].id, parked(scene)) == (first, [other])
    neighbour = scene.session()
    neighbour.execute("UPDATE concurrency_keys SET running = running || gen_random_uuid()")
    settling = asyncio.create_task(scene.settle(worker, *[completed(job, NOW, None) for job in jobs]))
    await scene.until_blocked()
    neighbour.commit()
    assert await settling == ["landed", "landed"]
    assert len(holders(scene)["a"]) == 1, "the neighbour's"
    assert parked(scene) == []
