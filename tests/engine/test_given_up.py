"""A worker that others gave up for dead, and that lives: it runs nothing twice, and goes on under a new id."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import pytest
from engine.app import settings
from engine.helpers import SOON, count, moves, query, until, value
from engine.ledger import Ledger

from piecework import CurrentJob, Jobs
from piecework.base.surroundings import Surroundings
from piecework.engine import claimer, reports
from piecework.engine.watchdog import Watchdog
from piecework.model.cursors import Place
from piecework.model.lanes import Lane
from piecework.store import claiming
from piecework.store.claiming import WorkerGone
from piecework.store.link import Link
from piecework.store.statements import Statements


def give_up(dsn: str) -> UUID:
    """Do what an observer does to the one worker when it hears nothing of it; returns its id."""
    [(id,)] = query(dsn, "SELECT id FROM piecework.workers")
    answer = "SELECT piecework.rescue_1(id, beat_no, lease) FROM piecework.workers"
    while count(dsn, "workers WHERE id = %s", id):
        query(dsn, answer)  # again if it has just beaten
    return UUID(str(id))


@pytest.mark.postgres(18, 15)
async def test_it_stops_async_jobs_and_runs_them_again_under_its_new_id(jobs: Jobs, dsn: str, ledger: Ledger) -> None:
    @jobs.job
    async def hangs_at_first(job: CurrentJob) -> int:
        with ledger.run_of(job):
            if job.attempt == 1:
                await asyncio.Event().wait()
            return job.attempt

    async with jobs.worker(settings(lease=1.5)):
        handles = await jobs.spawn_all(hangs_at_first.spec() for _ in range(20))
        await until(lambda: len(ledger.runs()) == 20)
        old = give_up(dsn)
        assert await handles.results(timeout=SOON) == [2] * 20
        [(new,)] = query(dsn, "SELECT id FROM piecework.workers")
    assert new != old
    assert ledger.overlaps() == []
    assert query(dsn, "SELECT DISTINCT worker_id, claim_no FROM piecework.finished_jobs") == [(new, 2)]


async def test_it_does_not_run_a_job_beside_its_earlier_run_that_cannot_be_stopped(
    jobs: Jobs, dsn: str, ledger: Ledger
) -> None:
    release = threading.Event()

    @jobs.job
    def waits(job: CurrentJob) -> int:
        with ledger.run_of(job):
            if job.attempt == 1:
                release.wait()
            return job.attempt

    async with jobs.worker(settings(lease=1.5)):
        handle = await waits.spawn()
        await until(ledger.runs)
        give_up(dsn)
        await until(lambda: moves(dsn, handle.id) == ["rescue", "release"])
        release.set()
        assert await handle.result(timeout=SOON) == 2
    assert ledger.overlaps() == []
    assert len(ledger.runs()) == 2


async def test_it_runs_what_it_had_prefetched_once(jobs: Jobs, dsn: str, ledger: Ledger) -> None:
    again, over = asyncio.Event(), asyncio.Event()

    @jobs.job
    async def quick() -> None: ...

    @jobs.job
    async def slow(job: CurrentJob, is_last: bool) -> None:
        with ledger.run_of(job):
            await (over if is_last else again).wait()

    async with jobs.worker(settings(lease=1.5, concurrency=5)):
        await (await jobs.spawn_all(quick.spec() for _ in range(100))).wait(timeout=SOON)
        handles = await jobs.spawn_all(slow.spec(n == 9) for n in range(10))
        await until(lambda: count(dsn, "jobs WHERE worker_id IS NOT NULL") == 10)
        old = give_up(dsn)
        await until(lambda: count(dsn, "jobs WHERE worker_id <> %s", old) >= 5)
        again.set()
        await handles[:9].results(timeout=SOON)  # the last one, of those prefetched, runs on
        await (await quick.spawn()).result(timeout=SOON)
        over.set()
        await handles[9].result(timeout=SOON)
    assert ledger.overlaps() == []
    assert Counter(len(runs) for runs in ledger.runs_by_job().values()) == {1: 5, 2: 5}


async def test_when_its_lease_is_over_it_begins_none_of_what_it_had_prefetched(
    jobs: Jobs, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog's word is still in the queue of a loop that hung."""
    monkeypatch.setattr(claimer, "_STALE", 60.0)  # else they may have gone back for their age before
    gate, begun = asyncio.Event(), list[int]()

    @jobs.job
    async def quick() -> None: ...

    @jobs.job
    async def slow(number: int) -> None:
        begun.append(number)
        await gate.wait()

    async with jobs._make_worker(settings(concurrency=2)) as worker:
        await (await jobs.spawn_all(quick.spec() for _ in range(100))).wait(timeout=SOON)
        handles = await jobs.spawn_all(slow.spec(number) for number in range(4))
        await until(lambda: len(worker._executor.capacity.waiting) == 2 and len(begun) == 2)
        with monkeypatch.context() as late:
            late.setattr(Watchdog, "over", True)
            gate.set()
            await until(lambda: count(dsn, "attempts WHERE move = 'release'") >= 2)
            assert len(begun) == 2
        await handles.results(timeout=SOON)


