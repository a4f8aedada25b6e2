"""A worker is killed, or kills itself by what it runs: its jobs run again elsewhere, or end with the reason."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from engine.app import App, settings
from engine.helpers import SOON, WorkerProcess, count, moves, query, until, value

from piecework import JobErrored, LivenessSettings
from piecework.store.liveness import Pulse

Workers = Callable[..., WorkerProcess]
JOBS = 100
DEFAULT_LEASE = LivenessSettings().lease.total_seconds()
RUN_AGAIN = 30.0  # seconds after the death, with the default lease


async def kill_a_worker_that_runs_a_hundred_jobs(workers: Workers, app: App, **liveness: object) -> float:
    """Return how long after the kill the last of its jobs ran elsewhere, in seconds."""
    worker = workers(**liveness)
    handles = await app.jobs.spawn_all(app.hangs_at_first.spec() for _ in range(JOBS))
    await until(lambda: len(app.ledger.runs()) == JOBS)
    other = workers(**liveness)
    await until(lambda: " claims from " in other.log)
    killed = time.monotonic()
    worker.kill()
    await until(lambda: len(app.ledger.runs()) == 2 * JOBS, within=60)
    passed = time.monotonic() - killed
    await handles.wait(timeout=SOON)
    assert app.ledger.overlaps(lost=frozenset({worker.pid})) == []
    for runs in app.ledger.runs_by_job().values():
        assert [(run.pid, run.claim_no) for run in runs] == [(worker.pid, 1), (other.pid, 2)]
    return passed


@pytest.mark.postgres(18, 15)
async def test_jobs_of_a_killed_worker_run_again_elsewhere(workers: Workers, app: App, dsn: str) -> None:
    passed = await kill_a_worker_that_runs_a_hundred_jobs(workers, app, lease=3.0)
    assert passed < RUN_AGAIN * 3.0 / DEFAULT_LEASE + 2.0, "on a busy machine a beat may be late"
    assert count(dsn, "finished_jobs WHERE status = 'completed' AND attempt = 2 AND claim_no = 2") == JOBS
    assert count(dsn, "finished_jobs WHERE failures = 1 AND crashes = 1") == JOBS
    rescued = query(dsn, "SELECT move, error->>'type', count(*) FROM piecework.attempts GROUP BY 1, 2")
    assert rescued == [("rescue", "worker lost", JOBS)]


@pytest.mark.soak
async def test_jobs_of_a_killed_worker_run_again_within_30_seconds(workers: Workers, app: App) -> None:
    assert await kill_a_worker_that_runs_a_hundred_jobs(workers, app, default_liveness=True) < RUN_AGAIN


async def test_who_rescues_many_beats_between_them(
    workers: Workers, app: App, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat, rescue, did = Pulse.beat, Pulse.rescue, list[str]()

    def noted(pulse: Pulse, worker_id: str, **given: Any) -> Any:
        did.append("beat")
        return beat(pulse, worker_id, **given)

    def slow(pulse: Pulse, dead: str, beat_no: int, lease: float) -> Any:
        did.append("rescue")
        time.sleep(0.6)  # longer than it is to the next beat
        return rescue(pulse, dead, beat_no, lease)

    dead = [workers(lease=1.5) for _ in range(3)]
    await until(lambda: count(dsn, "workers WHERE beat_no >= 2") == 3)
    monkeypatch.setattr(Pulse, "beat", noted)
    monkeypatch.setattr(Pulse, "rescue", slow)
    async with app.jobs.worker(settings(lease=1.5)):
        for worker in dead:
            worker.kill()
        await until(lambda: count(dsn, "workers") == 1)
    assert did.count("rescue") >= 3
    assert ("rescue", "rescue") not in pairwise(did)


@pytest.mark.parametrize("by_signal", [False, True], ids=["exit", "SIGKILL"])
async def test_a_job_that_kills_its_worker_five_times_is_failed_and_does_not_run_again(
    workers: Workers, app: App, dsn: str, by_signal: bool
) -> None:
    handle = await app.kills_its_worker.options(queue="deadly").spawn(by_signal)
    async with app.jobs.worker(settings(lease=1.5)):  # it rescues
        for crash in range(5):
            worker = workers(lease=0.5, queues=["deadly"])
            await until(lambda: worker.ended)  # noqa: B023
            await until(lambda: moves(dsn, handle.id).count("rescue") == crash + 1)  # noqa: B023
        assert len(app.ledger.runs()) == 5
        workers(lease=1.5, queues=["deadly"])
        with pytest.raises(JobErrored, match="worker lost: 5 workers were lost while they ran this job"):
            await handle.result(timeout=SOON)
        alive = await app.nap.options(queue="deadly").spawn(0.0)
        await alive.wait(timeout=SOON)
    assert len(app.ledger.runs()) == 6
    assert moves(dsn, handle.id) == ["rescue"] * 5 + ["fail"]
    snapshot = await handle.load()
    assert (snapshot.status, snapshot.attempt, snapshot.crashes, snapshot.claim_no) == ("errored", 5, 5, 6)


async def test_a_job_without_another_attempt_ends_when_its_worker_is_lost(
    workers: Workers, app: App, dsn: str
) -> None:
    worker = workers(lease=0.5)
    handle = await app.hangs_once.spawn()
    await until(app.ledger.runs)
    worker.kill()
    async with app.jobs.worker(settings(lease=1.5)):
        with pytest.raises(JobErrored, match="worker lost: no attempt is left"):
            await handle.result(timeout=SOON)
    assert len(app.ledger.runs()) == 1
    assert moves(dsn, handle.id) == ["rescue", "fail"]


async def test_an_event_loop_that_a_job_blocks_is_not_the_death_of_its_worker(
    workers: Workers, app: App, dsn: str
) -> None:
    worker = workers(lease=1.5)
    async with app.jobs.worker(settings(lease=1.5, queues=("another",))):
        handle = await app.freezes.spawn(4.0)
        assert await handle.result(timeout=SOON) == "thawed"
    assert [run.pid for run in app.ledger.runs()] == [worker.pid]
    assert count(dsn, "attempts") == 0


async def test_a_worker_that_was_killed_while_idle_is_struck_off(workers: Workers, app: App, dsn: str) -> None:
    worker = workers(lease=0.5)
    await until(lambda: count(dsn, "idle_workers") == 1)
    worker.kill()
    async with app.jobs.worker(settings(lease=1.0, queues=("another",))):
        await until(lambda: value(dsn, "SELECT array_agg(pid) FROM piecework.workers") != [worker.pid])
        await until(lambda: count(dsn, "workers") == 1)
        await until(lambda: count(dsn, "idle_workers WHERE 'default' = ANY (queues)") == 0)


async def test_two_observers_rescue_a_dead_worker_once(workers: Workers, app: App, dsn: str) -> None:
    worker = workers(lease=0.5)
    handles = await app.jobs.spawn_all(app.hangs_at_first.spec() for _ in range(20))
    await until(lambda: len(app.ledger.runs()) == 20)
    async with app.jobs.worker(settings(lease=1.5)), app.jobs.worker(settings(lease=1.5)):
        worker.kill()
        await handles.results(timeout=SOON)
    assert count(dsn, "attempts WHERE move = 'rescue'") == 20
    assert count(dsn, "attempts") == 20
    assert len(app.ledger.runs()) == 40


async def test_a_dead_worker_s_job_that_an_open_transaction_holds_is_rescued_later(
    workers: Workers, app: App, dsn: str
) -> None:
    worker = workers(lease=0.5)
    handles = await app.jobs.spawn_all(app.hangs_at_first.spec() for _ in range(2))
    await until(lambda: len(app.ledger.runs()) == 2)
    async with app.jobs.worker(settings(lease=1.0)):
        with psycopg.connect(dsn) as stranger:
            stranger.execute("SELECT FROM piecework.jobs WHERE id = %s FOR UPDATE", [handles[0].id])
            worker.kill()
            await handles[1].result(timeout=SOON)
            assert count(dsn, "workers WHERE pid = %s", worker.pid) == 1
        await handles[0].result(timeout=SOON)
        await until(lambda: count(dsn, "workers WHERE pid = %s", worker.pid) == 0)
