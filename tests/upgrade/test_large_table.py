"""A migration of a table with a million live jobs, on which workers of the release before go on: who waits how long."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from upgrade.crew import Crew, until
from upgrade.observer import Observer, Wait
from upgrade.releases import Release

from support.databases import NEWEST, Server

pytestmark = [pytest.mark.upgrade, pytest.mark.timeout(900)]

JOBS = 1_000_000
LONGEST_WAIT = 1.0
"""Seconds that anybody may wait for a lock on a table."""
LONGEST_PAUSE = 3.0
"""The same, with what a busy machine adds to it: of a spawn, and between two jobs of a worker."""
HELD = 10.0
DONE = 2000
"""Jobs that have to be done before and after."""


@pytest.fixture(scope="session")
def large(servers: Callable[[int], Server], before: Release) -> Iterator[tuple[Server, str]]:
    """A database of the release before with a million jobs, to be copied: the server and its name."""
    server = servers(NEWEST)
    # Vacuum comes all the time, as it does where there is more to do.
    server.admin.execute("ALTER SYSTEM SET autovacuum_naptime = 1")
    server.admin.execute("SELECT pg_reload_conf()")
    with server.database(migrated=False) as dsn:
        before.migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(
                "INSERT INTO piecework.jobs (id, job_type, config) "
                f"SELECT gen_random_uuid(), 'tick', '{{}}' FROM generate_series(1, {JOBS})"
            )
            name = conn.info.dbname
        yield server, name


@pytest.fixture
def million(large: tuple[Server, str]) -> Iterator[str]:
    """The DSN of a copy."""
    server, template = large
    name = f"test_{uuid.uuid4().hex}"
    server.admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    try:
        yield server.dsn(name)
    finally:
        server.admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def held(dsn: str, *statements: str) -> Iterator[None]:
    """Let a transaction of somebody's be open for ten seconds."""
    conn = psycopg.connect(dsn, application_name="somebody")
    for statement in statements:
        conn.execute(statement.encode())
    over = threading.Timer(HELD, conn.rollback)
    over.start()
    try:
        yield
    finally:
        over.join()
        conn.close()


def nothing(dsn: str) -> AbstractContextManager[None]:
    return nullcontext()


def a_row(dsn: str) -> AbstractContextManager[None]:
    return held(dsn, "SELECT FROM piecework.jobs ORDER BY id DESC LIMIT 1 FOR UPDATE")


def a_read(dsn: str) -> AbstractContextManager[None]:
    return held(dsn, "SELECT FROM piecework.jobs LIMIT 1")


def the_last_table(dsn: str) -> AbstractContextManager[None]:
    """Of those that are locked: the ones before it are held while it is waited for."""
    return held(dsn, "LOCK TABLE piecework.attempts IN ACCESS SHARE MODE")


@contextmanager
def an_autovacuum(dsn: str) -> Iterator[None]:
    """One that would take its time. It gives way, but not to somebody who waits for less than a second."""
    with psycopg.connect(dsn, autocommit=True, application_name="somebody") as conn:
        conn.execute(
            "ALTER TABLE piecework.jobs SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0, "
            "autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)"
        )
        query = "SELECT FROM pg_stat_progress_vacuum WHERE relid = 'piecework.jobs'::regclass"
        until(lambda: conn.execute(query).rowcount)
        yield


@pytest.mark.parametrize("holding", [nothing, an_autovacuum, a_row, a_read, the_last_table])
def test_nobody_waits_for_longer_than_a_second(
    holding: Callable[[str], AbstractContextManager[None]], million: str, before: Release, now: Release, crew: Crew
) -> None:
    workers = [crew.start(before, "worker", million) for _ in range(2)]
    ticker = crew.start(before, "ticker", million)
    goes_on(million)
    began = time.monotonic()
    with Observer(million) as observer, holding(million):
        said = now.migrate(make_conninfo(million, application_name="migrator"))
        took = time.monotonic() - began
        while time.monotonic() - began < HELD:
            time.sleep(0.1)
    goes_on(million)
    crew.stop(ticker, *workers)

    others, migrator = observer.others(), observer.waits("migrator")
    spawns = [line["took"] for line in crew.lines("spawn", began)]
    gaps = [line["took"] for line in crew.lines("gap", began)]
    print(
        f"{holding.__name__}: migrated in {took:.2f} s, {said.count('waits')} tries failed; "
        f"looked {observer.looks} times: others waited {len(others)} times, at most {seconds(others)} s, "
        f"the migrator {len(migrator)} times, at most {seconds(migrator)} s; longest pause of a spawn "
        f"{max(spawns, default=0):.2f} s, between two jobs of a worker {max(gaps, default=0):.2f} s"
    )
    print("\n".join(map(str, [*others[:5], *migrator[:5]])), said, sep="\n")
    on_tables = [wait for wait in others if wait.locktype == "relation"]
    assert not on_tables or on_tables[0].seconds <= LONGEST_WAIT, str(on_tables[0])
    assert max(spawns, default=0) < LONGEST_PAUSE
    assert max(gaps, default=0) < LONGEST_PAUSE
    spawned = sum(line["count"] for line in crew.lines("spawned"))
    with psycopg.connect(million, options="-c search_path=piecework") as conn:
        assert conn.execute("SELECT max(version) FROM migrations").fetchone() == (len(now.migrations()),)
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'jobs_fixture'::regclass"
        assert conn.execute(valid).fetchone() == (True,)
        counts = "SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM finished_jobs)"
        assert conn.execute(counts).fetchone() == (JOBS + spawned,)
        assert conn.execute("SELECT count(*) FROM attempts WHERE move <> 'release'").fetchone() == (0,)


def seconds(waits: list[Wait]) -> str:
    return f"{waits[0].seconds:.2f}" if waits else "0"


def goes_on(dsn: str) -> None:
    """Wait until many more jobs are done."""
    with psycopg.connect(dsn, autocommit=True) as conn:

        def count() -> int:
            row = conn.execute("SELECT count(*) FROM piecework.finished_jobs").fetchone()
            assert row is not None
            return int(row[0])

        before = count()
        until(lambda: count() >= before + DONE, every=0.5)
