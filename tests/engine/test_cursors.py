"""Lanes whose front is full of what is gone: a worker claims on, misses nothing for long, and returns to the start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest
from engine.helpers import SOON, until

from piecework import Jobs, WorkerSettings
from piecework.model import cursors
from piecework.store import claiming
from support.horizon import a_session
from support.private_postgres import PrivatePostgres

FEW = WorkerSettings(concurrency=20, prefetch=0)
A_MINUTE_AGO = timedelta(minutes=-1)


@pytest.fixture
def soon_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few entries are many."""
    monkeypatch.setattr(cursors, "SLOW", 400)
    monkeypatch.setattr(cursors, "CHEAP", 100)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[cursors.Place | None]:
    """Where claims started."""
    seen: list[cursors.Place | None] = []
    claim = claiming.claim

    async def noted(*args: object) -> claiming.Claimed:
        seen.append(args[4])  # type: ignore[arg-type]
        return await claim(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(claiming, "claim", noted)
    return seen


@pytest.fixture
def own_dsn(private_postgres: Callable[..., PrivatePostgres]) -> str:
    """On a server of the test's own: nobody else holds its horizon, and what is gone goes when the test says so."""
    return private_postgres(autovacuum="off").dsn


async def test_a_worker_claims_from_a_cursor_while_a_snapshot_is_open_and_from_the_start_again_after_it(
    own_dsn: str, soon_slow: None, starts: list[cursors.Place | None]
) -> None:
    ran: list[int] = []
    jobs = Jobs(own_dsn)

    @jobs.job
    async def work(number: int) -> None:
        await asyncio.sleep(0.005)
        ran.append(number)

    async with jobs, jobs._make_worker(FEW) as worker:
        lanes, costs = worker._claimer._cursors.of, worker._claimer.costs
        with a_session(own_dsn):
            await jobs.spawn_all([work.spec(n) for n in range(1_500)])
            await until(lambda: lanes)
            # Behind the cursor, while there is a backlog before it.
            late = await work.options(delay=A_MINUTE_AGO).spawn(-1)
            await late.result(timeout=SOON)
            backlog = 1_501 - len(ran)
            await until(lambda: len(ran) == 1_501)
            assert backlog > 0, "it waited for all others"
            await until(lambda: [lane.job_type for lane in costs.slow_lanes] == [work.job_type])
            assert any(starts)
            # And while the worker sleeps.
            await until(lambda: worker._claimer._idleness.calm)
            late = await work.options(delay=A_MINUTE_AGO).spawn(-2)
            await late.result(timeout=SOON)
            assert lanes
        with psycopg.connect(own_dsn, autocommit=True) as connection:
            connection.execute("VACUUM piecework.jobs")
        await asyncio.sleep(cursors.OFTEN)
        starts.clear()
        for number in range(1_501, 1_504):
            await (await work.spawn(number)).result(timeout=SOON)
        await until(lambda: not lanes)
        await until(lambda: not costs.slow_lanes)
    assert sorted(ran) == [-2, -1, *range(1_500), *range(1_501, 1_504)]


async def test_of_two_lanes_that_are_claimed_together_only_the_slow_one_has_a_cursor(
    own_dsn: str, soon_slow: None, starts: list[cursors.Place | None]
) -> None:
    jobs, ran = Jobs(own_dsn), 0

    @jobs.job
    async def many(number: int) -> None:
        nonlocal ran
        ran += 1

    @jobs.job
    async def few(number: int) -> None:
        nonlocal ran
        ran += 1

    async with jobs:
        with a_session(own_dsn):
            await jobs.spawn_all([many.spec(n) for n in range(1_000)])
            await jobs.spawn_all([few.spec(n) for n in range(60)])
            async with jobs._make_worker(FEW) as worker:
                lanes, number = worker._claimer._cursors.of, 1_000
                await until(lambda: ran == 1_060)
                while not lanes:
                    await jobs.spawn_all([work.spec(number := number + 1) for work in (many, few)])
                    await asyncio.sleep(0.05)
                assert [lane.job_type for lane in lanes] == [many.job_type]
                assert worker._claimer._cursors.apart == lanes.keys()
