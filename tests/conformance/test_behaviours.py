"""What a store promises, one thing at a time: on PostgreSQL and in memory."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import msgspec

from conformance.sides import Side
from piecework.base.ids import new_id
from piecework.model.job import ClaimedJob, NewJob
from piecework.model.lanes import Lane
from piecework.model.settlement import completed, released
from piecework.store.claiming import NO_CHAINS

PLAIN, KEYED = Lane("default", "a", 0), Lane("default", "a", 0, keyed=True)


def job(**fields: object) -> NewJob:
    values: dict[str, object] = {"id": str(new_id()), "job_type": "a", "config": msgspec.Raw(b'{"x":1}'), **fields}
    return NewJob(**values)  # type: ignore[arg-type]


async def worker(side: Side) -> str:
    id = str(new_id())
    await side.register(id)
    return id


async def claimed(side: Side, worker: str, lane: Lane = PLAIN, most: int = 10) -> list[ClaimedJob]:
    if lane.keyed:
        await side.claim_keyed(worker, [(lane, most)], most, NO_CHAINS, 0)
    else:
        await side.claim(worker, [(lane, most)], most)
    return list(side.taken)


async def test_a_claim_takes_the_first_due_jobs_of_its_lanes_in_their_order(side: Side) -> None:
    await side.begin()
    early, late, urgent = job(delay=-2_000_000), job(delay=-1_000_000), job(priority=-1)
    future = job(delay=60_000_000)
    await side.spawn([late, early, urgent, future])
    one = await worker(side)
    assert [each.id for each in await claimed(side, one, most=1)] == [early.id]
    assert [each.id for each in await claimed(side, one)] == [late.id]
    assert [each.id for each in await claimed(side, one, Lane("default", "a", -1))] == [urgent.id]
    assert await claimed(side, one) == []
    await side.turn(61)
    assert [each.id for each in await claimed(side, one)] == [future.id]


async def test_of_two_workers_each_job_has_one(side: Side) -> None:
    await side.spawn([job() for _ in range(6)])
    one, other = await worker(side), await worker(side)
    first, second = await claimed(side, one, most=4), await claimed(side, other, most=4)
    assert len({each.id for each in (*first, *second)}) == 6


async def test_a_settle_lands_once_and_a_late_one_changes_nothing(side: Side) -> None:
    [given] = [job()]
    await side.spawn([given])
    one, other = await worker(side), await worker(side)
    [mine] = await claimed(side, one)
    assert await side.settle(other, [completed(mine, 999.0, None)]) == (["lost"], [])
    assert await side.settle(one, [completed(mine, 999.0, msgspec.Raw(b"[1]"))]) == (["landed"], [])
    before = side.state()
    assert await side.settle(one, [completed(mine, 999.0, None)]) == (["landed before"], [])
    assert side.state() == before
    [snapshot] = await side.store.load([UUID(given.id)])
    assert snapshot is not None
    assert (snapshot.status, bytes(snapshot.result or b"")) == ("completed", b"[1]")


async def test_a_row_that_a_transaction_holds_is_locked_to_a_settle_and_skipped_by_a_claim(side: Side) -> None:
    given = job()
    await side.spawn([given])
    one = await worker(side)
    side.hold(given.id)
    assert await claimed(side, one) == []
    side.let_go()
    [mine] = await claimed(side, one)
    side.hold(mine.id)
    assert await side.settle(one, [completed(mine, 999.0, None)]) == (["locked"], [])
    side.let_go()
    assert await side.settle(one, [completed(mine, 999.0, None)]) == (["landed"], [])


async def test_a_dead_workers_jobs_are_taken_back_and_its_late_settle_is_lost(side: Side) -> None:
    given = job()
    await side.spawn([given])
    one, other = await worker(side), await worker(side)
    [mine] = await claimed(side, one)
    assert await side.beat(one) is not None
    assert await side.rescue(one, 0) is None, "it beat since"
    assert await side.rescue(one, 1) == [(given.id, "a")]
    assert await side.beat(one) is None
    assert await side.attempt("claim", one, [(PLAIN, 1)], 1) == "WorkerGone"
    [theirs] = await claimed(side, other)
    assert (theirs.claim_no, theirs.attempt, theirs.failures, theirs.crashes) == (2, 2, 1, 1)
    assert await side.settle(one, [completed(mine, 999.0, None)]) == (["lost"], [])
    assert await side.settle(other, [completed(theirs, 999.0, None)]) == (["landed"], [])


async def test_one_job_of_a_concurrency_key_runs_and_the_next_one_comes_when_it_ends(side: Side) -> None:
    first, second, third = (job(concurrency_key="k") for _ in range(3))
    await side.spawn([first, second, third])
    one = await worker(side)
    [mine] = await claimed(side, one, KEYED)
    assert mine.id == first.id
    assert sorted(row[8] for row in side.state()["jobs"]) == [False, True, True], "the others are parked"
    assert await side.settle(one, [completed(mine, 999.0, None)]) == (["landed"], [KEYED])
    [mine] = await claimed(side, one, KEYED)
    assert mine.id == second.id
    assert await side.settle(one, [released(mine)]) == (["landed"], [])
    [again] = await claimed(side, one, KEYED)
    assert again.id == second.id, "a released job is the first of its key again"


async def test_a_limit_of_operators_counts_before_that_of_the_jobs(side: Side) -> None:
    await side.spawn([job(concurrency_key="k:1", concurrency_limit=1) for _ in range(4)])
    await side.limit('{"name":"k:*","max_running":3}')
    assert len(await claimed(side, await worker(side), KEYED)) == 3


async def test_a_key_has_one_live_job(side: Side) -> None:
    first, second = job(key="u"), job(key="u")
    assert await side.spawn([first]) == {}
    assert await side.spawn([second]) == {0: first.id}
    one = await worker(side)
    [mine] = await claimed(side, one)
    await side.settle(one, [completed(mine, 999.0, None)])
    assert await side.spawn([second]) == {}
    assert await side.attempt("retry", [first.id]) != ["retried"]


async def test_a_cancel_ends_what_waits_and_is_requested_of_what_runs(side: Side) -> None:
    running, waiting, unknown = job(), job(delay=60_000_000), str(new_id())
    await side.spawn([running, waiting])
    one = await worker(side)
    [mine] = await claimed(side, one)
    assert await side.cancel([running.id, waiting.id, unknown]) == ["requested", "cancelled", "unknown"]
    beat = side.pulse.beat(one, draining=False, job_types=["a"])
    assert beat is not None
    assert beat.requests == [(running.id, mine.claim_no)]
    assert await side.settle(one, [released(mine)]) == (["landed"], [])
    [snapshot] = await side.store.load([UUID(running.id)])
    assert snapshot is not None
    assert snapshot.status == "cancelled"


async def test_a_spawn_tells_whoever_is_declared_idle_and_nobody_else(side: Side) -> None:
    one = await worker(side)
    side.notices()
    await side.spawn([job()])
    assert side.notices() == []
    await side.idle(one)
    await side.spawn([job(), job()])
    assert side.notices() == [["default", "a", 0, 1, False]]
    await side.busy(one)
    await side.spawn([job()])
    assert side.notices() == []


async def test_a_worker_with_jobs_in_its_hands_is_not_struck_off(side: Side) -> None:
    one = await worker(side)
    await side.spawn([job()])
    [mine] = await claimed(side, one)
    assert await side.leave(one) is False
    await side.settle(one, [released(mine, timedelta(seconds=1))])
    assert await side.leave(one) is True
