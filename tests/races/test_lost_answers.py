"""The database did it, and the connection broke before the worker heard of it."""

from __future__ import annotations

from collections import Counter

import pytest
from engine.app import settings
from engine.helpers import SOON, count, until
from races.wire import Wire

from piecework import CurrentJob, Fail, Jobs, Reschedule

JOBS = 1000
CUTS = 5


async def test_jobs_whose_claim_was_not_heard_of_run_once(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    runs: Counter[str] = Counter()
    async with Wire.to(dsn) as wire, Jobs(wire.dsn) as jobs:

        @jobs.job
        async def work(job: CurrentJob) -> None:
            runs[str(job.id)] += 1

        async with jobs.worker(settings(concurrency=100)):
            wire.claims = CUTS
            handles = await jobs.spawn_all(work.spec() for _ in range(JOBS))
            await handles.results(timeout=SOON)
        assert wire.claims == 0
    assert set(runs.values()) == {1}
    assert len(runs) == JOBS
    assert count(dsn, "attempts WHERE move = 'release'") == caplog_handed_back(caplog)
    assert count(dsn, "attempts WHERE move <> 'release'") == 0
    assert count(dsn, "finished_jobs WHERE status = 'completed' AND attempt = 1") == JOBS


def caplog_handed_back(caplog: pytest.LogCaptureFixture) -> int:
    handed_back = [r.args for r in caplog.records if "without this worker's learning of it" in r.getMessage()]
    assert handed_back
    return sum(int(str(args[0])) for args in handed_back if isinstance(args, tuple))


async def test_settles_whose_answer_was_not_heard_land_once(dsn: str) -> None:
    runs: Counter[int] = Counter()
    async with Wire.to(dsn) as wire, Jobs(wire.dsn) as jobs:

        @jobs.job
        async def work(number: int) -> int | Reschedule | Fail:
            runs[number] += 1
            if number % 10 == 0 and runs[number] == 1:
                return Reschedule.now()
            return Fail("seven") if number % 10 == 7 else number

        async with jobs.worker(settings(concurrency=100)):
            await (await work.spawn(1)).result(timeout=SOON)
            runs.clear()
            wire.settles = CUTS
            handles = await jobs.spawn_all(work.spec(number) for number in range(JOBS))
            outcomes = await handles.wait(timeout=SOON)
            await until(lambda: count(dsn, "jobs") == 0)
        assert wire.settles == 0
    assert runs == {number: 2 if number % 10 == 0 else 1 for number in range(JOBS)}
    assert [outcome.result for outcome in outcomes] == [n if n % 10 != 7 else None for n in range(JOBS)]
    assert count(dsn, "finished_jobs") == JOBS + 1
    assert count(dsn, "attempts WHERE move = 'reschedule'") == JOBS // 10
    assert count(dsn, "attempts WHERE move = 'fail'") == JOBS // 10
    assert count(dsn, "attempts") == 2 * (JOBS // 10)
