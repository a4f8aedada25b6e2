"""Workers of the release before go on beside those of this one, on a schema that is migrated while they work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psycopg
import pytest
from upgrade.app import ATTEMPTS
from upgrade.crew import Crew, Process, until
from upgrade.releases import Release

from piecework.testing.history import Ledger, Terms, check
from support.databases import Server

pytestmark = [pytest.mark.upgrade, pytest.mark.timeout(900)]

RUNS = frozenset({"erratic", "nap", "nap-in-thread", "saves", "visits", "named"})
TYPES = RUNS | {"pays", "counts"}
ENOUGH = 50
"""Runs of a process, for it to count as one that works."""

Value = Callable[..., object]


@pytest.fixture
def value(empty_dsn: str) -> Value:
    """Ask the database for one value."""

    def ask(query: str, *params: object) -> object:
        with psycopg.connect(empty_dsn, autocommit=True, options="-c search_path=piecework") as conn:
            row = conn.execute(query.encode(), params or None).fetchone()
            return None if row is None else row[0]

    return ask


def works(crew: Crew, *processes: Process) -> None:
    """Wait until each of the processes has begun many jobs from now on."""
    since = time.monotonic()
    for process in processes:
        until(lambda process=process: crew.runs_of(process, since) >= ENOUGH, every=0.5)


def lose(crew: Crew, value: Value, process: Process) -> None:
    """Kill a worker that holds jobs, and wait until the others have taken them back."""
    worker = value("SELECT id FROM workers WHERE pid = %s", process.started.pid)
    until(lambda: value("SELECT count(*) FROM jobs WHERE worker_id = %s", worker))
    crew.kill(process)
    until(lambda: value("SELECT count(*) = 0 FROM workers WHERE id = %s", worker))
    assert value("SELECT count(*) FROM attempts WHERE worker_id = %s AND move = 'rescue'", worker)


@pytest.mark.postgres(18, 15)
def test_workers_of_the_release_before_work_beside_those_of_this_one(
    server: Server, empty_dsn: str, before: Release, now: Release, crew: Crew, value: Value
) -> None:
    before.migrate(empty_dsn)
    asyncio.run(Ledger().create(empty_dsn))
    old = [crew.start(before, "worker", empty_dsn) for _ in range(2)]
    spawners = [crew.start(before, "spawner", empty_dsn)]
    works(crew, *old)

    now.migrate(empty_dsn)  # while they work
    assert value("SELECT max(version) FROM migrations") == len(now.migrations())
    assert value("SELECT indisvalid FROM pg_index WHERE indexrelid = 'jobs_fixture'::regclass")
    new = [crew.start(now, "worker", empty_dsn)]
    spawners.append(crew.start(now, "spawner", empty_dsn))
    works(crew, *old, *new)

    crew.stop(old.pop())
    lose(crew, value, old.pop())  # this release is alone to rescue what one of the release before held
    old.append(crew.start(before, "worker", empty_dsn))  # one that has to be replaced finds a newer schema
    works(crew, *old, *new)
    lose(crew, value, new.pop())  # and the other way round
    new.append(crew.start(now, "worker", empty_dsn))
    works(crew, *old, *new)

    crew.stop(spawners[0], *old)  # drained
    works(crew, *new)
    crew.stop(spawners[1])
    until(lambda: value("SELECT count(*) = 0 FROM jobs"))
    crew.stop(*new)
    assert value("SELECT json_object_agg(name, checksum) FROM functions") == now.checksums()
    _judge(empty_dsn, crew, value)


def _judge(dsn: str, crew: Crew, value: Value) -> None:
    offset = float(str(value("SELECT date_part('epoch', clock_timestamp())"))) - time.monotonic()
    terms = Terms(
        accepted=crew.accepted(offset), runs_of=RUNS, effects_of=frozenset({"pays"}), cuts=crew.gone(offset),
        n_attempts=dict.fromkeys(TYPES, ATTEMPTS), slack=1.0,
    )  # fmt: skip
    report = asyncio.run(check(dsn, terms=terms, entries=crew.entries(offset)))
    print(
        f"{report.jobs} jobs, {report.runs} runs, {report.effects} effects: {dict(report.statuses)}; "
        f"attempts: {dict(report.attempts)}; {report.taken_over} taken over, {len(report.refused)} refused"
    )
    assert report.holds, "\n".join(
        "\n  ".join([str(violation), *violation.evidence]) for violation in report.violations[:20]
    )
    assert {"retry", "reschedule", "rescue", "fail"} <= set(report.attempts)
    saved = "FROM finished_jobs WHERE job_type = 'saves' AND status = 'completed'"
    assert value(f"SELECT bool_and(result = config -> 'steps') {saved}"), "a state was lost, or saved twice"
