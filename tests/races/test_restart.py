"""PostgreSQL is restarted, crashes, or loses sessions under load: nothing is lost, nothing runs or ends twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from embedded.helpers import children, is_gone, postmaster
from embedded.helpers import stop as stop_embedded
from engine.app import settings
from engine.helpers import SOON, count, query, until

from piecework import CurrentJob, JobFunction, Jobs
from piecework.store.embedded import remove
from support.private_postgres import PrivatePostgres

IN_FLIGHT = 5000
MORE = 1000


class Load:
    """Jobs that begin, wait until `go` is set, and end within a second; and how often each did."""

    def __init__(self, jobs: Jobs) -> None:
        self.go = asyncio.Event()
        self.begun: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()

        @jobs.job
        async def work(job: CurrentJob) -> None:
            self.begun[str(job.id)] += 1
            await self.go.wait()
            await asyncio.sleep(random.random())
            self.ended[str(job.id)] += 1

        self.work: JobFunction[[], None, [CurrentJob], object] = work


def crash(server: PrivatePostgres) -> None:
    """Kill the postmaster and start it again, once its sessions have noticed."""
    sessions = children(server.pid)
    server.stop(signal.SIGKILL)
    while not all(is_gone(session) for session in sessions):
        pass
    server.start()


@pytest.mark.parametrize("restart", [PrivatePostgres.restart, crash], ids=["SIGINT", "SIGKILL"])
async def test_a_restart_with_5000_jobs_in_flight_loses_and_doubles_nothing(
    private_postgres: Callable[..., PrivatePostgres],
    caplog: pytest.LogCaptureFixture,
    restart: Callable[[PrivatePostgres], None],
) -> None:
    server = private_postgres()
    async with Jobs(server.dsn) as jobs:
        load = Load(jobs)
        handles = await jobs.spawn_all(load.work.spec() for _ in range(IN_FLIGHT + MORE))
        async with jobs.worker(settings(concurrency=IN_FLIGHT)):
            await until(lambda: len(load.begun) == IN_FLIGHT)
            load.go.set()
            await until(lambda: len(load.ended) > IN_FLIGHT // 10)
            await asyncio.to_thread(restart, server)
            await handles.results(timeout=SOON)
            await until(lambda: "is back" in caplog.text)
    ids = {str(handle.id) for handle in handles}
    assert load.begun == dict.fromkeys(ids, 1)
    assert load.ended == load.begun
    assert count(server.dsn, "jobs") == 0
    assert query(server.dsn, "SELECT status, attempt, count(*), count(DISTINCT id) FROM piecework.finished_jobs"
                             " GROUP BY 1, 2") == [("completed", 1, len(ids), len(ids))]
    assert count(server.dsn, "attempts WHERE move <> 'release'") == 0
    said = [record.getMessage() for record in caplog.records if record.name == "piecework.worker"]
    assert len([line for line in said if "the database is lost" in line]) == 1, said
    assert len([line for line in said if "is back" in line]) == 1, said


async def test_an_embedded_server_whose_postmaster_is_killed_comes_back_by_itself_under_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("PIECEWORK_HOME", str(home))
    try:
        async with Jobs() as jobs:
            load = Load(jobs)
            async with jobs.worker(settings(concurrency=500)):
                handles = await jobs.spawn_all(load.work.spec() for _ in range(1000))
                await until(lambda: len(load.begun) == 500)
                load.go.set()
                os.kill(postmaster(home), signal.SIGKILL)
                await handles.results(timeout=SOON)
        assert load.begun == {str(handle.id): 1 for handle in handles}
        assert load.ended == load.begun
    finally:
        stop_embedded(home)
        remove(home)
