"""Which jobs a worker takes, in what order, and how many."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from engine.helpers import SOON, count, until

from piecework import Jobs, WorkerSettings


class Gauge:
    """How many are inside at once, from any threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    def enter(self, *names: str) -> None:
        with self._lock:
            for name in names:
                self.now[name] += 1
                self.most[name] = max(self.most[name], self.now[name])

    def leave(self, *names: str) -> None:
        with self._lock:
            for name in names:
                self.now[name] -= 1


@pytest.mark.postgres(18, 15)
async def test_lower_priorities_run_first_within_a_queue(jobs: Jobs) -> None:
    order: list[int] = []

    @jobs.job
    async def record(priority: int) -> None:
        order.append(priority)

    priorities = [0, 5, -3, 32767, -32768, 2, 5, -3]
    handles = await jobs.spawn_all(record.options(priority=p).spec(p) for p in priorities)
    async with jobs.worker(WorkerSettings(concurrency=1, prefetch=0)):
        await handles.wait(timeout=SOON)
    assert order == sorted(priorities)


async def test_jobs_of_one_lane_run_in_the_order_in_which_they_are_due(jobs: Jobs) -> None:
    order: list[int] = []

    @jobs.job
    async def record(number: int) -> None:
        order.append(number)

    handles = await jobs.spawn_all(record.options(delay=timedelta(seconds=-n)).spec(n) for n in range(50))
    async with jobs.worker(WorkerSettings(concurrency=1)):
        await handles.wait(timeout=SOON)
    assert order == list(reversed(range(50)))


async def test_a_worker_claims_from_its_queues_alone(jobs: Jobs) -> None:
    @jobs.job
    async def where(queue: str) -> str:
        return queue

    handles = [await where.options(queue=q).spawn(q) for q in ("mail", "default", "reports")]
    async with jobs.worker(WorkerSettings(queues=("mail", "reports"))):
        assert await handles[0].result(timeout=SOON) == "mail"
        assert await handles[2].result(timeout=SOON) == "reports"
        assert (await handles[1].load()).status == "pending"
    async with jobs.worker():
        assert await handles[1].result(timeout=SOON) == "default"


async def test_jobs_of_unknown_types_wait_and_hold_nobody_up(jobs: Jobs, dsn: str) -> None:
    known = Jobs(dsn)

    @jobs.job
    async def stranger() -> None: ...

    @known.job
    async def friend() -> None: ...

    strangers = await jobs.spawn_all(stranger.options(priority=-1).spec() for _ in range(200))
    async with known, known.worker(WorkerSettings(concurrency=1)):
        await (await friend.spawn()).result(timeout=SOON)
    assert count(dsn, "jobs WHERE claim_no = 0 AND worker_id IS NULL") == len(strangers)


async def test_a_type_that_is_registered_late_is_claimed(jobs: Jobs) -> None:
    @jobs.job("early")
    async def early() -> None: ...

    elsewhere = Jobs()

    @elsewhere.job("late")
    async def spawned() -> None: ...

    async with jobs.worker():
        await (await early.spawn()).result(timeout=SOON)
        spec = spawned.spec()
        await jobs.spawn_all([spec])

        @jobs.job("late")
        async def late() -> str:
            return "here now"

        assert await jobs.handle(spec.id).result(timeout=SOON) == "here now"


async def test_a_job_that_was_spawned_under_a_former_name_is_claimed(jobs: Jobs, dsn: str) -> None:
    before = Jobs(dsn)

    @before.job("send-mail")
    async def send_mail(to: str) -> None: ...

    @jobs.job("send-email", aliases=["send-mail"])
    async def send_email(to: str) -> str:
        return to

    async with before:
        old = await send_mail.spawn("ada")
    async with jobs.worker():
        assert await jobs.handle(old.id).result(timeout=SOON) == "ada"


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_max_concurrent_per_process_is_reached_and_never_exceeded(jobs: Jobs, kind: str) -> None:
    gauge = Gauge()

    @jobs.job(max_concurrent_per_process=3)
    async def narrow() -> None:
        gauge.enter("narrow")
        await asyncio.sleep(0.01)
        gauge.leave("narrow")

    @jobs.job(max_concurrent_per_process=3)
    def narrow_in_thread() -> None:
        gauge.enter("narrow")
        time.sleep(0.01)
        gauge.leave("narrow")

    @jobs.job
    async def wide() -> None:
        gauge.enter("wide")
        await asyncio.sleep(0.01)
        gauge.leave("wide")

    limited = narrow if kind == "async" else narrow_in_thread
    specs = [job.spec() for job in [limited] * 60 + [wide] * 60]
    async with jobs.worker(WorkerSettings(concurrency=50)):
        await (await jobs.spawn_all(specs)).results(timeout=SOON)
    assert gauge.most["narrow"] == 3
    assert gauge.most["wide"] > 3


async def test_former_names_of_a_type_count_towards_its_limit(jobs: Jobs, dsn: str) -> None:
    gauge = Gauge()
    before = Jobs(dsn)

    @before.job("old")
    async def spawned() -> None: ...

    @jobs.job("new", aliases=["old"], max_concurrent_per_process=2)
    async def new() -> None:
        gauge.enter("both")
        await asyncio.sleep(0.01)
        gauge.leave("both")

    specs = [job.spec() for job in [spawned] * 30 + [new] * 30]
    handles = await jobs.spawn_all(specs)
    async with jobs.worker():
        await handles.results(timeout=SOON)
    assert gauge.most["both"] == 2


