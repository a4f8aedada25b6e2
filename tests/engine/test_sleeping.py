"""Idle workers sleep, and nothing that comes is missed (invariant F)."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, NamedTuple

import psycopg
import pytest
from engine.app import App, settings
from engine.helpers import SOON, WorkerProcess, count, query, until

from piecework import DatabaseUnreachable, JobFunction, Jobs, WorkerSettings
from piecework.base.ids import new_id
from piecework.engine.idleness import Idleness
from piecework.engine.worker import Worker
from piecework.store import claiming

NEVER = WorkerSettings(look_every=timedelta(hours=1))
"""Nothing but the protocol lets a sleeper find a job."""
SOME_SECONDS = 10.0
"""An hour on a worker that misses a job, less than a second on one that does not, and more on a busy machine."""


class Call(NamedTuple):
    """A worker asked the database for work."""

    what: str
    worker: str
    at: float


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """All claims and looks."""
    seen: list[Call] = []
    for what in ("claim", "look"):
        original: Callable[..., Awaitable[object]] = getattr(claiming, what)

        async def noted(link: object, worker: str, *rest: Any, _what: str = what, _original: Any = original) -> object:
            seen.append(Call(_what, worker, time.monotonic()))
            return await _original(link, worker, *rest)

        monkeypatch.setattr(claiming, what, noted)
    return seen


@pytest.fixture
def ran(jobs: Jobs) -> dict[str, float]:
    """When each job of the type `work` began to run."""
    return {}


@pytest.fixture
def work(jobs: Jobs, ran: dict[str, float]) -> JobFunction:
    @jobs.job
    async def work(number: int) -> None:
        ran[str(number)] = time.monotonic()

    return work


async def calm(*workers: Worker) -> None:
    await until(lambda: all(worker._claimer._idleness.calm for worker in workers))


def spawn_in(user: psycopg.Connection, number: int) -> None:
    """Spawn in a transaction that stays open."""
    job = {"id": str(new_id()), "job_type": "work", "config": {"number": number}}
    user.execute("SELECT piecework.spawn_1(%s)", [json.dumps([job])])


# the horizon


async def missed_spawns(
    dsn: str, workers: Sequence[Worker], ran: dict[str, float], tries: int, at_once: int, longest: float
) -> list[float]:
    """Spawn while the workers go to sleep, some at once; returns how long after the commits the jobs ran.

    Few at once: where one spawn sends a hint, those that missed the declaration and ended before it are found with it.
    """
    committed: dict[str, float] = {}

    async def one(number: int) -> None:
        async with await psycopg.AsyncConnection.connect(dsn) as user:
            await asyncio.sleep(random.uniform(0, 0.03))
            job = {"id": str(new_id()), "job_type": "work", "config": {"number": number}}
            await user.execute("SELECT piecework.spawn_1(%s)", [json.dumps([job])])
            await asyncio.sleep(random.uniform(0, longest))
            await user.commit()
            committed[str(number)] = time.monotonic()

    for first in range(0, tries, at_once):
        await calm(*workers)
        query(dsn, "DELETE FROM piecework.idle_workers")
        spawning = [asyncio.create_task(one(number)) for number in range(first, first + at_once)]
        for worker in workers:
            await asyncio.sleep(random.uniform(0, 0.03))
            worker._claimer.become(worker.worker_id)  # as at its start: it looks, and declares itself idle anew
        await asyncio.gather(*spawning)
        await until(lambda: len(ran) == first + at_once)  # noqa: B023
    return [ran[number] - at for number, at in committed.items()]


async def test_a_spawn_that_is_open_while_the_workers_go_to_sleep_runs_soon_after_its_commit(
    jobs: Jobs, dsn: str, work: JobFunction, ran: dict[str, float]
) -> None:
    async with jobs._make_worker(NEVER) as one, jobs._make_worker(NEVER) as other:
        late = await missed_spawns(dsn, [one, other], ran, tries=60, at_once=3, longest=0.4)
    assert len(late) == 60
    assert max(late) < SOME_SECONDS


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_200_spawns_that_are_open_for_up_to_five_seconds_run_within_a_second_of_their_commit(
    jobs: Jobs, dsn: str, work: JobFunction, ran: dict[str, float]
) -> None:
    async with jobs._make_worker(NEVER) as one, jobs._make_worker(NEVER) as other:
        late = await missed_spawns(dsn, [one, other], ran, tries=200, at_once=4, longest=5.0)
    assert len(late) == 200
    assert max(late) < 1.0


@pytest.mark.parametrize("horizon", [True, False], ids=["horizon", "no-horizon"])
async def test_without_the_horizon_a_spawn_that_missed_the_declaration_is_not_found(
    jobs: Jobs, dsn: str, work: JobFunction, ran: dict[str, float], monkeypatch: pytest.MonkeyPatch, horizon: bool
) -> None:
    """The test of the tests before this one."""
    if not horizon:
        looked = Idleness.looked
        monkeypatch.setattr(Idleness, "looked", lambda self, xmin: looked(self, 2**62))
    with psycopg.connect(dsn) as user:
        spawn_in(user, 1)
        async with jobs._make_worker(NEVER) as worker:
            await until(lambda: count(dsn, "idle_workers") == 1)
            idleness = worker._claimer._idleness
            await until(lambda: idleness.listening and idleness.declared)
            await asyncio.sleep(0.3)
            assert idleness.calm != horizon
            user.commit()
            await asyncio.sleep(1.0)
            assert len(ran) == int(horizon)
            worker._claimer.look_now()
            await until(lambda: ran)


async def test_an_open_spawn_delays_no_other_spawn_claim_or_settle(
    jobs: Jobs, dsn: str, work: JobFunction, ran: dict[str, float], calls: list[Call]
) -> None:
    with psycopg.connect(dsn) as user:
        spawn_in(user, -1)
        async with jobs._make_worker(NEVER) as worker:
            await until(lambda: worker._claimer._idleness.declared and worker._claimer._idleness.listening)
            took: list[float] = []
            for number in range(20):
                start = time.monotonic()
                await (await work.spawn(number)).result(timeout=SOON)
                took.append(time.monotonic() - start)
            assert max(took) < SOME_SECONDS
            calls.clear()
            start = time.monotonic()
            await asyncio.sleep(2.0)
            assert len(calls) <= 4 * (time.monotonic() - start) + 2, "it looks every half second"
            user.commit()
            await until(lambda: "-1" in ran, within=SOME_SECONDS)
            await calm(worker)


# hints


async def test_a_spawn_wakes_one_of_five_idle_workers_and_the_others_look_later(
    jobs: Jobs, dsn: str, work: JobFunction, ran: dict[str, float], calls: list[Call]
) -> None:
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(jobs._make_worker(NEVER)) for _ in range(5)]
        await calm(*workers)
        for number in range(5):
            await asyncio.sleep(0.5)  # all looks that follow the job before this one are over
            calls.clear()
            start = time.monotonic()
            await work.spawn(number)
            await until(lambda: str(number) in ran)  # noqa: B023
            await asyncio.sleep(0.5)
            [target] = {call.worker for call in calls if call.what == "claim"}
            others = [call for call in calls if call.worker != target]
            assert sorted(call.worker for call in others) == sorted({w.worker_id for w in workers} - {target})
            assert min(call.at for call in others) - start > 0.09
            assert len(calls) <= 4 + 3


async def test_a_worker_that_others_are_hinted_at_in_masses_looks_a_few_times_a_second(
    jobs: Jobs, dsn: str, work: JobFunction, calls: list[Call]
) -> None:
    async with jobs._make_worker(NEVER) as worker:
        await calm(worker)
        calls.clear()
        channel = jobs._service.store.statements.channel
        for _ in range(100):
            query(dsn, "SELECT pg_notify(%s, %s)", channel, '["default", "work", 0, ["another"]]')
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.7)
        assert {call.what for call in calls} == {"look"}
        assert 3 <= len(calls) <= 30


async def test_a_job_whose_hint_went_to_a_worker_that_is_dead_runs_soon(
    app: App, dsn: str, workers: Callable[..., WorkerProcess]
) -> None:
    dead = [workers(default_liveness=True) for _ in range(2)]
    await until(lambda: count(dsn, "idle_workers") == 2)
    for process in dead:
        process.kill()
    async with app.jobs._make_worker(NEVER) as alive:
        await calm(alive)
        for _ in range(10):
            start = time.monotonic()
            await (await app.note.spawn()).result(timeout=SOON)
            assert time.monotonic() - start < SOME_SECONDS
    assert count(dsn, "idle_workers") == 2, "nobody has struck them off yet"


async def test_a_worker_that_cannot_listen_looks_every_half_second_until_it_can_again(
    jobs: Jobs, dsn: str, work: JobFunction, ran: dict[str, float], calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with jobs._make_worker(NEVER) as worker:
        await calm(worker)
        with monkeypatch.context() as broken:
            broken.setattr("piecework.engine.listener.hints", refuses)
            query(dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ '^LISTEN'")
            await until(lambda: not worker._claimer._idleness.listening)
            for number in range(3):
                committed = time.monotonic()
                query(dsn, "INSERT INTO piecework.jobs (id, job_type, config) VALUES (%s, 'work', %s)",
                      str(new_id()), json.dumps({"number": number}))  # fmt: skip
                await until(lambda: str(number) in ran)  # noqa: B023
                assert ran[str(number)] - committed < SOME_SECONDS
            await asyncio.sleep(1.0)
            calls.clear()
            start = time.monotonic()
            await asyncio.sleep(3.0)
            assert 1 <= len(calls) <= 2 * (time.monotonic() - start) + 2
        await calm(worker)
        await asyncio.sleep(0.1)
        calls.clear()
        await asyncio.sleep(1.5)
        assert calls == []


async def test_a_job_that_nobody_hinted_at_is_found_by_the_look_of_a_calm_worker(
    jobs: Jobs, dsn: str, work: JobFunction, ran: dict[str, float]
) -> None:
    async with jobs._make_worker(WorkerSettings(look_every=timedelta(seconds=1))) as worker:
        await calm(worker)
        query(dsn, "INSERT INTO piecework.jobs (id, job_type, config) VALUES (%s, 'work', %s)",
              str(new_id()), json.dumps({"number": 1}))  # fmt: skip
        await until(lambda: ran)


async def refuses(*args: object) -> Any:
    raise DatabaseUnreachable("no LISTEN today")
    yield


# what else wakes a sleeper


async def test_a_job_type_that_is_registered_while_the_worker_sleeps_is_claimed(jobs: Jobs, dsn: str) -> None:
    async with jobs._make_worker(NEVER) as worker:
        await calm(worker)

        @jobs.job
        async def late() -> str:
            return "not too late"

        start = time.monotonic()
        assert await (await late.spawn()).result(timeout=SOON) == "not too late"
        assert time.monotonic() - start < SOME_SECONDS
        await calm(worker)


async def test_a_due_job_that_an_open_transaction_holds_is_tried_a_few_times_a_second(
    jobs: Jobs, dsn: str, work: JobFunction, ran: dict[str, float], calls: list[Call]
) -> None:
    handle = await work.spawn(1)
    with psycopg.connect(dsn) as stranger:
        stranger.execute("SELECT FROM piecework.jobs WHERE id = %s FOR UPDATE", [handle.id])
        async with jobs._make_worker(NEVER):
            await asyncio.sleep(1.5)
            calls.clear()
            start = time.monotonic()
            await asyncio.sleep(2.0)
            assert len(calls) <= 6 * (time.monotonic() - start) + 2
            stranger.rollback()
            await until(lambda: ran, within=SOME_SECONDS)


async def test_a_worker_that_was_flagged_idle_when_its_connection_broke_is_not_flagged_while_it_is_busy(
    jobs: Jobs, dsn: str, work: JobFunction, ran: dict[str, float]
) -> None:
    async with jobs._make_worker(settings(concurrency=1, prefetch=0)) as worker:
        await calm(worker)
        worker._claimer._idleness.revoke()  # as after an error of the database
        await work.spawn(1)
        await until(lambda: ran)
        assert count(dsn, "idle_workers") == 0
