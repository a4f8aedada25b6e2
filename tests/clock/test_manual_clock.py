"""Turning the clock moves due times, in all processes; it never moves liveness, waits or the history."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from engine.app import App, settings
from engine.fixtures import Gate
from engine.helpers import SOON, WorkerProcess, count, moves, query, until, value

from piecework import CurrentJob, JobNotFinished, Jobs, NotOpen, Reschedule, RetrySettings
from piecework.testing import ManualClock

Workers = Callable[..., WorkerProcess]
START = datetime(2031, 5, 6, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SLEEPS = "idle_workers"


async def test_the_clock_is_set_turned_and_cleared(jobs: Jobs, dsn: str) -> None:
    clock = ManualClock(jobs)
    real = datetime.now(UTC)
    assert abs(await clock.now() - real) < timedelta(minutes=1)
    assert await clock.set(START) == START == await clock.now()
    assert await clock.advance(DAY) == START + DAY == await clock.now()
    assert await clock.set(START) == START, "it may be set back"
    async with Jobs(dsn) as elsewhere:
        assert await ManualClock(elsewhere).now() == START, "it is set for all"
    await clock.clear()
    await clock.clear()
    assert abs(await clock.now() - real) < timedelta(minutes=1)
    assert abs(await clock.advance(HOUR) - HOUR - real) < timedelta(minutes=1), "from the present, where it is not set"
    assert await clock.now() == await clock.now(), "it stands still"


async def test_the_clock_stands_still_inside_of_a_block_only(jobs: Jobs, dsn: str) -> None:
    async with ManualClock(jobs, at=START) as clock:
        assert await clock.now() == START
    assert count(dsn, "clock") == 0
    async with ManualClock(jobs) as clock:
        assert abs(await clock.now() - datetime.now(UTC)) < timedelta(minutes=1)
        assert await clock.now() == await clock.now()
    with pytest.raises(ArithmeticError):
        async with ManualClock(jobs):
            raise ArithmeticError
    assert count(dsn, "clock") == 0


def test_the_clock_is_turned_without_asyncio(dsn: str) -> None:
    jobs = Jobs(dsn)

    @jobs.job
    def work() -> None: ...

    with jobs:
        handle = work.options(run_at=START + HOUR).spawn_sync()
        with ManualClock(jobs, at=START) as clock:
            assert clock.now_sync() == START
            assert clock.advance_sync(timedelta(minutes=1)) == START + timedelta(minutes=1)
            assert clock.advance_to_next_sync() == START + HOUR
            assert clock.advance_to_next_sync() is None
            assert clock.set_sync(START) == START
        assert count(dsn, "clock") == 0
        assert handle.cancel_sync()


async def test_what_is_no_moment_is_refused(jobs: Jobs) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        await ManualClock(jobs).set(datetime(2031, 5, 6))
    with pytest.raises(ValueError, match="no time zone"):
        ManualClock(jobs, at=datetime(2031, 5, 6))
    with pytest.raises(ValueError, match="goes back"):
        await ManualClock(jobs).advance(-DAY)
    with pytest.raises(NotOpen):
        await ManualClock(Jobs("postgresql://elsewhere")).now()


# due times


async def test_a_job_runs_when_the_clock_has_passed_its_due_time_and_not_before(jobs: Jobs, dsn: str) -> None:
    seen: list[datetime] = []

    @jobs.job
    async def work() -> None:
        seen.append(await ManualClock(jobs).now())

    async with ManualClock(jobs, at=START) as clock, jobs.worker():
        by_delay = await work.options(delay=2 * HOUR).spawn()
        by_moment = await work.options(run_at=START + 3 * HOUR).spawn()
        assert [each.run_at for each in await jobs.handles([by_delay.id, by_moment.id]).load()] == [
            START + 2 * HOUR, START + 3 * HOUR,
        ]  # fmt: skip
        past = await work.options(run_at=START - DAY).spawn()
        await past.result(timeout=SOON)
        await clock.advance(2 * HOUR - timedelta(microseconds=1))
        now = await work.spawn()
        await now.result(timeout=SOON)
        assert [each.status for each in await jobs.handles([by_delay.id, by_moment.id]).load()] == ["pending"] * 2
        await clock.advance(timedelta(microseconds=1))
        await by_delay.result(timeout=SOON)
        await clock.set(START + DAY)
        await by_moment.result(timeout=SOON)
    assert seen == [START, START + 2 * HOUR - timedelta(microseconds=1), START + 2 * HOUR, START + DAY]


async def test_multi_day_scheduling(jobs: Jobs, dsn: str) -> None:
    """2 h, 2 d, 4 d and 7 d fire on exactly the right day while the clock jumps a day at a time."""
    fired: dict[str, int] = {}
    day = 0

    @jobs.job
    async def work(name: str) -> None:
        fired[name] = day

    @jobs.job
    async def look() -> None: ...

    async with ManualClock(jobs, at=START) as clock, jobs.worker():
        for name, delay in {"2h": 2 * HOUR, "2d": 2 * DAY, "4d": 4 * DAY, "7d": 7 * DAY}.items():
            await work.options(delay=delay).spawn(name)
        for day in range(1, 9):  # noqa: B007
            await clock.advance(DAY)
            await until(lambda: not due(dsn))
            # Its due time is later than theirs, so that all that are due have been claimed by then.
            await (await look.spawn()).result(timeout=SOON)
    assert fired == {"2h": 1, "2d": 2, "4d": 4, "7d": 7}


async def test_a_turn_by_days_runs_what_became_due_in_its_order_and_soon(jobs: Jobs, dsn: str) -> None:
    ran: list[int] = []

    @jobs.job
    async def work(number: int) -> None:
        ran.append(number)

    async with ManualClock(jobs, at=START) as clock, jobs.worker(settings(concurrency=1, prefetch=0)):
        order = [3, 0, 4, 1, 2]
        handles = await jobs.spawn_all(work.options(delay=DAY * (1 + number)).spec(number) for number in order)
        await until(lambda: count(dsn, SLEEPS))
        before = time.monotonic()
        await clock.advance(30 * DAY)
        await handles.results(timeout=SOON)
        assert time.monotonic() - before < 10, "it is told, and does not wait for its next look"
    assert ran == [0, 1, 2, 3, 4]


async def test_the_clock_is_turned_from_due_time_to_due_time(jobs: Jobs) -> None:
    ran: list[datetime] = []

    @jobs.job
    async def hourly() -> Reschedule:
        ran.append(await ManualClock(jobs).now())
        return Reschedule.after(HOUR)

    async with ManualClock(jobs, at=START) as clock, jobs.worker():
        handle = await hourly.options(delay=HOUR).spawn()
        for n in range(1, 4):
            assert await clock.advance_to_next() == START + n * HOUR
            await until_run_at(jobs, handle.id, START + (n + 1) * HOUR)
        assert ran == [START + n * HOUR for n in range(1, 4)]
        await handle.cancel()
        assert await clock.advance_to_next() is None
        assert await clock.now() == START + 3 * HOUR


async def test_the_backoff_of_a_retry_goes_by_the_clock(jobs: Jobs) -> None:
    runs: list[int] = []

    @jobs.job(retry=RetrySettings(min_backoff=HOUR, max_backoff=HOUR, backoff_jitter_pct=0))
    async def work(job: CurrentJob) -> None:
        runs.append(job.attempt)
        if job.attempt < 3:
            raise ArithmeticError

    async with ManualClock(jobs, at=START) as clock, jobs.worker():
        handle = await work.spawn()
        await until_run_at(jobs, handle.id, START + HOUR)
        assert await clock.advance_to_next() == START + HOUR
        await until_run_at(jobs, handle.id, START + 2 * HOUR)
        await clock.advance_to_next()
        await handle.result(timeout=SOON)
    assert runs == [1, 2, 3]


async def test_a_turn_reaches_other_processes(workers: Workers, app: App, dsn: str) -> None:
    workers()
    workers()
    async with ManualClock(app.jobs, at=START) as clock:
        handles = await app.jobs.spawn_all(app.note.options(delay=n * DAY).spec() for n in range(1, 11))
        await until(lambda: count(dsn, SLEEPS) == 2)
        await clock.advance(10 * DAY)
        await handles.results(timeout=SOON)


async def test_jobs_of_a_time_that_is_real_again_run_by_it(jobs: Jobs, dsn: str) -> None:
    @jobs.job
    async def work() -> None: ...

    async with jobs.worker():
        async with ManualClock(jobs, at=datetime.now(UTC) - DAY) as clock:
            handle = await work.options(delay=HOUR).spawn()
            await until(lambda: count(dsn, SLEEPS))
            assert (await handle.load()).run_at == await clock.now() + HOUR
        await handle.result(timeout=SOON)  # it is 23 hours overdue


async def test_a_turn_during_a_look_is_not_lost(jobs: Jobs, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of the look is older than the turn, and the worker would sleep for half a minute."""
    from piecework.store import claiming

    look, looked = claiming.look, asyncio.Event()
    turn = False

    async def look_and_turn(*args: object) -> claiming.Look:
        nonlocal turn
        answer = await look(*args)  # type: ignore[arg-type]
        if turn:
            turn = False
            await clock.advance(DAY)
            await asyncio.sleep(0.5)  # the hint arrives before the answer does
            looked.set()
        return answer

    @jobs.job
    async def work() -> None: ...

    @jobs.job
    async def other() -> None: ...

    monkeypatch.setattr(claiming, "look", look_and_turn)
    clock = ManualClock(jobs, at=START)
    async with clock, jobs.worker():
        handle = await work.options(delay=HOUR).spawn()
        await until(lambda: count(dsn, SLEEPS))
        await asyncio.sleep(1)  # until it has looked for the last time
        turn = True
        await (await other.spawn()).result(timeout=SOON)
        await looked.wait()
        before = time.monotonic()
        await handle.result(timeout=SOON)
        assert time.monotonic() - before < 10


