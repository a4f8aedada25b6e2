"""The history checker on a real database: what ran passes, the ledger is read, what was tampered with is found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import psycopg
import pytest
from engine.helpers import count, until

from piecework import CurrentJob, Jobs, Reschedule, RetrySettings
from piecework.testing.history import Entry, Ledger, Report, Terms, check

SOON = timedelta(seconds=40)
QUICK = RetrySettings(n_attempts=3, min_backoff=timedelta(milliseconds=1), max_backoff=timedelta(milliseconds=5))
PAY = frozenset(["pay"])
TERMS = Terms(runs_of=PAY, effects_of=PAY, n_attempts={"flaky": 3}, max_crashes=5, slack=1.0)


@pytest.fixture
async def ran(dsn: str) -> AsyncIterator[list[str]]:
    """A database in which jobs of many kinds have run; the ids of those that pay."""
    ledger = Ledger()
    async with Jobs(dsn) as jobs:
        await ledger.create(dsn)

        @jobs.job(retry=QUICK)
        async def flaky(job: CurrentJob, number: int) -> int | Reschedule:
            if job.claim_no <= number % 5:
                raise RuntimeError("not yet")
            return Reschedule.now() if number == 20 and job.claim_no < 2 else number

        @jobs.job(concurrency_key="account:{account}")
        async def pay(job: CurrentJob, account: int) -> None:
            async with await psycopg.AsyncConnection.connect(dsn) as own:
                await ledger.write(own, job, "began")
                await own.commit()
                async with job.completing() as conn:
                    await ledger.write(conn, job, "effect")
                await ledger.write(own, job, "ended")

        @jobs.job(key="{name}")
        async def named(name: str) -> None: ...

        async with jobs.worker():
            await (await jobs.spawn_all(flaky.spec(n) for n in range(21))).wait(timeout=SOON)
            paid = await jobs.spawn_all(pay.spec(n % 3) for n in range(12))
            await paid.results(timeout=SOON)
            for _ in range(3):
                await (await named.spawn("one")).result(timeout=SOON)
        yield [str(handle.id) for handle in paid]


def broken(report: Report) -> dict[str, int]:
    return {str(rule): count for rule, count in report.counts.items()}


async def test_what_really_ran_passes(dsn: str, ran: list[str]) -> None:
    report = await check(dsn, terms=TERMS)
    assert report.violations == []
    assert report.statuses == {"completed": 28, "errored": 8}
    assert (report.jobs, report.runs, report.effects) == (36, 12, 12)
    assert report.attempts == {"retry": 28, "fail": 8, "reschedule": 1}


@pytest.mark.parametrize("tamper, found", [
    ("DELETE FROM finished_jobs WHERE id = (SELECT job_id FROM attempts LIMIT 1)", {"lost": 1}),
    ("INSERT INTO finished_jobs SELECT * FROM finished_jobs WHERE job_type = 'named'", {"ended twice": 3}),
    ("DELETE FROM attempts WHERE move = 'reschedule'", {"claim without an end": 1}),
    ("DELETE FROM history_ledger WHERE event = 'ended'", {"completed without a run": 12}),
    ("INSERT INTO history_ledger SELECT * FROM history_ledger WHERE event = 'effect'", {"effect doubled": 12}),
    ("DELETE FROM history_ledger WHERE event = 'effect'", {"effect missing": 12}),
    ("UPDATE finished_jobs SET finished_at = finished_at + interval '5 s' WHERE job_type = 'named'", {"unique key": 2}),
    ("INSERT INTO history_ledger (job_id, event, claim_no, process) VALUES (gen_random_uuid(), 'began', 1, 'p')",
     {"lost": 1}),
])  # fmt: skip
async def test_what_was_tampered_with_is_found(dsn: str, ran: list[str], tamper: str, found: dict[str, int]) -> None:
    with psycopg.connect(dsn, options="-c search_path=piecework") as connection:
        connection.execute(tamper.encode())
    assert broken(await check(dsn, terms=TERMS)) == found


async def test_entries_of_a_ledger_elsewhere_are_judged_as_well(dsn: str, ran: list[str]) -> None:
    report = await check(dsn, terms=TERMS, entries={ran[0]: [Entry("effect", 7, "elsewhere", 1.0)]})
    assert broken(report) == {"effect of a lost claim": 1}
    report = await check(dsn, entries={"nowhere": [Entry("began", 1, "elsewhere", 1.0)]})
    assert broken(report) == {"lost": 1}


async def test_while_the_run_goes_on_jobs_may_be_live_but_somebody_holds_them(dsn: str) -> None:
    held = asyncio.Event()
    async with Jobs(dsn) as jobs:

        @jobs.job
        async def waits() -> None:
            await held.wait()

        async with jobs.worker():
            handles = await jobs.spawn_all(waits.spec() for _ in range(3))
            await until(lambda: count(dsn, "jobs WHERE worker_id IS NOT NULL") == 3)
            assert (await check(dsn, terms=Terms(live=True))).holds
            assert broken(await check(dsn)) == {"not ended": 3}
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("UPDATE piecework.jobs SET worker_id = gen_random_uuid()")
            assert broken(await check(dsn, terms=Terms(live=True))) == {"held by nobody": 3}
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("UPDATE piecework.jobs SET worker_id = (SELECT id FROM piecework.workers)")
            held.set()
            await handles.results(timeout=SOON)