async def test_no_more_plain_jobs_run_at_once_than_there_are_threads(jobs: Jobs) -> None:
    gauge = Gauge()

    @jobs.job
    def one() -> None:
        gauge.enter("all", threading.current_thread().name)
        time.sleep(0.01)
        gauge.leave("all", threading.current_thread().name)

    @jobs.job
    def other() -> None:
        gauge.enter("all", threading.current_thread().name)
        time.sleep(0.01)
        gauge.leave("all", threading.current_thread().name)

    @jobs.job
    async def unhindered() -> None:
        gauge.enter("async")
        await asyncio.sleep(0.05)
        gauge.leave("async")

    async with jobs.worker(WorkerSettings(threads=4)):
        specs = [job.spec() for job in [one] * 40 + [other] * 40 + [unhindered] * 50]
        await (await jobs.spawn_all(specs)).results(timeout=SOON)
    assert gauge.most["all"] == 4
    assert gauge.most["async"] > 4


async def test_a_plain_job_is_not_claimed_before_a_thread_is_free_for_it(jobs: Jobs, dsn: str) -> None:
    release = threading.Event()

    @jobs.job
    def blocks() -> None:
        release.wait()

    @jobs.job
    async def quick() -> None: ...

    async with jobs.worker(WorkerSettings(threads=2)):
        handles = await jobs.spawn_all(blocks.spec() for _ in range(5))
        await until(lambda: count(dsn, "jobs WHERE worker_id IS NOT NULL") == 2)
        for _ in range(2):  # the worker goes on claiming
            await (await quick.spawn()).result(timeout=SOON)
        assert count(dsn, "jobs WHERE worker_id IS NOT NULL") == 2
        release.set()
        await handles.results(timeout=SOON)


async def test_concurrency_is_reached_and_never_exceeded(jobs: Jobs) -> None:
    gauge = Gauge()

    @jobs.job
    async def work() -> None:
        gauge.enter("all")
        await asyncio.sleep(0.01)
        gauge.leave("all")

    @jobs.job
    def work_in_thread() -> None:
        gauge.enter("all")
        time.sleep(0.01)
        gauge.leave("all")

    async with jobs.worker(WorkerSettings(concurrency=7)):
        specs = [job.spec() for job in [work] * 100 + [work_in_thread] * 50]
        await (await jobs.spawn_all(specs)).results(timeout=SOON)
    assert gauge.most["all"] == 7


@pytest.mark.postgres(18, 15)
async def test_prefetched_jobs_that_cannot_start_soon_are_handed_to_others(jobs: Jobs, dsn: str) -> None:
    release = asyncio.Event()

    @jobs.job
    async def quick() -> None: ...

    @jobs.job
    async def slow() -> None:
        await release.wait()

    busy = WorkerSettings(concurrency=5)
    async with jobs.worker(busy):
        await (await jobs.spawn_all(quick.spec() for _ in range(100))).wait(timeout=SOON)
        handles = await jobs.spawn_all(slow.spec() for _ in range(10))
        await until(lambda: count(dsn, "attempts WHERE move = 'release'") == 5)
        async with jobs.worker(busy):
            await until(lambda: count(dsn, "jobs WHERE worker_id IS NOT NULL AND attempt = 1 AND failures = 0") == 10)
            assert count(dsn, "attempts WHERE move = 'release'") == 5
            release.set()
            await handles.results(timeout=SOON)


@pytest.mark.postgres(18, 15)
async def test_a_delayed_job_runs_when_it_is_due_and_not_before(jobs: Jobs) -> None:
    @jobs.job
    async def moment() -> datetime:
        return datetime.now(UTC)

    async with jobs.worker(WorkerSettings(look_every=timedelta(hours=1))):
        spawned = datetime.now(UTC)
        by_delay = await moment.options(delay=timedelta(milliseconds=700)).spawn()
        by_time = await moment.options(run_at=spawned + timedelta(milliseconds=400)).spawn()
        ran = await by_time.result(timeout=SOON) - spawned
        assert timedelta(milliseconds=399) < ran < timedelta(seconds=3)
        ran = await by_delay.result(timeout=SOON) - spawned
        assert timedelta(milliseconds=700) < ran < timedelta(seconds=3)


async def test_a_thousand_delayed_jobs_do_not_stop_those_that_are_due(jobs: Jobs, dsn: str) -> None:
    @jobs.job
    async def work(number: int) -> int:
        return number

    await jobs.spawn_all(
        work.options(delay=timedelta(hours=1 + n), priority=-(n % 3)).spec(n) for n in range(1000)
    )
    due = await jobs.spawn_all(work.options(priority=-(n % 3)).spec(n) for n in range(30))
    async with jobs.worker(WorkerSettings(concurrency=5)):
        assert await due.results(timeout=SOON) == list(range(30))
        assert await (await work.spawn(31)).result(timeout=SOON) == 31
    assert count(dsn, "jobs WHERE claim_no = 0") == 1000


async def test_an_idle_worker_is_told_of_a_spawn(jobs: Jobs, dsn: str) -> None:
    @jobs.job
    async def hello() -> None: ...

    async with jobs.worker(WorkerSettings(look_every=timedelta(hours=1))):
        await until(lambda: count(dsn, "idle_workers") == 1)
        for _ in range(3):
            await (await hello.spawn()).result(timeout=SOON)