# a clock that stands still


async def test_a_future_job_does_not_keep_a_worker_busy_while_the_clock_stands(jobs: Jobs, dsn: str) -> None:
    """However little is left until it is due by the clock: nothing becomes due until that is turned."""

    @jobs.job
    async def work() -> None: ...

    async with ManualClock(jobs, at=START) as clock, jobs.worker():
        handles = await jobs.spawn_all(work.options(delay=timedelta(milliseconds=n)).spec() for n in (1, 20, 300))
        await until(lambda: count(dsn, SLEEPS))
        await asyncio.sleep(1)
        before = statements(dsn)
        await asyncio.sleep(3)
        assert statements(dsn) - before < 60, "looks of a sleeper and heartbeats, not hundreds"
        await clock.advance(timedelta(seconds=1))
        await handles.results(timeout=SOON)


async def test_lost_workers_are_rescued_while_the_clock_stands(
    workers: Workers, app: App, dsn: str
) -> None:
    async with ManualClock(app.jobs, at=START):
        lost = workers()
        handle = await app.hangs_at_first.spawn()
        await until(app.ledger.runs)
        workers()
        lost.kill()
        await handle.result(timeout=SOON)
        assert moves(dsn, handle.id) == ["rescue"]


async def test_turning_the_clock_makes_no_worker_look_dead(workers: Workers, app: App, gate: Gate, dsn: str) -> None:
    async with ManualClock(app.jobs, at=START) as clock:
        processes = [workers(), workers()]
        handles = await app.jobs.spawn_all(app.waits.spec(str(gate)) for _ in range(4))
        await until(lambda: len(app.ledger.runs()) == 4)
        for _ in range(20):
            await clock.advance(400 * DAY)
        beats = value(dsn, "SELECT sum(beat_no) FROM piecework.workers")
        await until(lambda: int(str(value(dsn, "SELECT sum(beat_no) FROM piecework.workers"))) > int(str(beats)) + 4)
        gate.open()
        await handles.results(timeout=SOON)
        assert len(app.ledger.runs()) == 4
        assert count(dsn, "attempts") == 0
        for process in processes:
            process.send(signal.SIGTERM)
            assert process.wait() == 0, "shutdown works"
        # The history goes by the real time.
        real = query(dsn, "SELECT max(abs(date_part('epoch', clock_timestamp() - finished_at))) FROM "
                     "piecework.finished_jobs")[0][0]  # fmt: skip
        assert float(str(real)) < 600


async def test_the_timeout_of_a_wait_is_real(jobs: Jobs) -> None:
    @jobs.job
    async def work() -> None: ...

    async with ManualClock(jobs, at=START) as clock:
        handle = await work.spawn()
        before = time.monotonic()
        wait = asyncio.create_task(handle.wait(timeout=timedelta(seconds=1)))
        await clock.advance(1000 * DAY)
        with pytest.raises(JobNotFinished):
            await wait
        assert time.monotonic() - before > 0.9


def due(dsn: str) -> int:
    return count(dsn, "jobs WHERE worker_id IS NULL AND run_at <= (SELECT now FROM piecework.clock)")


def statements(dsn: str) -> int:
    """How many transactions this database has seen, as far as they were reported."""
    query(dsn, "SELECT pg_stat_force_next_flush()")
    return int(str(value(dsn, "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")))


async def until_run_at(jobs: Jobs, id: object, moment: datetime) -> None:
    async with asyncio.timeout(SOON.total_seconds()):
        while True:
            snapshot = await jobs.find(id)  # type: ignore[arg-type]
            assert snapshot is not None
            if snapshot.run_at == moment:
                return
            await asyncio.sleep(0.01)
