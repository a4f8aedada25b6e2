"""At most one live job per job type and key: who holds it, when it is free again, and who may find it."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import psycopg
import pytest
from engine.helpers import SOON, count, query, until, value

from piecework import (
    DatabaseError,
    Fail,
    InvalidOptions,
    JobAlreadyExists,
    JobNotFinished,
    Jobs,
    Reschedule,
    RetrySettings,
    TransactionError,
    new_id,
)
from piecework.testing import ManualClock

DAY = timedelta(days=1)


class Work:
    """One job type whose runs do what they are told: `done`, `fail`, `retry` or `again`."""

    def __init__(self, jobs: Jobs) -> None:
        self.runs: list[tuple[str, int]] = []

        @jobs.job(retry=RetrySettings(n_attempts=2, min_backoff=DAY, max_backoff=DAY))
        async def work(what: str, number: int = 0) -> str | Reschedule | Fail:
            self.runs.append((what, number))
            match what:
                case "fail":
                    return Fail("no")
                case "retry":
                    raise ArithmeticError
                case "again":
                    return Reschedule.after(DAY)
                case _:
                    return f"{what} {number}"

        self.job = work
        self.keyed = work.options(key="k")


@pytest.fixture
def work(jobs: Jobs) -> Work:
    return Work(jobs)


# who holds a key


async def test_spawning_a_key_that_a_live_job_has_returns_that_job(work: Work, dsn: str) -> None:
    first = await work.keyed.spawn("done", 1)
    again = await work.keyed.spawn("done", 2)
    blocking = await asyncio.to_thread(work.keyed.spawn_sync, "done", 3)
    assert (first.created, again.created, blocking.created) == (True, False, False)
    assert first.id == again.id == blocking.id
    assert count(dsn, "jobs") == 1
    assert (await first.load()).config_as(dict) == {"what": "done", "number": 1}, "its config is that of the first"


async def test_jobs_of_different_keys_run_beside_each_other(jobs: Jobs) -> None:
    both = asyncio.Barrier(2)

    @jobs.job(key="{name}")
    async def meet(name: str) -> None:
        await both.wait()

    async with jobs.worker():
        handles = await jobs.spawn_all([meet.spec("a"), meet.spec("b")])
        await handles.results(timeout=SOON)
    assert [each.key for each in await handles.load()] == ["a", "b"]


async def test_a_key_is_one_of_its_job_type(jobs: Jobs, work: Work, dsn: str) -> None:
    @jobs.job
    async def other() -> None: ...

    handles = await jobs.spawn_all([work.keyed.spec("done"), other.options(key="k").spec()])
    assert [handle.created for handle in handles] == [True, True]
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        assert not (await work.job.options(key="k", conn=conn).spawn("done")).created
        assert not (await other.options(key="k", conn=conn).spawn()).created
    assert count(dsn, "jobs") == 2


async def test_jobs_without_a_key_are_as_many_as_are_spawned(jobs: Jobs, work: Work, dsn: str) -> None:
    handles = await jobs.spawn_all([
        work.job.spec("done", 1), work.keyed.spec("done", 2), work.job.spec("done", 1), work.keyed.spec("done", 3),
    ])  # fmt: skip
    assert [handle.created for handle in handles] == [True, True, True, False]
    assert len({handle.id for handle in handles}) == 3 == count(dsn, "jobs")


async def test_of_several_with_one_key_in_one_call_the_first_listed_is_created(jobs: Jobs, work: Work) -> None:
    other = work.job.options(key="other")
    handles = await jobs.spawn_all(spawner.spec("done", n) for n, spawner in enumerate([work.keyed, other] * 3))
    assert [handle.created for handle in handles] == [True, True, False, False, False, False]
    assert [handle.id for handle in handles] == [handles[0].id, handles[1].id] * 3
    assert [(await handle.load()).config_as(dict)["number"] for handle in handles[:2]] == [0, 1]
    async with jobs.worker():
        assert await handles.results(timeout=SOON) == ["done 0", "done 1"] * 3
    # Also where the first of them would have an id that comes later.
    early, late = sorted([new_id(), new_id()])
    handles = await jobs.spawn_all(work.keyed.options(id=id).spec("done") for id in (late, early))
    assert [handle.id for handle in handles] == [late, late]
    assert [handle.created for handle in handles] == [True, False]


async def test_a_key_is_held_by_a_job_that_is_parked_or_due_later_or_runs(jobs: Jobs, work: Work, dsn: str) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    @jobs.job(concurrency_key="one")
    async def hold() -> None:
        started.set()
        await go_on.wait()

    runs = await hold.options(key="runs").spawn()
    later = await work.keyed.options(delay=DAY).spawn("done")
    async with jobs.worker():
        await started.wait()
        parked = await hold.options(key="parked").spawn()
        await until(lambda: count(dsn, "jobs WHERE parked"))
        assert (await parked.load()).parked
        for spawner, holder in ((hold.options(key="runs"), runs), (hold.options(key="parked"), parked)):
            assert (await spawner.spawn()).id == holder.id
        assert (await work.keyed.spawn("done")).id == later.id
        go_on.set()
        await parked.result(timeout=SOON)


# when it is free again


@pytest.mark.parametrize(("what", "status"), [("done", "completed"), ("fail", "errored"), ("cancel", "cancelled")])
async def test_when_its_job_has_ended_a_key_starts_a_new_job(jobs: Jobs, work: Work, what: str, status: str) -> None:
    first = await work.keyed.spawn(what, 1)
    if what == "cancel":
        await first.cancel()
    async with jobs.worker():
        assert (await first.wait(timeout=SOON)).status == status
        second = await work.keyed.spawn("done", 2)
        assert second.created
        assert second.id != first.id
        assert await second.result(timeout=SOON) == "done 2"
    assert (await first.load()).status == status, "the first is as it was"


@pytest.mark.parametrize("what", ["retry", "again"])
async def test_a_job_that_runs_again_keeps_its_key(jobs: Jobs, work: Work, what: str, dsn: str) -> None:
    async with ManualClock(jobs), jobs.worker():
        first = await work.keyed.spawn(what)
        await until(lambda: count(dsn, "attempts"))
        again = await work.keyed.spawn("done")
        assert (again.id, again.created) == (first.id, False)
        await first.cancel()
        assert (await work.keyed.spawn("done")).created


async def test_a_finished_job_that_is_retried_has_its_key_again(jobs: Jobs, work: Work) -> None:
    first = await work.keyed.spawn("done")
    async with jobs.worker():
        await first.result(timeout=SOON)
    assert await first.retry()
    assert (await work.keyed.spawn("done")).id == first.id


# races


async def test_of_spawns_of_a_key_at_the_same_time_one_creates_the_job(dsn: str, jobs: Jobs, work: Work) -> None:
    async with Jobs(dsn) as elsewhere:
        there = Work(elsewhere)
        for race in range(20):
            specs = [
                [each.job.options(key=f"{race}-{n}").spec("done", n) for n in order]
                for each, order in ((work, [0, 1, 2]), (there, [2, 1, 0]), (work, [1]), (there, [0, 2]))
            ]
            answered = await asyncio.gather(*(
                (jobs if number % 2 == 0 else elsewhere).spawn_all(batch) for number, batch in enumerate(specs)
            ))  # fmt: skip
            made = Counter(handle.id for handles in answered for handle in handles if handle.created)
            assert {*made.values()} == {1}
            assert len(made) == 3
            assert {handle.id for handles in answered for handle in handles} == made.keys()
        assert count(dsn, "jobs") == 60


async def test_spawns_of_a_key_whose_jobs_come_and_go_answer_with_jobs_that_ran(
    jobs: Jobs, work: Work, dsn: str
) -> None:
    async with jobs.worker():
        handles = [
            handle for _ in range(20)
            for handle in await asyncio.gather(*(work.keyed.spawn("done", n) for n in range(8)))
        ]  # fmt: skip
        await jobs.handles([handle.id for handle in handles]).results(timeout=SOON)
    made = [handle.id for handle in handles if handle.created]
    assert len(made) == len({*made}) == len(work.runs) == count(dsn, "finished_jobs")
    assert {handle.id for handle in handles} == {*made}, "each was created by one of the calls"


# in a transaction of the caller's


async def test_a_key_that_was_taken_in_a_transaction_is_free_when_that_is_rolled_back(work: Work, dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        joined = work.job.options(key="k", conn=conn)
        first = await joined.spawn("done", 1)
        assert (await joined.spawn("done", 2)).id == first.id
        await conn.rollback()
        second = await joined.spawn("done", 3)
        assert second.created
        assert second.id != first.id
        await conn.commit()
    again = await work.keyed.spawn("done", 4)
    assert (again.id, again.created) == (second.id, False)
    with psycopg.connect(dsn) as blocking:
        held = work.job.options(key="k", conn=blocking).spawn_sync("done", 5)
        assert (held.id, held.created) == (second.id, False)


async def test_in_a_transaction_a_call_of_many_says_of_each_whether_it_was_created(
    jobs: Jobs, work: Work, dsn: str
) -> None:
    holder = await work.keyed.spawn("done")
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        specs = [work.keyed.spec("done"), work.job.spec("done"), work.job.options(key="n").spec("done")]
        handles = await jobs.spawn_all(specs, conn=conn)
    assert [handle.created for handle in handles] == [False, True, True]
    assert handles[0].id == holder.id


async def test_a_spawn_waits_for_an_open_transaction_that_took_its_key(work: Work, dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        first = await work.job.options(key="k", conn=conn).spawn("done")
        waits = asyncio.create_task(work.keyed.spawn("done"))
        await until(lambda: blocked(dsn))
        await conn.commit()
        second = await waits
        assert (second.id, second.created) == (first.id, False)
        third = await work.job.options(key="other", conn=conn).spawn("done")
        waits = asyncio.create_task(work.job.options(key="other").spawn("done"))
        await until(lambda: blocked(dsn))
        await conn.rollback()
        fourth = await waits
        assert fourth.created
        assert fourth.id != third.id


async def test_it_does_not_wait_for_ever(work: Work, dsn: str) -> None:
    """5 seconds; or as long as the session says."""
    async with (
        await psycopg.AsyncConnection.connect(dsn) as conn,
        await psycopg.AsyncConnection.connect(dsn, options="-c lock_timeout=300ms") as hasty,
    ):
        await work.job.options(key="k", conn=conn).spawn("done")
        with pytest.raises(TransactionError, match="an open transaction holds what this one needs, a key"):
            await work.job.options(key="k", conn=hasty).spawn("done")
        await hasty.rollback()
        assert (await work.job.options(key="other", conn=hasty).spawn("done")).created
        cursor = await hasty.execute("SHOW lock_timeout")
        assert await cursor.fetchone() == ("300ms",), "the session's own is as it was"
        with pytest.raises(DatabaseError, match="lock timeout"):
            await work.keyed.spawn("done")
        assert (await work.job.options(key="third", conn=conn).spawn("done")).created
        cursor = await conn.execute("SHOW lock_timeout")
        assert await cursor.fetchone() == ("0",)


async def test_a_key_is_refused_above_read_committed_with_the_reason(jobs: Jobs, work: Work, dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await conn.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        with pytest.raises(TransactionError, match=r"with a key needs READ COMMITTED.*too new for it to be seen"):
            await work.job.options(key="k", conn=conn).spawn("done")
        await conn.rollback()
        assert (await work.job.options(conn=conn).spawn("done")).created, "without a key it may"


# finding


async def test_a_job_is_found_by_its_key(jobs: Jobs, work: Work) -> None:
    assert await work.job.keyed_handle("k") is None
    first = await work.keyed.spawn("done", 1)
    found = await work.job.keyed_handle("k")
    assert found is not None
    assert (found.id, found.created) == (first.id, False)
    async with jobs.worker():
        assert await found.result(timeout=SOON) == "done 1"
    ended = await work.job.keyed_handle("k")
    assert ended is not None
    assert ended.id == first.id, "the latest, when none is live"
    second = await work.keyed.options(delay=DAY).spawn("done", 2)
    live = await asyncio.to_thread(work.job.keyed_handle_sync, "k")
    assert live is not None
    assert live.id == second.id
    await second.cancel()
    latest = await work.job.keyed_handle("k")
    assert latest is not None
    assert latest.id == second.id
    with pytest.raises(InvalidOptions, match=r"keyed_handle\(…\) takes 1 to 200 characters"):
        await work.job.keyed_handle("")


async def test_the_jobs_of_all_keys_are_found_in_the_order_of_the_keys(jobs: Jobs, work: Work) -> None:
    @jobs.job
    async def other() -> None: ...

    assert len(await work.job.keyed_handles()) == 0
    await other.options(key="theirs").spawn()
    await work.job.spawn("done")
    first = {key: await work.job.options(key=key).spawn("done", 1) for key in ("c", "a", "B")}
    assert [handle.id for handle in await work.job.keyed_handles()] == [first[key].id for key in ("B", "a", "c")]
    async with jobs.worker():
        for handle in first.values():
            await handle.result(timeout=SOON)
    second = await work.job.options(key="a", delay=DAY).spawn("done", 2)
    found = await asyncio.to_thread(work.job.keyed_handles_sync)
    assert [handle.id for handle in found] == [first["B"].id, second.id, first["c"].id]
    assert [each.key for each in await found.load()] == ["B", "a", "c"]
    assert [handle.created for handle in found] == [False] * 3


async def test_a_job_is_found_by_its_key_under_the_former_name_of_its_type(dsn: str) -> None:
    async with Jobs(dsn) as before:

        @before.job
        async def old_name() -> None: ...

        spawned = await old_name.options(key="k").spawn()
    async with Jobs(dsn) as jobs:

        @jobs.job(aliases=["old_name"])
        async def new_name() -> None: ...

        found = await new_name.keyed_handle("k")
        assert found is not None
        assert found.id == spawned.id
        newer = await new_name.options(key="k").spawn()
        await newer.cancel()
        found = await new_name.keyed_handle("k")
        assert found is not None
        assert found.id == spawned.id, "the live one counts first"


async def test_what_the_jobs_of_all_keys_saved_is_read_in_one_call(jobs: Jobs, work: Work, dsn: str) -> None:
    for number, key in enumerate("ab"):
        handle = await work.job.options(key=key).spawn("done")
        query(dsn, "INSERT INTO piecework.execution_states (job_id, saved_by, claim_no, state) VALUES (%s, %s, 1, %s)",
              handle.id, handle.id, str(number))  # fmt: skip
    assert [each.execution_state(int) for each in await (await work.job.keyed_handles()).load()] == [0, 1]


# resident jobs


async def test_the_job_of_a_resident_type_is_found_and_is_one(jobs: Jobs, dsn: str) -> None:
    runs: list[int] = []

    @jobs.resident
    async def sweep() -> Reschedule:
        runs.append(1)
        return Reschedule.now() if len(runs) < 5 else Reschedule.after(DAY)

    assert await sweep.resident_handle() is None
    first = await sweep.spawn()
    again = await sweep.spawn()
    assert (again.id, again.created) == (first.id, False)
    found = await sweep.resident_handle()
    assert found is not None
    assert found.id == first.id
    assert (await asyncio.to_thread(sweep.resident_handle_sync)).id == first.id  # type: ignore[union-attr]
    async with jobs.worker():
        await until(lambda: len(runs) == 5)
        with pytest.raises(JobNotFinished):
            await first.wait(timeout=timedelta(milliseconds=100))
    assert count(dsn, "jobs") == 1
    # Only a key counts that somebody gave.
    assert await sweep.keyed_handle("resident") is None
    assert len(await sweep.keyed_handles()) == 0


async def test_a_type_that_is_not_resident_has_no_resident_job(work: Work) -> None:
    await work.job.options(key="resident").spawn("done")
    assert await work.job.resident_handle() is None
    assert await work.job.keyed_handle("resident") is not None


async def test_an_id_of_the_callers_own_is_refused_where_it_exists_and_its_key_is_held(work: Work) -> None:
    mine = new_id()
    first = await work.keyed.options(id=mine).spawn("done")
    assert first.id == mine
    again = await work.keyed.options(id=mine).spawn("done")
    assert (again.id, again.created) == (mine, False), "so a spawn of both can be sent again"
    with pytest.raises(JobAlreadyExists, match=str(mine)):
        await work.job.options(id=mine, key="other").spawn("done")


def blocked(dsn: str) -> object:
    return value(dsn, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                 "AND cardinality(pg_blocking_pids(pid)) > 0")  # fmt: skip
