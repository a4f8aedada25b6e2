"""Gaps of the crate that may not be inherited, where no other test shows one closed from end to end.

docs/seed.md has all of them, G1 to G25, with the tests that hold them.
"""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import timedelta

import psycopg
import pytest
from click.testing import CliRunner
from engine.app import ONCE
from engine.helpers import SOON, count, moves, query, until, value

from piecework import (
    ClaimLost,
    CurrentJob,
    JobNotFinished,
    Jobs,
    Reschedule,
    WorkerSettings,
)
from piecework.cli import main

HOUR = timedelta(hours=1)
SELDOM = WorkerSettings(look_every=HOUR)
"""An idle worker that does not look by itself: what it runs, it was told of."""
ONE_AT_A_TIME = WorkerSettings(look_every=HOUR, concurrency=1, prefetch=0)


async def test_g6_no_statement_of_a_run_reads_what_the_job_did_before(jobs: Jobs, dsn: str) -> None:
    """A job that reschedules itself for ever costs the same each time: reading its past is refused here."""
    runs: list[int] = []

    @jobs.job
    async def steps(job: CurrentJob) -> int | Reschedule:
        runs.append(job.claim_no)
        await job.save_state(job.claim_no)
        return len(runs) if len(runs) == 5 else Reschedule.now()

    before = rows_read(dsn)
    async with jobs.worker():
        handle = await steps.spawn()
        await until(lambda: count(dsn, "finished_jobs"))
    # The worker's sessions have ended, and with that told what they read.
    assert rows_read(dsn) == before
    assert len(moves(dsn, handle.id)) == 4
    assert rows_read(dsn) == before + 4, "what is read is seen here"
    assert await handle.result(timeout=SOON) == 5


def rows_read(dsn: str) -> int:
    """How many rows of the history's attempts all sessions have read so far."""
    query(dsn, "SELECT pg_stat_force_next_flush()")
    return int(str(value(
        dsn, "SELECT sum(coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0)) FROM pg_stat_user_tables "
        "WHERE schemaname = 'piecework' AND relname LIKE 'attempts%'"
    )))  # fmt: skip


async def test_g7_a_job_that_ended_is_not_changed_by_what_its_run_writes_later(jobs: Jobs) -> None:
    late: list[str] = []
    ended = threading.Event()

    @jobs.job(retry=ONCE)
    def pay(job: CurrentJob) -> str | None:
        with job.completing() as conn:
            job.set_result_sync("in time", conn=conn)
        for write in (job.set_result_sync, job.save_state_sync):
            try:
                write("too late")
            except ClaimLost:
                late.append("refused")
        ended.set()
        return None

    async with jobs.worker():
        handle = await pay.spawn()
        assert await handle.result(timeout=SOON) == "in time"
        await until(ended.is_set)
    assert late == ["refused", "refused"]
    snapshot = await handle.load()
    assert (snapshot.status, snapshot.result_as(str), snapshot.state) == ("completed", "in time", None)


async def test_g11_every_look_and_every_wait_is_told_of_the_shutdown(jobs: Jobs) -> None:
    started = asyncio.Event()
    told: list[bool] = []

    @jobs.job
    async def work(job: CurrentJob) -> None:
        started.set()
        await asyncio.gather(job.wait_for_shutdown(), job.wait_for_shutdown())
        told.extend(job.shutdown_requested for _ in range(3))

    async with jobs.worker():
        handle = await work.spawn()
        await started.wait()
    assert told == [True] * 3
    assert (await handle.load()).status == "completed", "leaving the block waits for it"


