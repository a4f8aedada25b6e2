"""Two workers and jobs that fail, reschedule and end by chance: the ledger of what ran and the rows agree."""

from __future__ import annotations

import signal
from collections.abc import Callable

from engine.app import App
from engine.helpers import WorkerProcess, count, query, until, value
from engine.ledger import Ledger

Workers = Callable[..., WorkerProcess]
JOBS = 5000
UNLUCKY = len(range(0, JOBS, 7))


async def test_5000_erratic_jobs_end_once_each_and_no_two_runs_of_one_overlap(
    workers: Workers, app: App, dsn: str, ledger: Ledger
) -> None:
    first, second = workers(concurrency=50), workers(concurrency=50)
    handles = await app.jobs.spawn_all(app.erratic.spec(number) for number in range(JOBS))
    await until(lambda: count(dsn, "finished_jobs") > JOBS // 4)
    first.send(signal.SIGTERM)  # one leaves in order, one joins
    third = workers(concurrency=50)
    await until(lambda: count(dsn, "jobs") == 0)
    assert first.wait() == 0

    runs = ledger.runs_by_job()
    assert set(runs) == {str(handle.id) for handle in handles}
    assert ledger.overlaps() == []
    assert {run.pid for run in ledger.runs()} == {first.pid, second.pid, third.pid}
    ended = query(dsn, "SELECT status, count(*), count(DISTINCT id) FROM piecework.finished_jobs GROUP BY 1 ORDER BY 1")
    assert ended == [("completed", JOBS - UNLUCKY, JOBS - UNLUCKY), ("errored", UNLUCKY, UNLUCKY)]
    ends = {str(id): claim_no for id, claim_no in query(dsn, "SELECT id, claim_no FROM piecework.finished_jobs")}
    assert {id: of_job[-1].claim_no for id, of_job in runs.items()} == ends
    released = count(dsn, "attempts WHERE move = 'release'")
    assert len(ledger.runs()) + released == sum(ends.values())
    assert count(dsn, "attempts") == sum(ends.values()) - JOBS + UNLUCKY
    assert count(dsn, "attempts WHERE move IN ('rescue', 'release')") == released
    results = value(dsn, "SELECT sum(result::integer) FROM piecework.finished_jobs WHERE status = 'completed'")
    assert results == sum(number for number in range(JOBS) if number % 7)
