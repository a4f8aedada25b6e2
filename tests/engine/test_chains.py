"""Jobs of one concurrency key that a worker claimed at once: they run one after the other, whatever happens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from engine.app import QUICK
from engine.helpers import SOON, count, moves, query, until

from piecework import CurrentJob, JobFunction, JobHandle, Jobs, Reschedule, WorkerSettings

WARM = 30  # runs after which a worker knows that they are short


def never(number: int) -> bool:
    return False


class Line:
    """A job type whose runs are short, but for those that wait for the gate; and what the runs did."""

    def __init__(self, jobs: Jobs, dsn: str, **options: object) -> None:
        self.jobs = jobs
        self.dsn = dsn
        self.began: list[int] = []
        self.running: set[int] = set()
        self.most = 0
        self.gate = asyncio.Event()
        self.waits: Callable[[int], bool] = never
        self.does: Callable[[CurrentJob, int], object] = lambda job, number: None

        @jobs.job("step", concurrency_key="{line}", retry=QUICK, **options)  # type: ignore[call-overload,misc]
        async def step(job: CurrentJob, line: str, number: int) -> object:
            self.began.append(number)
            self.running.add(number)
            self.most = max(self.most, len(self.running))
            try:
                if self.waits(number):
                    await self.gate.wait()
                return self.does(job, number)
            finally:
                self.running.discard(number)

        self.step: JobFunction = step

    async def spawn(self, total: int, line: str = "line", first: int = 0) -> list[JobHandle]:
        return list(await self.jobs.spawn_all(self.step.spec(line, first + number) for number in range(total)))

    async def warm_up(self) -> None:
        """Let the worker learn that runs are short."""
        for handle in await self.spawn(WARM, "others"):
            await handle.wait(timeout=SOON)
        await until(lambda: not self.holders("others"))
        self.began.clear()

    def holders(self, line: str = "line") -> int:
        query_text = "SELECT cardinality(running) FROM piecework.concurrency_keys WHERE concurrency_key = %s"
        found = query(self.dsn, query_text, line)
        return int(str(found[0][0])) if found else 0

    async def ended(self, handles: list[JobHandle]) -> None:
        await self.step.handles(handle.id for handle in handles).wait(timeout=SOON)


@pytest.fixture
def line(jobs: Jobs, dsn: str) -> Line:
    return Line(jobs, dsn)


async def test_jobs_of_a_chain_run_one_after_the_other_in_their_order(line: Line) -> None:
    async with line.jobs.worker():
        await line.warm_up()
        line.waits = lambda number: number == 50
        handles = await line.spawn(300)
        await until(lambda: line.running)
        assert line.holders() > 1, "it is a chain"
        line.gate.set()
        await line.ended(handles)
    assert line.began == [*range(300)]
    assert line.most == 1


async def test_of_a_chain_no_more_run_at_once_than_the_limit_says(jobs: Jobs, dsn: str) -> None:
    line = Line(jobs, dsn, concurrency_limit=3)
    async with jobs.worker():
        await line.warm_up()
        line.waits = lambda number: number % 10 < 5
        handles = await line.spawn(100)
        await until(lambda: len(line.running) == 3)
        assert line.holders() > 3
        assert line.began == [0, 1, 2]
        line.gate.set()
        await line.ended(handles)
    assert line.most == 3
    assert sorted(line.began) == [*range(100)]


@pytest.mark.parametrize("how", ["raises", "is put off"])
async def test_one_that_is_to_run_again_lets_the_rest_of_its_chain_pass(line: Line, how: str) -> None:
    def fifth(job: CurrentJob, number: int) -> object:
        if number == 5 and line.began.count(5) == 1:
            if how == "raises":
                raise RuntimeError("bad luck")
            return Reschedule.now()
        return None

    async with line.jobs.worker():
        await line.warm_up()
        line.waits = lambda number: number == 4
        line.does = fifth
        handles = await line.spawn(12)
        await until(lambda: line.running and line.holders() == 8)
        line.gate.set()
        await line.ended(handles)
    assert line.began == [*range(12), 5]
    assert line.most == 1


async def test_one_that_waits_in_a_chain_can_be_cancelled(line: Line) -> None:
    async with line.jobs.worker():
        await line.warm_up()
        line.waits = lambda number: number == 0
        handles = await line.spawn(5)
        await until(lambda: line.running and line.holders() == 5)
        await handles[2].cancel()
        await handles[2].wait(timeout=SOON)
        assert (await handles[2].load()).status == "cancelled"
        assert line.began == [0]
        await handles[0].cancel()
        await line.ended(handles)
    assert line.began == [0, 1, 3, 4]
    assert [(await handle.load()).status for handle in handles] == [
        "cancelled", "completed", "cancelled", "completed", "completed"]  # fmt: skip


async def test_a_chain_behind_a_run_that_is_not_short_is_handed_back(line: Line) -> None:
    async with line.jobs.worker():
        await line.warm_up()
        line.waits = lambda number: number == 0
        handles = await line.spawn(5)
        await until(lambda: line.running and line.holders() == 5)
        await until(lambda: line.holders() == 1)
        assert [moves(line.dsn, handle.id) for handle in handles] == [[], *[["release"]] * 4]
        # And until its runs have been short for long, its type gets no other.
        line.waits = lambda number: number <= 1
        line.gate.set()
        line.gate = asyncio.Event()
        await until(lambda: line.running == {1})
        await until(lambda: count(line.dsn, "jobs WHERE parked") == 3)
        assert line.holders() == 1
        line.gate.set()
        await line.ended(handles)
    assert line.began == [*range(5)]


async def test_a_worker_that_stops_hands_back_what_waits_and_another_one_goes_on_in_the_order(
    line: Line, dsn: str
) -> None:
    async with line.jobs.worker():
        await line.warm_up()
        line.waits = lambda number: number == 3
        handles = await line.spawn(20)
        await until(lambda: line.running)
        held = line.holders()
        assert held > 1
        asyncio.get_running_loop().call_later(0.5, line.gate.set)
    assert line.began == [0, 1, 2, 3]
    assert count(dsn, "attempts WHERE move = 'release'") == held - 1
    assert (line.holders(), count(dsn, "jobs"), count(dsn, "jobs WHERE worker_id IS NOT NULL")) == (0, 16, 0)
    async with line.jobs.worker():
        await line.ended(handles)
    assert line.began == [*range(20)]


async def test_a_worker_that_prefetches_nothing_takes_no_chains(line: Line) -> None:
    async with line.jobs.worker(WorkerSettings(prefetch=0)):
        await line.warm_up()
        line.waits = lambda number: number == 5
        handles = await line.spawn(10)
        await until(lambda: line.running)
        assert line.holders() == 1
        line.gate.set()
        await line.ended(handles)
    assert line.began == [*range(10)]


async def test_what_waits_in_chains_takes_no_place_of_the_concurrency(line: Line) -> None:
    async with line.jobs.worker(WorkerSettings(concurrency=2)):
        await line.warm_up()
        line.waits = lambda number: number in (0, 10)
        handles = [*await line.spawn(5, "a"), *await line.spawn(5, "b", first=10)]
        await until(lambda: line.running == {0, 10})
        assert line.holders("a") > 1
        line.gate.set()
        await line.ended(handles)


async def test_plain_functions_stand_in_chains_as_well(
    jobs: Jobs, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piecework.engine.chains._SHORT_RUN", 10.0)  # a loaded machine takes its time to start a thread
    monkeypatch.setattr("piecework.engine.chains._WHOLE", 100.0)
    running: list[int] = []
    began: list[int] = []
    gate = threading.Event()

    @jobs.job("step", concurrency_key="{line}")
    def step(line: str, number: int) -> None:
        running.append(number)
        began.append(number)
        assert len(running) == 1 or line == "others"
        if number == 10:
            gate.wait(SOON.total_seconds())
        running.remove(number)

    def holders() -> list[tuple[object, ...]]:
        return query(dsn, "SELECT cardinality(running) FROM piecework.concurrency_keys WHERE concurrency_key = 'line'")

    async with jobs.worker():
        await (await jobs.spawn_all(step.spec("others", -1) for _ in range(WARM))).wait(timeout=SOON)
        began.clear()
        handles = await jobs.spawn_all(step.spec("line", number) for number in range(30))
        await until(lambda: 10 in began)
        [[held]] = holders()
        gate.set()
        await handles.results(timeout=SOON)
    assert began == [*range(30)]
    assert int(str(held)) > 1


async def test_the_next_of_a_chain_waits_for_the_transaction_in_which_the_one_before_it_ended(
    jobs: Jobs, dsn: str
) -> None:
    visible: list[int] = []

    @jobs.job("step", concurrency_key="{line}")
    async def step(job: CurrentJob, line: str, number: int) -> None:
        async with job.completing() as conn:
            [seen] = await (await conn.execute("SELECT count(*) FROM effects")).fetchone()  # type: ignore[misc]
            visible.append(int(str(seen)))
            await conn.execute(b"INSERT INTO effects VALUES (%s)", [number])

    query(dsn, "CREATE TABLE effects (number integer)")
    async with jobs.worker():
        handles = await jobs.spawn_all(step.spec("line", number) for number in range(100))
        await handles.results(timeout=SOON)
    assert visible == [*range(100)]


async def test_a_run_that_takes_too_long_ends_alone(jobs: Jobs, dsn: str) -> None:
    line = Line(jobs, dsn, timeout=timedelta(seconds=1))
    async with jobs.worker():
        await line.warm_up()
        line.waits = lambda number: number == 0 and line.began.count(0) == 1
        handles = await line.spawn(5)
        await until(lambda: line.running and line.holders() == 5)
        await line.ended(handles)
    assert line.began == [*range(5), 0]
    assert [moves(dsn, handle.id) for handle in handles] == [["retry"], [], [], [], []]
