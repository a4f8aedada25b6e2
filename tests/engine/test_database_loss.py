"""A worker without its database pauses, and goes on when it is back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from engine.app import App, make, settings
from engine.fixtures import Gate
from engine.helpers import SOON, WorkerProcess, count, query, until
from engine.ledger import Ledger

from piecework import CurrentJob, DatabaseUnreachable, Jobs, WorkerSettings
from piecework.store.liveness import Pulse
from support.private_postgres import PrivatePostgres

Postgres = Callable[..., PrivatePostgres]

# What the connections of a worker did last, by the first words of the statement.
ROLES = {
    "claim": "Look for|Claim due|From the commit on|Take a transaction id|This worker needs|What a worker owns",
    "settle": "Settle claims",
    "listen": "^LISTEN",
    "heartbeat": "A sign of life|Take one|Make missing|Enter a worker",
}


def sessions(dsn: str, role: str) -> set[object]:
    found = query(dsn, "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query ~ %s"
                       " AND application_name = 'piecework'", ROLES[role])
    return {row[0] for row in found}


async def test_running_jobs_go_on_without_the_database_and_their_ends_land_when_it_is_back(
    private_postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    server, release, release_thread = private_postgres(), asyncio.Event(), threading.Event()
    ended: list[str] = []
    async with Jobs(server.dsn) as jobs:

        @jobs.job
        async def waits(job: CurrentJob) -> int:
            await release.wait()
            ended.append("async")
            return job.attempt

        @jobs.job
        def waits_in_thread(job: CurrentJob) -> int:
            release_thread.wait()
            ended.append("thread")
            return job.attempt

        async with jobs.worker(settings(lease=1.5)):
            handles = await jobs.spawn_all([waits.spec(), waits_in_thread.spec()])
            await until(lambda: count(server.dsn, "jobs WHERE worker_id IS NOT NULL") == 2)
            await asyncio.to_thread(server.stop)
            release.set()
            release_thread.set()
            await until(lambda: sorted(ended) == ["async", "thread"])
            await asyncio.sleep(2)  # longer than the lease
            await asyncio.to_thread(server.start)
            assert await handles.results(timeout=SOON) == [1, 1]
            await until(lambda: "is back" in caplog.text)
    assert sorted(ended) == ["async", "thread"]
    assert count(server.dsn, "attempts") == 0
    said = [record.getMessage() for record in caplog.records if record.name == "piecework.worker"]
    assert len([line for line in said if "the database is lost" in line]) == 1, said
    assert len([line for line in said if "is back" in line]) == 1, said


async def test_jobs_spawned_after_the_database_came_back_run_and_each_outage_is_reported_once(
    private_postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    server = private_postgres()
    async with Jobs(server.dsn) as jobs:

        @jobs.job
        async def hello() -> str:
            return "hello"

        async with jobs.worker(WorkerSettings(look_every=timedelta(hours=1))):
            for restarts in range(3):
                await until(lambda: caplog.text.count("is back") == restarts)  # noqa: B023
                await until(lambda: count(server.dsn, "idle_workers") == 1)
                await until(lambda: sessions(server.dsn, "listen"))
                assert await (await hello.spawn()).result(timeout=SOON) == "hello"
                if restarts < 2:
                    await asyncio.to_thread(server.restart)
    said = [record.getMessage() for record in caplog.records if record.name == "piecework.worker"]
    assert [("lost" in line, "back" in line) for line in said] == [(True, False), (False, True)] * 2, said


@pytest.mark.parametrize("role", ROLES)
async def test_a_terminated_session_of_a_worker_is_made_anew_and_nothing_is_lost(
    jobs: Jobs, dsn: str, role: str
) -> None:
    runs: Counter[str] = Counter()

    @jobs.job
    async def work(job: CurrentJob) -> None:
        runs[str(job.id)] += 1
        await asyncio.sleep(0.001)

    async with jobs.worker(settings(lease=1.5, concurrency=20)):
        for _ in range(5):
            handles = await jobs.spawn_all(work.spec() for _ in range(200))
            await until(lambda: sessions(dsn, role))
            killed = sessions(dsn, role)
            for pid in killed:
                query(dsn, "SELECT pg_terminate_backend(%s)", pid)
            await handles.results(timeout=SOON)
            await until(lambda: sessions(dsn, role) - killed)  # noqa: B023
    assert len(runs) == 1000
    assert set(runs.values()) == {1}
    assert count(dsn, "attempts WHERE move <> 'release'") == 0


async def test_a_beat_that_failed_is_repeated_long_before_the_next_one_is_due(
    jobs: Jobs, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat, tried = Pulse.beat, threading.Event()
    tries: list[float] = []

    def fails_at_first(pulse: Pulse, *args: Any, **more: Any) -> object:
        tries.append(time.monotonic())
        if len(tries) == 1:
            raise DatabaseUnreachable("just once")
        tried.set()
        return beat(pulse, *args, **more)

    monkeypatch.setattr(Pulse, "beat", fails_at_first)
    timings = settings(lease=7.2)
    async with jobs.worker(timings):
        await until(tried.is_set)
    assert tries[1] - tries[0] < timings.liveness.beat.total_seconds() / 2


async def test_after_an_outage_longer_than_their_lease_no_worker_is_given_up_for_dead(
    private_postgres: Postgres, workers: Callable[..., WorkerProcess], ledger: Ledger, gate: Gate
) -> None:
    server = private_postgres()
    app: App = make(server.dsn, ledger)
    async with app.jobs:
        processes = [workers(server.dsn, lease=1.5, concurrency=10) for _ in range(3)]
        handles = await app.jobs.spawn_all(app.waits.spec(str(gate)) for _ in range(30))
        await until(lambda: len(ledger.runs()) == 30)
        await until(lambda: count(server.dsn, "workers WHERE beat_no >= 3") == 3)  # each has seen the others beat
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(3)
        await asyncio.to_thread(server.start)
        least = query(server.dsn, "SELECT max(beat_no) + 8 FROM piecework.workers")[0]  # the lease is some four beats
        await until(lambda: count(server.dsn, "workers WHERE beat_no >= %s", *least) == 3)
        gate.open()
        await handles.results(timeout=SOON)
    assert ledger.overlaps() == []
    assert count(server.dsn, "attempts WHERE move <> 'release'") == 0, "a run that its worker stopped cost no attempt"
    assert count(server.dsn, "finished_jobs WHERE attempt = 1 AND failures = 0 AND crashes = 0") == 30
    assert not [process for process in processes if "given up for dead" in process.log]
