"""Everything works behind pgbouncer in transaction mode, with the server's own address to listen at and without."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest
from engine.app import App
from engine.fixtures import Gate
from engine.helpers import SOON, WorkerProcess, count, moves, query, until, value
from engine.ledger import Ledger

from piecework import (
    ConfigurationError,
    CurrentJob,
    JobCancelled,
    Jobs,
    JobSnapshot,
    LivenessSettings,
    RetrySettings,
    WorkerSettings,
    new_id,
)
from support.databases import Server
from support.pgbouncer import Pgbouncer

ONE_AT_A_TIME = 1
QUICK = WorkerSettings(liveness=LivenessSettings.scaled(timedelta(seconds=6)))
OFTEN = RetrySettings(min_backoff=timedelta(milliseconds=1), max_backoff=timedelta(milliseconds=10))


async def test_jobs_run_retry_and_are_waited_for(jobs: Jobs) -> None:
    @jobs.job(retry=OFTEN)
    async def double(job: CurrentJob, number: int) -> int:
        if job.attempt == 1 and number % 10 == 0:
            raise ValueError("not at first")
        return 2 * number

    async with jobs.worker():
        assert await (await double.spawn(21)).result(timeout=SOON) == 42
        handles = await jobs.spawn_all([double.spec(number) for number in range(2_500)])
        outcomes = await handles.wait(timeout=SOON)
        assert len(outcomes) == 2_500
        snapshot = await handles[10].load()
        assert (snapshot.status, snapshot.attempt) == ("completed", 2)


async def test_callers_at_the_same_time_spawn_and_ask(jobs: Jobs) -> None:
    @jobs.job
    async def noted(number: int) -> int:
        return number

    async with jobs.worker():
        handles = await asyncio.gather(*(noted.spawn(number) for number in range(100)))
        assert await asyncio.gather(*(handle.result(timeout=SOON) for handle in handles)) == list(range(100))


async def test_keys_and_concurrency_keys_hold(jobs: Jobs) -> None:
    running: list[int] = []
    most: list[int] = []

    @jobs.job(concurrency_key="account:{account}")
    async def in_turn(account: int, number: int) -> None:
        running.append(number)
        most.append(len(running))
        await asyncio.sleep(0.01)
        running.remove(number)

    @jobs.job(key="only:{name}")
    async def only(name: str) -> None: ...

    first, second = await only.spawn("a"), await only.spawn("a")
    assert (first.created, second.created, second.id) == (True, False, first.id)
    handles = await jobs.spawn_all([in_turn.spec(1, number) for number in range(20)])
    async with jobs.worker():
        await handles.wait(timeout=SOON)
        await first.wait(timeout=SOON)
    assert max(most) == ONE_AT_A_TIME


async def test_a_running_job_is_cancelled(jobs: Jobs) -> None:
    started = asyncio.Event()

    @jobs.job
    async def endless() -> None:
        started.set()
        await asyncio.Event().wait()

    async with jobs.worker(QUICK):
        handle = await endless.spawn()
        await started.wait()
        assert await handle.cancel()
        with pytest.raises(JobCancelled):
            await handle.result(timeout=SOON)


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_job_completes_in_a_transaction_that_is_bounded_and_leaves_no_setting_behind(
    jobs: Jobs, dsn: str, in_thread: bool
) -> None:
    query(dsn, "CREATE TABLE effects (what text)")
    show = (
        "SELECT current_setting('idle_in_transaction_session_timeout') || ' ' "
        "|| current_setting('transaction_isolation')"
    )
    seen: list[object] = []

    @jobs.job
    async def pays(job: CurrentJob, number: int) -> None:
        async with job.completing() as conn:
            await conn.execute("INSERT INTO effects VALUES (%s)", [str(number)])
            seen.append(await (await conn.execute(show)).fetchone())

    @jobs.job
    def pays_in_thread(job: CurrentJob, number: int) -> None:
        with job.completing() as conn:
            conn.execute("INSERT INTO effects VALUES (%s)", [str(number)])
            seen.append(conn.execute(show).fetchone())

    async with jobs.worker():
        pay = pays_in_thread if in_thread else pays
        handles = await jobs.spawn_all([pay.spec(number) for number in range(12)])
        await handles.wait(timeout=SOON)
    assert count(dsn, "attempts") == 0
    assert value(dsn, "SELECT count(DISTINCT what) FROM effects") == 12
    assert value(dsn, "SELECT count(*) FROM effects") == 12
    assert seen == [("5min read committed",)] * 12


async def test_defaults_of_the_database_do_not_reach_what_rests_on_others(
    listen_dsn: str | None, dsn: str, server: Server, make_pgbouncer: Callable[[str], Pgbouncer]
) -> None:
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    for setting in (
        "default_transaction_isolation = 'serializable'", "default_transaction_read_only = on",
        "timezone = 'Asia/Kolkata'", "datestyle = 'SQL, DMY'", "intervalstyle = 'iso_8601'", "extra_float_digits = -5",
    ):  # fmt: skip
        server.admin.execute(f"ALTER DATABASE {name} SET {setting}".encode())
    pgbouncer = make_pgbouncer(dsn)  # its sessions have the new defaults
    async with Jobs(pgbouncer.dsn, listen_dsn=listen_dsn) as jobs:

        @jobs.job(key="one:{number}")
        async def work(job: CurrentJob, number: int) -> int:
            async with job.completing() as conn:
                await conn.execute("SELECT 1")
            return number

        @jobs.job
        async def plain(number: int) -> int:
            return number

        async with jobs.worker():
            handles = await jobs.spawn_all([plain.spec(number) for number in range(10)])
            await handles.wait(timeout=SOON)
            keyed = await work.spawn(1)
            await keyed.wait(timeout=SOON)
        snapshot = await keyed.load()
    assert isinstance(snapshot, JobSnapshot)
    assert snapshot.created_at.utcoffset() == timedelta(0)
    assert abs(snapshot.created_at.timestamp() - time.time()) < 3600
    with psycopg.connect(pgbouncer.dsn) as conn:
        shown = conn.execute("SELECT current_setting('default_transaction_isolation'), current_setting('timezone')")
        assert shown.fetchone() == ("serializable", "Asia/Kolkata"), "sessions of a pooler are others' too"


async def test_a_worker_says_once_that_there_is_a_pooler_and_what_to_do(
    jobs: Jobs, listen_dsn: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="piecework.worker")

    @jobs.job
    async def work() -> None: ...

    async with jobs.worker() as _:
        await (await work.spawn()).wait(timeout=SOON)
        await until(lambda: listen_dsn or "PIECEWORK_LISTEN_URL" in caplog.text)
    assert caplog.text.count("a pooler stands before the database at") == 1
    assert caplog.text.count("Name the server's own address: Jobs(listen_dsn=…)") == (0 if listen_dsn else 1)


async def test_an_idle_worker_wakes_up_at_once_where_it_listens_and_else_within_a_second_or_so(
    jobs: Jobs, dsn: str, listen_dsn: str | None
) -> None:
    ran: list[int] = []

    @jobs.job
    async def work(number: int) -> None:
        ran.append(number)

    settings = WorkerSettings(look_every=timedelta(hours=1))
    async with jobs._make_worker(settings) as worker:
        await (await work.spawn(0)).wait(timeout=SOON)
        if listen_dsn is not None:
            await until(lambda: worker._claimer._idleness.calm)
        else:
            await until(lambda: worker._claimer._idleness.declared)
        for number in (1, 2, 3):
            await work.spawn(number)
            assert await until(lambda: number in ran) < 10.0  # noqa: B023
        assert worker._claimer._idleness.calm is (listen_dsn is not None)
        listening = "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^LISTEN' AND datname = current_database()"
        if listen_dsn is None:
            assert value(dsn, listening) == 0, "a session of a pooler's is others' too"


async def test_a_lost_worker_is_rescued_from(
    app: App, workers: Callable[..., WorkerProcess], ledger: Ledger, gate: Gate, dsn: str
) -> None:
    first = workers(lease=3.0)
    handle = await app.waits.spawn(str(gate))
    await until(lambda: len(ledger.runs()) == 1)
    first.kill()
    second = workers(lease=3.0)
    gate.open()
    assert await handle.result(timeout=SOON) == "through"
    assert moves(dsn, handle.id) == ["rescue"]
    second.send(signal.SIGTERM)
    assert second.wait() == 0
    assert count(dsn, "workers WHERE given_up_at IS NULL") == 0


async def test_a_restart_of_the_pooler_loses_and_doubles_nothing(jobs: Jobs, pgbouncer: Pgbouncer, dsn: str) -> None:
    query(dsn, "CREATE TABLE effects (what text)")

    @jobs.job(retry=OFTEN)
    async def pays(job: CurrentJob, number: int) -> None:
        await asyncio.sleep(0.05)
        async with job.completing() as conn:
            await conn.execute("INSERT INTO effects VALUES (%s)", [str(number)])

    async with jobs.worker():
        handles = await jobs.spawn_all([pays.spec(number) for number in range(300)])
        await until(lambda: value(dsn, "SELECT count(*) > 20 FROM effects"))
        await asyncio.to_thread(pgbouncer.stop)
        await asyncio.to_thread(pgbouncer.start)
        await handles.wait(timeout=SOON)
    assert query(dsn, "SELECT count(*), count(DISTINCT what) FROM effects") == [(300, 300)]


async def test_the_schema_is_migrated_through_the_pooler_by_several_at_once(
    empty_dsn: str, make_pgbouncer: Callable[[str], Pgbouncer]
) -> None:
    pgbouncer = make_pgbouncer(empty_dsn)

    async def migrate() -> None:
        async with Jobs(pgbouncer.dsn) as jobs:
            assert await jobs.find(new_id()) is None

    await asyncio.gather(*(migrate() for _ in range(4)))


async def test_a_listen_dsn_of_another_database_is_refused(pgbouncer: Pgbouncer, server: Server) -> None:
    async with Jobs(pgbouncer.dsn, listen_dsn=server.dsn("postgres")) as jobs:

        @jobs.job
        async def work() -> None: ...

        with pytest.raises(ConfigurationError, match="another database"):
            async with jobs.worker():
                pass


async def test_the_environments_dsns_go_together(
    pgbouncer: Pgbouncer, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIECEWORK_DATABASE_URL", pgbouncer.dsn)
    monkeypatch.setenv("PIECEWORK_LISTEN_URL", dsn)
    async with Jobs() as jobs, jobs._make_worker(WorkerSettings()) as worker:
        await until(lambda: worker._claimer._idleness.listening)
    async with Jobs(pgbouncer.dsn) as jobs, jobs._make_worker(WorkerSettings()) as worker:
        assert worker._store.listen_dsn is None