async def test_g15_keyed_and_resident_jobs_join_a_transaction_and_a_live_one_keeps_its_config(
    jobs: Jobs, dsn: str
) -> None:
    seen: list[int] = []

    @jobs.resident
    async def sweep(every: int) -> Reschedule:
        seen.append(every)
        return Reschedule.after(HOUR)

    @jobs.job(key="{account}")
    async def sync(account: str, full: bool = False) -> bool:
        return full

    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await sweep.options(conn=conn).spawn(1)
        await sync.options(conn=conn).spawn("ada")
        await conn.rollback()
        assert count(dsn, "jobs") == 0
        resident = await sweep.options(conn=conn).spawn(2)
        keyed = await sync.options(conn=conn).spawn("ada", full=True)
    assert not (await sweep.spawn(3)).created
    assert (await sync.spawn("ada")).id == keyed.id
    async with jobs.worker():
        assert await keyed.result(timeout=SOON) is True
        await until(lambda: seen)
        with pytest.raises(JobNotFinished):
            await resident.wait(timeout=timedelta(milliseconds=10))
    assert seen == [2]


async def test_g16_what_is_not_due_is_not_overdue(jobs: Jobs, dsn: str) -> None:
    """And nothing is counted that nobody asked for: it is `piecework status` that looks."""

    @jobs.job
    async def later() -> None: ...

    @jobs.job(queue="slow")
    async def due() -> None: ...

    await later.options(delay=HOUR).spawn()
    await due.spawn()
    arguments = ["status", "--json", "--database-url", dsn]
    shown = await asyncio.to_thread(CliRunner().invoke, main.command, arguments)
    waits = {queue["queue"]: queue["oldest_due"] is not None for queue in json.loads(shown.output)["queues"]}
    assert waits == {"default": False, "slow": True}


async def test_g18_whatever_has_a_key_is_found_by_it_and_nothing_else_is(jobs: Jobs) -> None:
    """The crate has two kinds of keys in one column. Here is one kind."""

    @jobs.job
    async def sync(account: str) -> None: ...

    by_key = await sync.options(key="ada").spawn("ada")
    await sync.options(concurrency_key="ada").spawn("ada")
    await sync.spawn("ada")
    assert [each.id for each in await sync.keyed_handles()] == [by_key.id]


@pytest.mark.parametrize("by", ["psycopg", "the function alone"])
async def test_g21_a_spawn_in_a_transaction_of_the_callers_wakes_a_worker_that_sleeps(
    jobs: Jobs, dsn: str, by: str
) -> None:
    @jobs.job
    async def work() -> None: ...

    async with jobs.worker(SELDOM):
        await until(lambda: count(dsn, "idle_workers") == 1)
        await asyncio.sleep(1.5)  # it looks a few times more before it sleeps
        with psycopg.connect(dsn) as conn:
            if by == "psycopg":
                id = work.options(conn=conn).spawn_sync().id
            else:
                row = conn.execute('SELECT * FROM piecework.spawn(\'{"job_type": "work"}\')').fetchone()
                assert row is not None
                id = row[0]
        await until(lambda: count(dsn, "finished_jobs WHERE id = %s", id), within=15)


@pytest.mark.parametrize("ends", ["completes", "fails", "is rescheduled", "is cancelled", "cannot be read"])
async def test_g22_capacity_that_comes_back_starts_what_waits_for_it(jobs: Jobs, dsn: str, ends: str) -> None:
    """However the job before it ended, and though no other hint comes. A look after two seconds would find them too: so
    there are more of them than such looks in the time they have."""
    gate, started = asyncio.Event(), asyncio.Event()

    @jobs.job(max_concurrent_per_process=1, retry=ONCE)
    async def first(number: int) -> Reschedule | None:
        started.set()
        await gate.wait()
        if ends == "fails":
            raise LookupError
        return Reschedule.after(HOUR) if ends == "is rescheduled" else None

    @jobs.job
    async def second() -> str:
        return "ran"

    if ends == "cannot be read":
        handle = await first.spawn(1)
        query(dsn, "UPDATE piecework.jobs SET config = '{}'")
    async with jobs.worker(ONE_AT_A_TIME):
        if ends != "cannot be read":
            handle = await first.spawn(1)
            await started.wait()
        waits = await jobs.spawn_all(second.spec() for _ in range(15))
        if ends == "is cancelled":
            await handle.cancel()
        gate.set()
        assert await waits.results(timeout=timedelta(seconds=15)) == ["ran"] * 15
