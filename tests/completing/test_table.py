"""Body, commit, and what the engine makes of it: each row of the table in docs/guide.md, and what lies between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import psycopg
import pytest
from completing.effects import OWE, PAY, Effects
from engine.helpers import SOON, count, query, until, value

from piecework import CurrentJob, JobErrored, Jobs, Reschedule, RetrySettings, WorkerSettings
from piecework.engine import executor

pytestmark = pytest.mark.postgres(18, 15)

QUICK = RetrySettings(min_backoff=timedelta(milliseconds=10))
ONCE = RetrySettings(n_attempts=1)
Warnings = Callable[[], list[str]]


async def test_the_body_returns_and_the_commit_lands_so_that_nothing_is_left_to_write(
    jobs: Jobs, effects: Effects, warnings: Warnings
) -> None:
    @jobs.job
    async def pay(job: CurrentJob) -> str | None:
        async with job.completing() as conn:
            await conn.execute(PAY)
            await job.set_result("paid", conn=conn)

    async with jobs.worker():
        handle = await pay.spawn()
        assert await handle.result(timeout=SOON) == "paid"
    assert (effects.all, effects.moves(handle), effects.guards, warnings()) == (["paid"], [], 0, [])
    assert (await handle.load()).started_at is not None


async def test_the_body_raises_so_that_all_is_rolled_back_and_the_attempt_has_failed(
    jobs: Jobs, effects: Effects
) -> None:
    @jobs.job(retry=QUICK)
    async def pay(job: CurrentJob) -> None:
        async with job.completing() as conn:
            await conn.execute(PAY)
            if job.attempt == 1:
                raise ConnectionError

    async with jobs.worker():
        handle = await pay.spawn()
        await handle.result(timeout=SOON)
    assert (effects.all, effects.moves(handle)) == (["paid"], ["retry"])


async def test_the_body_returns_and_the_commit_raises_so_that_the_attempt_has_failed(
    jobs: Jobs, effects: Effects, warnings: Warnings
) -> None:
    @jobs.job(retry=QUICK)
    async def pay(job: CurrentJob) -> None:
        async with job.completing() as conn:
            await conn.execute(PAY)
            if job.attempt == 1:
                await conn.execute(OWE)

    async with jobs.worker():
        handle = await pay.spawn()
        await handle.result(timeout=SOON)
    assert (effects.all, effects.moves(handle)) == (["paid"], ["retry"])
    [said] = warnings()
    assert "ForeignKeyViolation" in said


async def test_the_body_returns_and_the_commit_raises_after_it_landed_so_that_the_job_stays_complete(
    jobs: Jobs, effects: Effects, dsn: str, warnings: Warnings
) -> None:
    @asynccontextmanager
    async def begin() -> AsyncIterator[psycopg.AsyncConnection]:
        async with await psycopg.AsyncConnection.connect(dsn) as conn:
            yield conn
        raise ConnectionResetError("the answer to the COMMIT was lost")

    @jobs.job
    async def pay(job: CurrentJob) -> None:
        async with job.completing(begin=begin) as conn:
            await conn.execute(PAY)

    async with jobs.worker():
        handle = await pay.spawn()
        await handle.result(timeout=SOON)
        await until(warnings)
    assert (effects.all, effects.moves(handle)) == (["paid"], [])
    [said] = warnings()
    assert f"job {handle.id} (pay) raised ConnectionResetError" in said
    assert "after its completion was committed: that stays" in said


async def test_the_runner_raises_after_the_block_so_that_the_job_stays_complete_with_a_warning(
    jobs: Jobs, effects: Effects, warnings: Warnings
) -> None:
    @jobs.job
    async def pay(job: CurrentJob) -> None:
        async with job.completing() as conn:
            await conn.execute(PAY)
        raise ValueError("too late")

    async with jobs.worker():
        handle = await pay.spawn()
        assert (await handle.wait(timeout=SOON)).status == "completed"
        await until(warnings)
    assert (effects.all, effects.moves(handle)) == (["paid"], [])
    assert warnings() == [
        f"job {handle.id} (pay) raised ValueError('too late') after its completion was committed: that stays, and "
        "nothing else is stored"
    ]


async def test_a_value_that_is_returned_after_the_block_is_not_stored_and_a_warning_says_so(
    jobs: Jobs, effects: Effects, warnings: Warnings
) -> None:
    @jobs.job
    def pay(job: CurrentJob) -> int | None:
        with job.completing() as conn:
            conn.execute(PAY)
            job.set_result_sync(1, conn=conn)
        return 2

    async with jobs.worker():
        handle = await pay.spawn()
        assert await handle.result(timeout=SOON) == 1
        await until(warnings)
    [said] = warnings()
    assert "returned 2 after its completion was committed" in said


async def test_a_block_that_reschedules_runs_the_job_again_and_a_reschedule_returned_after_it_is_no_news(
    jobs: Jobs, effects: Effects, warnings: Warnings
) -> None:
    @jobs.job
    async def pay(job: CurrentJob) -> Reschedule | None:
        rounds = job.execution_state(int) or 0
        async with job.completing(Reschedule.now() if rounds < 2 else None) as conn:
            await conn.execute(PAY)
            await job.save_state(rounds + 1, conn=conn)
        return Reschedule.now() if rounds < 2 else None

    async with jobs.worker():
        handle = await pay.spawn()
        await handle.result(timeout=SOON)
    # It may be claimed again before it has returned, and is handed back once more then.
    moves = [move for move in effects.moves(handle) if move != "release"]
    assert (effects.all, moves) == (["paid"] * 3, ["reschedule"] * 2)
    assert (warnings(), (await handle.load()).attempt) == ([], 1)


async def test_a_job_that_its_block_reschedules_is_not_run_again_before_it_has_returned(
    jobs: Jobs, effects: Effects
) -> None:
    running: list[int] = []
    most: list[int] = []

    @jobs.job
    async def pay(job: CurrentJob) -> None:
        running.append(job.claim_no)
        most.append(len(running))
        again = effects.all == []
        async with job.completing(Reschedule.now() if again else None) as conn:
            await conn.execute(PAY)
        if again:
            await until(lambda: "release" in effects.moves(handle))
        running.remove(job.claim_no)

    async with jobs.worker():
        handle = await pay.spawn()
        await handle.result(timeout=SOON)
    assert (effects.all, most) == (["paid"] * 2, [1, 1])


async def test_a_block_reschedules_for_later(jobs: Jobs, effects: Effects, dsn: str) -> None:
    @jobs.job
    async def pay(job: CurrentJob) -> None:
        async with job.completing(Reschedule.after(timedelta(hours=1))) as conn:
            await conn.execute(PAY)

    async with jobs.worker():
        handle = await pay.spawn()
        await until(lambda: count(dsn, "jobs WHERE run_at > clock_timestamp() + interval '50 minutes'") == 1)
    assert (await handle.load()).status == "pending"


async def test_an_error_that_is_swallowed_around_the_block_is_a_failed_attempt_all_the_same(
    jobs: Jobs, effects: Effects, warnings: Warnings
) -> None:
    @jobs.job(retry=ONCE)
    async def pay(job: CurrentJob) -> str:
        try:
            async with job.completing() as conn:
                await conn.execute(PAY)
                await conn.execute(OWE)
        except psycopg.Error:
            pass
        return "never mind"

    async with jobs.worker():
        with pytest.raises(JobErrored, match=r"NotCommitted.*never committed"):
            await (await pay.spawn()).result(timeout=SOON)
    assert effects.all == []


async def test_after_a_block_that_was_not_committed_a_run_may_reschedule(jobs: Jobs, effects: Effects) -> None:
    @jobs.job
    async def pay(job: CurrentJob) -> Reschedule | None:
        try:
            async with job.completing() as conn:
                await conn.execute(PAY)
                if job.claim_no == 1:
                    await conn.execute(OWE)
        except psycopg.Error:
            return Reschedule.now()
        return None

    async with jobs.worker():
        handle = await pay.spawn()
        await handle.result(timeout=SOON)
    assert (effects.all, effects.moves(handle)) == (["paid"], ["reschedule"])


async def test_a_block_may_be_tried_again_in_the_same_run(
    jobs: Jobs, effects: Effects, warnings: Warnings
) -> None:
    @jobs.job
    async def pay(job: CurrentJob) -> None:
        for last in (False, True):
            try:
                async with job.completing() as conn:
                    await conn.execute(PAY)
                    if not last:
                        await conn.execute(OWE)
            except psycopg.Error:
                pass

    async with jobs.worker():
        handle = await pay.spawn()
        await handle.result(timeout=SOON)
    assert (effects.all, effects.moves(handle), warnings()) == (["paid"], [], [])


async def test_a_transaction_that_is_never_committed_is_a_failed_attempt(
    jobs: Jobs, effects: Effects, dsn: str
) -> None:
    @jobs.job(retry=QUICK)
    async def pay(job: CurrentJob) -> None:
        conn = await psycopg.AsyncConnection.connect(dsn)
        await conn.execute(PAY)
        await job.complete_in(conn)
        if job.attempt == 2:
            await conn.commit()
        await conn.close()

    async with jobs.worker():
        handle = await pay.spawn()
        await handle.result(timeout=SOON)
    assert (effects.all, effects.moves(handle)) == (["paid"], ["retry"])
    assert "NotCommitted" in str(value(dsn, "SELECT error->>'type' FROM piecework.attempts"))


async def test_a_transaction_that_stays_open_is_waited_for_keeps_its_capacity_and_is_named(
    jobs: Jobs, effects: Effects, dsn: str, warnings: Warnings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "_UNSETTLED_FOR_LONG", 0.3)
    conn = await psycopg.AsyncConnection.connect(dsn)
    ran: list[int] = []

    @jobs.job
    async def pay(job: CurrentJob) -> None:
        await conn.execute(PAY)
        await job.complete_in(conn)

    @jobs.job
    async def next_one() -> None:
        ran.append(1)

    async with jobs.worker(WorkerSettings(concurrency=1, prefetch=0)):
        handle = await pay.spawn()
        await until(warnings)
        other = await next_one.spawn()
        await asyncio.sleep(0.3)  # what does not happen cannot be waited for
        assert ran == []
        await conn.commit()
        await other.result(timeout=SOON)
        await handle.result(timeout=SOON)
    await conn.close()
    assert (effects.all, effects.moves(handle)) == (["paid"], [])
    [said] = warnings()
    assert f"job {handle.id} (pay) has returned, and the transaction in which it completed is still open" in said


async def test_a_result_is_given_with_the_completion(jobs: Jobs, effects: Effects, dsn: str) -> None:
    @jobs.job
    async def pay(job: CurrentJob) -> dict[str, int] | None:
        async with await psycopg.AsyncConnection.connect(dsn) as conn:
            await conn.execute(PAY)
            await job.complete_in(conn, result={"paid": 1})

    async with jobs.worker():
        assert await (await pay.spawn()).result(timeout=SOON) == {"paid": 1}


async def test_a_completion_hands_its_concurrency_key_on_once_it_is_committed(jobs: Jobs, effects: Effects) -> None:
    running: list[int] = []
    most: list[int] = []

    @jobs.job(concurrency_key="till")
    async def pay(job: CurrentJob, number: int) -> None:
        running.append(number)
        most.append(len(running))
        async with job.completing() as conn:
            await conn.execute(PAY)
            running.remove(number)

    async with jobs.worker():
        handles = await jobs.spawn_all([pay.spec(number) for number in range(10)])
        await handles.results(timeout=SOON)
    assert (effects.all, most) == (["paid"] * 10, [1] * 10)
    await until(lambda: count(effects.dsn, "concurrency_keys") == 0)


async def test_a_resident_job_cannot_complete_in_a_block_and_can_reschedule(jobs: Jobs, effects: Effects) -> None:
    said: list[str] = []

    @jobs.resident(retry=QUICK)
    async def sweep(job: CurrentJob) -> Reschedule:
        if not said:
            try:
                job.completing()
            except TypeError as error:
                said.append(str(error))
        async with job.completing(Reschedule.after(timedelta(hours=1))) as conn:
            await conn.execute(PAY)
        return Reschedule.now()

    async with jobs.worker():
        await sweep.spawn()
        await until(lambda: effects.all)
        await until(lambda: count(effects.dsn, "jobs WHERE worker_id IS NULL AND run_at > clock_timestamp()") == 1)
    assert "a resident job never ends" in said[0]
    assert effects.all == ["paid"]


async def test_a_block_that_was_open_for_long_is_named(
    jobs: Jobs, effects: Effects, warnings: Warnings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piecework.work.run_context._LONG", 0.01)

    @jobs.job
    async def pay(job: CurrentJob) -> None:
        async with job.completing() as conn:
            await conn.execute("SELECT pg_sleep(0.05)")

    async with jobs.worker():
        handle = await pay.spawn()
        await handle.result(timeout=SOON)
    [said] = warnings()
    assert f"job {handle.id} (pay) had its completing block open for 0." in said


async def test_a_completion_that_waits_is_found_by_whoever_waits_for_the_result_elsewhere(
    jobs: Jobs, effects: Effects, dsn: str
) -> None:
    """A spawn in the block commits with it, and runs."""
    ran: list[str] = []

    @jobs.job
    async def receipt(text: str) -> None:
        ran.append(text)

    @jobs.job
    async def pay(job: CurrentJob) -> None:
        async with job.completing() as conn:
            await conn.execute(PAY)
            await receipt.options(conn=conn).spawn("for Ada")
            assert query(dsn, "SELECT FROM piecework.jobs WHERE job_type = 'receipt'") == []

    async with Jobs(dsn) as others, jobs.worker():
        handle = await pay.spawn()
        await others.handle(handle.id).result(timeout=SOON)
        await until(lambda: ran == ["for Ada"])
