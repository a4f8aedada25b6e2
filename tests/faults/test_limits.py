"""The server has no room for a connection or a byte, or does not write any more: a pause, after which all goes on."""

from __future__ import annotations

import asyncio
import errno
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from engine.app import App, make
from engine.fixtures import Gate
from engine.helpers import SOON, WorkerProcess, count, query, until
from engine.ledger import Ledger

from support.private_postgres import PrivatePostgres

Workers = Callable[..., WorkerProcess]
Session = psycopg.Connection[tuple[object, ...]]
LEASE = 1.5
JOBS = 20
WORKER_SESSIONS = "pg_stat_activity WHERE application_name = 'piecework' AND backend_type = 'client backend'"


def all_ended_once(dsn: str, ledger: Ledger, jobs: int) -> None:
    assert count(dsn, "jobs") == 0
    assert count(dsn, "finished_jobs WHERE status = 'completed' AND attempt = 1 AND failures = 0") == jobs
    assert count(dsn, "attempts WHERE move <> 'release'") == 0
    assert len(ledger.runs_by_job()) == jobs
    assert ledger.overlaps() == []


async def test_a_worker_without_a_free_connection_slot_waits_for_one(
    private_postgres: Callable[..., PrivatePostgres], workers: Workers, ledger: Ledger, gate: Gate
) -> None:
    server = private_postgres(max_connections="20", superuser_reserved_connections="0")
    app: App = make(server.dsn, ledger)
    async with app.jobs:
        worker = workers(server.dsn, lease=LEASE)
        waiting = await app.jobs.spawn_all(app.waits.spec(str(gate)) for _ in range(JOBS))
        await until(lambda: len(ledger.runs()) == JOBS)
        with ExitStack() as held:
            admin = held.enter_context(psycopg.connect(server.dsn, autocommit=True))

            def takes_every_slot() -> bool:
                admin.execute(f"SELECT pg_terminate_backend(pid) FROM {WORKER_SESSIONS}")
                while True:
                    try:
                        held.enter_context(psycopg.connect(server.dsn))
                    except psycopg.OperationalError:
                        break
                row = admin.execute(f"SELECT count(*) FROM {WORKER_SESSIONS}").fetchone()
                return row == (0,)

            await until(takes_every_slot)
            # Its lease ends: what it ran it stops.
            await until(lambda: all(run.ended is not None for run in ledger.runs()))
        notes = await app.jobs.spawn_all(app.note.spec() for _ in range(JOBS))
        await notes.results(timeout=SOON)
        gate.open()
        await waiting.results(timeout=SOON)
    assert not worker.ended
    all_ended_once(server.dsn, ledger, 2 * JOBS)


WORKER = "application_name = 'piecework' AND query ~ '^LISTEN|claim_|look_|owned_|idle_workers|settle_|sign of life'"
READ_ONLY = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM public.demoted WHERE pid = pg_backend_pid()) THEN
        RAISE read_only_sql_transaction USING MESSAGE = 'cannot execute UPDATE in a read-only transaction';
    END IF;
    RETURN new;
