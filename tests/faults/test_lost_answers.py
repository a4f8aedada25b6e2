"""The database did it, or did not, and the connection broke before the worker heard of it."""

from __future__ import annotations

from collections import Counter

import pytest
from engine.app import settings
from engine.helpers import SOON, count, query, until
from engine.ledger import Ledger

from piecework import CurrentJob, Fail, Jobs, Reschedule
from piecework.testing import FaultProxy, Moment

EACH = 10
CLAIM, SETTLE = rb"claim_\d", rb"settle_\d"
JOBS = rb'\[\["[0-9a-f]{8}-'
"""In an answer that names jobs."""

MOMENTS = [("answer", 100), ("request", 10), ("after", 10)]


def ends(dsn: str) -> Counter[tuple[object, ...]]:
    return Counter(query(dsn, "SELECT status, attempt, failures, crashes FROM piecework.finished_jobs"))


@pytest.mark.parametrize(("moment", "times"), MOMENTS)
async def test_jobs_of_a_claim_whose_connection_broke_all_run_once(
    dsn: str, ledger: Ledger, moment: Moment, times: int
) -> None:
    async with FaultProxy(dsn) as proxy, Jobs(proxy.dsn) as jobs:

        @jobs.job
        async def work(job: CurrentJob) -> None:
            with ledger.run_of(job):
                pass

        async with jobs.worker(settings(concurrency=2 * EACH)):
            trap = proxy.trap(moment, CLAIM, answer=None if moment == "request" else JOBS, times=0)
            turns = 0
            while trap.hits < times:  # a claim that is under way already may take the jobs
                trap.left = 1
                turns += 1
                handles = await jobs.spawn_all(work.spec() for _ in range(EACH))
                await handles.results(timeout=SOON)
    assert len(ledger.runs_by_job()) == len(ledger.runs()) == turns * EACH
    assert ends(dsn) == {("completed", 1, 0, 0): turns * EACH}
    assert count(dsn, "jobs") == 0
    assert count(dsn, "attempts WHERE move <> 'release'") == 0
    # What was claimed for nobody was handed back, and nothing else.
    assert (count(dsn, "attempts") >= times) == (moment == "answer")


@pytest.mark.parametrize(("moment", "times"), MOMENTS)
async def test_ends_of_jobs_whose_settle_is_unknown_land_once(
    dsn: str, ledger: Ledger, moment: Moment, times: int
) -> None:
    async with FaultProxy(dsn) as proxy, Jobs(proxy.dsn) as jobs:

        @jobs.job
        async def work(job: CurrentJob, number: int) -> int | Reschedule | Fail:
            with ledger.run_of(job):
                if number == 0 and job.attempt == 1 and len(ledger.runs_by_job()[str(job.id)]) == 1:
                    return Reschedule.now()
                return Fail("seven") if number == 7 else number

        async with jobs.worker(settings(concurrency=2 * EACH)):
            trap = proxy.trap(moment, SETTLE, times=0)
            for turn in range(times):
                trap.left = 1
                handles = await jobs.spawn_all(work.spec(number) for number in range(EACH))
                outcomes = await handles.wait(timeout=SOON)
                assert [outcome.result for outcome in outcomes] == [None if n == 7 else n for n in range(EACH)]
                await until(lambda: trap.hits == turn + 1)  # noqa: B023
    assert Counter(len(runs) for runs in ledger.runs_by_job().values()) == {1: times * (EACH - 1), 2: times}
    assert sum(n for (status, *_), n in ends(dsn).items() if status == "completed") == times * (EACH - 1)
    assert count(dsn, "finished_jobs") == times * EACH
    assert count(dsn, "jobs") == 0
    moves = Counter(str(move) for (move,) in query(dsn, "SELECT move FROM piecework.attempts"))
    assert moves == {"reschedule": times, "fail": times}