async def test_what_it_claims_when_its_lease_is_over_it_hands_back_once_that_is_renewed(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a plain function goes on, of which nothing is to be seen in the database."""
    claim, gate, runs, late = claiming.claim, threading.Event(), threading.Event(), list[int]()

    async def claim_late(
        link: Link, worker_id: str, allotment: Sequence[tuple[Lane, int]], most: int, after: Place | None = None
    ) -> claiming.Claimed:
        claimed = await claim(link, worker_id, allotment, most, after)
        if runs.is_set() and claimed.jobs and not late:
            late.append(len(claimed.jobs))
            worker._lease_over()
        return claimed

    monkeypatch.setattr("piecework.store.claiming.claim", claim_late)

    @jobs.job
    def waits() -> None:
        runs.set()
        gate.wait()

    @jobs.job
    async def hello() -> str:
        return "alive"

    async with jobs._make_worker(settings(lease=1.5)) as worker:
        first = await waits.spawn()
        await asyncio.to_thread(runs.wait)
        assert await (await hello.spawn()).result(timeout=timedelta(seconds=20)) == "alive", "not by the next audit"
        assert late == [1]
        gate.set()
        await first.result(timeout=SOON)


async def test_its_process_ends_in_time_though_whoever_reads_its_log_hangs(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts, gate, ended, reader = asyncio.Event(), asyncio.Event(), threading.Event(), threading.Event()

    class Machine(Surroundings):
        def end_process(self, code: int) -> None:
            ended.set()

    def hang(worker_id: str, running: Sequence[object], *, ends: bool) -> None:
        assert ends
        reader.wait()

    monkeypatch.setattr(reports, "not_stopped", hang)
    monkeypatch.setattr("logging.shutdown", lambda: None)

    @jobs.job
    async def goes_on() -> None:
        starts.set()
        await gate.wait()

    async with jobs._make_worker(settings(lease=1.5)) as worker:
        handle = await goes_on.spawn()
        await starts.wait()
        worker._owns_process, worker._surroundings = True, Machine()
        watchdog = threading.Thread(target=worker._end_what_runs)
        watchdog.start()
        assert await asyncio.to_thread(ended.wait, 20)
        reader.set()
        await asyncio.to_thread(watchdog.join)
        worker._owns_process = False
        gate.set()
        await handle.result(timeout=SOON)


async def test_its_capacity_comes_back(jobs: Jobs, dsn: str) -> None:
    entered: list[int] = []

    @jobs.job
    async def hangs_at_first(job: CurrentJob) -> None:
        if job.attempt == 1:
            await asyncio.Event().wait()

    @jobs.job
    async def meets(number: int) -> None:
        entered.append(number)
        while len(entered) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    async with jobs.worker(settings(lease=1.5, concurrency=5)):
        handles = await jobs.spawn_all(hangs_at_first.spec() for _ in range(5))
        await until(lambda: count(dsn, "jobs WHERE worker_id IS NOT NULL") == 5)
        give_up(dsn)
        await handles.results(timeout=SOON)
        await (await jobs.spawn_all(meets.spec(n) for n in range(5))).results(timeout=SOON)


@pytest.mark.parametrize("first", ["claim", "heartbeat"])
async def test_it_claims_again_whoever_of_claim_and_heartbeat_finds_out_first(
    jobs: Jobs, dsn: str, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    claim, refused = claiming.claim, asyncio.Event()

    async def claim_late(
        link: Link, worker_id: str, allotment: Sequence[tuple[Lane, int]], most: int, after: Place | None = None
    ) -> claiming.Claimed:
        try:
            return await claim(link, worker_id, allotment, most, after)
        except WorkerGone:
            refused.set()
            if first == "heartbeat":
                worker._beat_now()
                await until(lambda: value(dsn, "SELECT count(*) FROM piecework.workers") == 1)
                await asyncio.sleep(0.01)  # for the heartbeat's thread to tell the loop
            raise

    monkeypatch.setattr("piecework.store.claiming.claim", claim_late)

    @jobs.job
    async def hello() -> str:
        return "alive"

    async with jobs._make_worker(settings(lease=18.0)) as worker:
        await until(lambda: count(dsn, "idle_workers") == 1)
        give_up(dsn)
        handle = await hello.spawn()
        query(dsn, "SELECT pg_notify(%s, %s)", Statements("piecework").channel, f'["default", "{hello.job_type}", 0]')
        assert await handle.result(timeout=SOON) == "alive"
    assert refused.is_set()
