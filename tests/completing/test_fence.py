"""Whoever was given up for dead commits nothing (G1), also if it takes no notice of the errors that say so."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from completing import app
from completing.effects import PAY, Effects
from engine.helpers import SOON, count, until, value
from joining.flavours import engine_settings

from piecework import ClaimLost, CurrentJob, Jobs
from piecework.store import refusals

Warnings = Callable[[], list[str]]


@pytest.mark.parametrize("in_thread", [False, True])
async def test_of_two_workers_of_which_the_first_was_given_up_in_its_block_one_has_an_effect(
    jobs: Jobs, effects: Effects, dsn: str, tmp_path: Path, in_thread: bool
) -> None:
    functions = app.define(jobs, tmp_path, "second")
    first = subprocess.Popen([sys.executable, app.__file__, dsn, str(tmp_path)])
    try:
        handle = await functions[in_thread].spawn()
        await until((tmp_path / "arrived").exists)
        first.send_signal(signal.SIGSTOP)
        async with jobs.worker(app.SETTINGS):
            await handle.result(timeout=SOON)
            assert effects.all == ["second"]
            (tmp_path / "go on").touch()
            first.send_signal(signal.SIGCONT)
            await until(lambda: list(tmp_path.glob("first *")))
    finally:
        first.kill()
        first.wait()
    assert [path.name for path in tmp_path.glob("first *")] in (["first ClaimLost"], ["first CancelledError"])
    if in_thread:
        assert (tmp_path / "first ClaimLost").exists(), "nobody stops a thread"
    assert effects.all == ["second"]
    assert effects.moves(handle) == ["rescue"]
    assert effects.guards == 0


def rescue(dsn: str) -> None:
    """Take the job from its worker as a rescue does; the worker goes on unknowing."""
    sql = (
        "WITH lost AS (UPDATE piecework.jobs SET worker_id = NULL, claimed_at = NULL, attempt = attempt + 1, "
        "run_at = clock_timestamp() + interval '1 day' "
        "WHERE ctid = ANY (ARRAY(SELECT ctid FROM piecework.jobs FOR UPDATE)) RETURNING id, claim_no, attempt) "
        "INSERT INTO piecework.attempts (job_id, claim_no, worker_id, attempt, move, ended_at) "
        "SELECT id, claim_no, gen_random_uuid(), attempt, 'rescue', clock_timestamp() FROM lost RETURNING 1"
    )
    value(dsn, sql)


async def test_a_claim_that_is_lost_in_the_block_takes_it_along_and_the_settle_changes_nothing(
    jobs: Jobs, effects: Effects, dsn: str, warnings: Warnings
) -> None:
    errors: list[str] = []

    @jobs.job
    async def pay(job: CurrentJob) -> None:
        try:
            async with job.completing() as conn:
                await conn.execute(PAY)
                rescue(dsn)
        except ClaimLost as error:
            errors.append(str(error))
            raise

    async with jobs.worker():
        handle = await pay.spawn()
        await until(warnings)
    assert f"completing has no effect on job {handle.id}" in errors[0]
    assert "its claim was lost (claim 1)" in errors[0]
    assert (effects.all, effects.guards, effects.moves(handle)) == ([], 0, ["rescue"])
    [said] = warnings()
    assert "its claim 1 was lost" in said


async def test_a_block_of_a_claim_that_is_lost_already_is_not_entered(
    jobs: Jobs, effects: Effects, dsn: str, warnings: Warnings
) -> None:
    entered: list[int] = []

    @jobs.job
    async def pay(job: CurrentJob) -> None:
        rescue(dsn)
        async with job.completing():
            entered.append(1)

    async with jobs.worker():
        await pay.spawn()
        await until(warnings)
    assert entered == []


async def test_a_lost_claim_whose_error_is_swallowed_in_a_savepoint_fails_the_commit_of_the_block(
    jobs: Jobs, effects: Effects, dsn: str, warnings: Warnings
) -> None:
    errors: list[BaseException] = []

    @jobs.job
    async def pay(job: CurrentJob) -> None:
        try:
            async with job.completing() as conn:
                await conn.execute(PAY)
                rescue(dsn)
                try:
                    async with conn.transaction():
                        await job.complete_in(conn)
                except ClaimLost:
                    pass
        except ClaimLost as error:
            errors.append(error)

    async with jobs.worker():
        await pay.spawn()
        await until(warnings)
    assert len(errors) == 1
    assert effects.all == []


@contextmanager
def with_psycopg(dsn: str) -> Iterator[Any]:
    with closing(psycopg.connect(dsn)) as conn, conn:
        yield conn


def with_alchemy(dsn: str) -> Any:
    return sqlalchemy.create_engine(**engine_settings("psycopg2", dsn, autocommit=False)).begin()


LIBRARIES = [with_psycopg, with_alchemy]


def savepoint(conn: Any) -> Any:
    return conn.transaction() if isinstance(conn, psycopg.Connection) else conn.begin_nested()


def pay_on(conn: Any) -> None:
    conn.execute(PAY if isinstance(conn, psycopg.Connection) else sqlalchemy.text(PAY))


class Undone(Exception):
    """Rolls a savepoint back."""


@pytest.mark.parametrize("begin", LIBRARIES)
@pytest.mark.parametrize("swallows", [True, False])
async def test_with_a_guard_a_lost_claim_that_is_swallowed_in_a_savepoint_fails_the_commit(
    jobs: Jobs, effects: Effects, dsn: str, begin: Callable[[str], Any], swallows: bool
) -> None:
    states: list[str] = []

    @jobs.job
    def pay(job: CurrentJob) -> None:
        try:
            with begin(dsn) as conn:
                job.guard_sync(conn)
                pay_on(conn)
                rescue(dsn)
                try:
                    with savepoint(conn):
                        job.complete_in_sync(conn)
                except ClaimLost:
                    if not swallows:
                        raise
        except Exception as error:
            states.append(refusals.state_of(error) or type(error).__name__)

    async with jobs.worker():
        await pay.spawn()
        await until(lambda: states)
    assert states == ["PW001" if swallows else "ClaimLost"]
    assert effects.all == []


@pytest.mark.parametrize("begin", LIBRARIES)
async def test_with_a_guard_a_completion_that_is_rolled_back_to_a_savepoint_fails_the_commit(
    jobs: Jobs, effects: Effects, dsn: str, begin: Callable[[str], Any]
) -> None:
    states: list[str] = []

    @jobs.job
    def pay(job: CurrentJob) -> None:
        try:
            with begin(dsn) as conn:
                job.guard_sync(conn)
                pay_on(conn)
                try:
                    with savepoint(conn):
                        job.complete_in_sync(conn)
                        raise Undone
                except Undone:
                    pass
        except Exception as error:
            states.append(refusals.state_of(error))
            if len(states) < 2:
                raise

    async with jobs.worker():
        handle = await pay.spawn()
        await until(lambda: effects.moves(handle))
    assert states[:1] == ["PW001"]
    assert (effects.all, effects.moves(handle)[:1]) == ([], ["retry"])


async def test_without_a_savepoint_a_lost_claim_that_is_swallowed_fails_the_commit_without_a_guard_too(
    jobs: Jobs, effects: Effects, dsn: str
) -> None:
    states: list[str] = []

    @jobs.job
    def pay(job: CurrentJob) -> None:
        try:
            with with_psycopg(dsn) as conn:
                conn.execute(PAY)
                rescue(dsn)
                try:
                    job.complete_in_sync(conn)
                except ClaimLost:
                    pass
        except psycopg.Error as error:
            states.append(str(error.sqlstate))

    async with jobs.worker():
        await pay.spawn()
        await until(lambda: states)
    assert (states, effects.all) == (["PW001"], [])


async def test_a_completion_that_is_rolled_back_to_a_savepoint_of_the_block_is_made_at_its_end(
    jobs: Jobs, effects: Effects
) -> None:
    @jobs.job
    async def pay(job: CurrentJob) -> None:
        async with job.completing() as conn:
            await conn.execute(PAY)
            try:
                async with conn.transaction():
                    await job.complete_in(conn)
                    raise Undone
            except Undone:
                pass

    async with jobs.worker():
        handle = await pay.spawn()
        await handle.result(timeout=SOON)
    assert effects.all == ["paid"]


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_above_read_committed_a_claim_that_was_lost_is_told_as_that(
    jobs: Jobs, effects: Effects, dsn: str, level: str
) -> None:
    errors: list[str] = []

    @jobs.job
    async def pay(job: CurrentJob) -> None:
        async with await psycopg.AsyncConnection.connect(dsn) as conn:
            await conn.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
            await conn.execute(PAY)
            rescue(dsn)
            for write in (job.save_state(1, conn=conn), job.complete_in(conn)):
                try:
                    async with conn.transaction():
                        await write
                except ClaimLost as error:
                    errors.append(str(error))
            await conn.rollback()

    async with jobs.worker():
        await pay.spawn()
        await until(lambda: len(errors) == 2)
    assert all("the job was taken from this run after its transaction had begun" in error for error in errors)
    assert effects.all == []


async def test_nobody_waits_for_an_open_block_and_a_rescue_goes_through_it(
    jobs: Jobs, effects: Effects, dsn: str
) -> None:
    """Until its very end the block holds no lock that others need."""
    inside, go_on = asyncio.Event(), asyncio.Event()

    @jobs.job
    async def pay(job: CurrentJob) -> None:
        async with job.completing() as conn:
            await conn.execute(PAY)
            await job.progress(0.5)
            inside.set()
            await go_on.wait()

    async with jobs.worker():
        handle = await pay.spawn()
        await inside.wait()
        assert (await handle.load()).status == "running"
        rescue(dsn)
        assert count(dsn, "jobs WHERE worker_id IS NULL") == 1
        go_on.set()
        await until(lambda: effects.open_transactions == 0)
    assert effects.all == []