END $$;
CREATE TABLE demoted AS SELECT pid FROM pg_stat_activity WHERE WORKER;
CREATE TRIGGER refuse BEFORE UPDATE ON piecework.workers FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TRIGGER refuse BEFORE UPDATE ON piecework.jobs FOR EACH ROW EXECUTE FUNCTION refuse();
""".replace("WORKER", WORKER)


async def test_all_connections_to_a_server_that_has_become_read_only_are_left_also_the_one_that_listens(
    private_postgres: Callable[..., PrivatePostgres], workers: Workers, ledger: Ledger, gate: Gate
) -> None:
    server = private_postgres()
    app: App = make(server.dsn, ledger)
    async with app.jobs:
        workers(server.dsn, lease=LEASE)
        waiting = await app.jobs.spawn_all(app.waits.spec(str(gate)) for _ in range(JOBS))
        await until(lambda: len(ledger.runs()) == JOBS)
        await (await app.note.spawn()).result(timeout=SOON)
        await until(lambda: len(query(server.dsn, f"SELECT FROM pg_stat_activity WHERE {WORKER}")) == 4)
        # As after a failover: the sessions that are open lead to what may not be written, new ones do not.
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute(READ_ONLY)
        notes = await app.jobs.spawn_all(app.note.spec() for _ in range(JOBS))
        await notes.results(timeout=SOON)
        await until(lambda: query(server.dsn, "SELECT FROM demoted JOIN pg_stat_activity USING (pid)") == [])
        gate.open()
        await waiting.results(timeout=SOON)
    all_ended_once(server.dsn, ledger, 2 * JOBS + 1)


async def test_while_the_server_is_a_standby_nothing_is_lost_and_after_its_promotion_all_goes_on(
    private_postgres: Callable[..., PrivatePostgres], workers: Workers, ledger: Ledger, gate: Gate
) -> None:
    server = private_postgres()
    app: App = make(server.dsn, ledger)
    async with app.jobs:
        worker = workers(server.dsn, lease=LEASE)
        waiting = await app.jobs.spawn_all(app.waits.spec(str(gate)) for _ in range(JOBS))
        more = await app.jobs.spawn_all(app.note.options(queue="later").spec() for _ in range(JOBS))
        await until(lambda: len(ledger.runs()) == JOBS)
        await asyncio.to_thread(server.stop)
        server.become_standby()
        await asyncio.to_thread(server.start)
        await until(lambda: all(run.ended is not None for run in ledger.runs()))
        assert query(server.dsn, "SELECT pg_is_in_recovery()") == [(True,)]
        query(server.dsn, "SELECT pg_promote()")
        gate.open()
        workers(server.dsn, lease=LEASE, queues=["later"])
        await waiting.results(timeout=SOON)
        await more.results(timeout=SOON)
    assert not worker.ended
    all_ended_once(server.dsn, ledger, 2 * JOBS)


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 90 MB, in which a private PostgreSQL is made. Mounting it takes root."""
    folder = Path(tempfile.mkdtemp(prefix="piecework-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90m,mode=0755", "piecework", folder], check=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
    folder.rmdir()


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096) == 4096:
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def is_refused(dsn: str) -> bool:
    """Use up the room in the files that are there already; whether none is left."""
    try:
        with psycopg.connect(dsn, autocommit=True) as application:
            application.execute("CREATE TABLE IF NOT EXISTS filler (text text)")
            application.execute("INSERT INTO filler SELECT md5(n::text) FROM generate_series(1, 20000) AS n")
    except psycopg.Error:
        return True
    return False


@pytest.mark.soak
async def test_after_its_disk_was_full_the_server_is_used_again_and_nothing_is_lost(
    small_disk: Path, private_postgres: Callable[..., PrivatePostgres], workers: Workers, ledger: Ledger, gate: Gate
) -> None:
    server = private_postgres(max_wal_size="32MB", min_wal_size="32MB")
    app: App = make(server.dsn, ledger)
    async with app.jobs:
        worker = workers(server.dsn, lease=LEASE)
        waiting = await app.jobs.spawn_all(app.waits.spec(str(gate)) for _ in range(JOBS))
        await until(lambda: len(ledger.runs()) == JOBS)
        filler = small_disk / "filler"
        fill(filler)
        await until(lambda: is_refused(server.dsn))
        await asyncio.sleep(2 * LEASE)
        filler.unlink()
        await asyncio.to_thread(server.stop, signal.SIGQUIT)
        await asyncio.to_thread(server.start)
        gate.open()
        await waiting.results(timeout=SOON)
        notes = await app.jobs.spawn_all(app.note.spec() for _ in range(JOBS))
        await notes.results(timeout=SOON)
    assert not worker.ended
    all_ended_once(server.dsn, ledger, 2 * JOBS)
