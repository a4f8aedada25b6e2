"""Spawns of single jobs at the same time: few statements, and each caller gets the answer to its own job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextvars import ContextVar
from uuid import UUID

import msgspec
import pytest

from piecework.base.errors import DatabaseUnreachable, InvalidConfig
from piecework.model.job import NewJob
from piecework.store.gathering import Gathering, is_small
from support.scene import Scene, new_job

WHO = ContextVar("WHO", default="nobody")


class Statements:
    """Takes the place of the database: answers when the test says so, and refuses jobs of the type `bad`."""

    def __init__(self) -> None:
        self.sent: list[list[UUID]] = []
        """The ids of each statement."""
        self.for_whom: list[str] = []
        self.down = False
        self.broken: Exception | None = None
        self.answers = asyncio.Semaphore(0)

    async def __call__(self, jobs: Sequence[NewJob]) -> None:
        self.sent.append([job.id for job in jobs])
        self.for_whom.append(WHO.get())
        await self.answers.acquire()
        if self.broken is not None:
            raise self.broken
        if self.down:
            raise DatabaseUnreachable("it is away") from OSError("no route")
        if bad := [str(job.id) for job in jobs if job.job_type == "bad"]:
            raise InvalidConfig(f"{bad} refused")

    def answer_all(self) -> None:
        for _ in range(1000):
            self.answers.release()


class Callers:
    """Calls that are under way, each a task."""

    def __init__(self) -> None:
        self.statements = Statements()
        self.gathering = Gathering(self.statements)
        self.jobs: list[NewJob] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def call(self, *jobs: NewJob) -> asyncio.Task[None]:
        task = asyncio.create_task(self.gathering.spawn(jobs))
        self.jobs += jobs
        self.tasks.append(task)
        await turns()
        return task

    async def busy(self) -> None:
        """As many statements under way as there may be: what is spawned now waits."""
        while True:
            before = len(self.statements.sent)
            await self.call(new_job())
            if len(self.statements.sent) == before:
                return

    async def outcomes(self) -> list[BaseException | None]:
        self.statements.answer_all()
        async with asyncio.timeout(20):
            return await asyncio.gather(*self.tasks, return_exceptions=True)


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def callers() -> AsyncIterator[Callers]:
    callers = Callers()
    yield callers
    await asyncio.gather(*callers.tasks, return_exceptions=True)


async def test_whoever_spawns_alone_is_sent_at_once_and_in_its_own_task(callers: Callers) -> None:
    WHO.set("me")
    for n in range(5):
        await callers.call(new_job())
        assert len(callers.statements.sent) == n + 1
        callers.statements.answers.release()
        await callers.tasks[-1]
    assert callers.statements.for_whom == ["me"] * 5


async def test_what_waits_goes_together_in_its_order_when_a_statement_has_returned(callers: Callers) -> None:
    await callers.busy()
    under_way = len(callers.statements.sent)
    await callers.call(new_job(), new_job())
    for _ in range(20):
        await callers.call(new_job())
    assert len(callers.statements.sent) == under_way
    callers.statements.answers.release()
    await turns()
    [together] = callers.statements.sent[under_way:]
    assert together == [job.id for job in callers.jobs[under_way:]]
    assert [task.done() for task in callers.tasks[under_way:]] == [False] * 22
    assert await callers.outcomes() == [None] * len(callers.tasks)
    assert len(callers.statements.sent) == under_way + 1


async def test_nobody_is_spawned_in_the_context_of_another_caller(callers: Callers) -> None:
    WHO.set("me")
    await callers.busy()
    await callers.outcomes()
    assert callers.statements.for_whom[-1] == "nobody"


async def test_a_job_that_is_refused_fails_its_own_call_alone(callers: Callers) -> None:
    await callers.busy()
    bad = [new_job(job_type="bad") for _ in range(2)]
    for n in range(60):
        await callers.call(bad[0] if n == 17 else bad[1] if n == 40 else new_job())
    outcomes = await callers.outcomes()
    errors = {job.id: str(error) for job, error in zip(callers.jobs, outcomes, strict=True) if error is not None}
    assert errors == {job.id: f"['{job.id}'] refused" for job in bad}
    assert len(callers.statements.sent) < 40, "halves, not one by one"


async def test_all_jobs_of_one_call_are_sent_by_one_statement_also_beside_one_that_is_refused(callers: Callers) -> None:
    await callers.busy()
    pair = [new_job(), new_job()]
    await callers.call(new_job(job_type="bad"))
    await callers.call(*pair)
    await callers.outcomes()
    assert callers.statements.sent[-1] == [job.id for job in pair]


async def test_when_the_database_is_away_each_caller_is_told_once_and_nothing_is_tried_in_halves(
    callers: Callers,
) -> None:
    await callers.busy()
    for _ in range(10):
        await callers.call(new_job())
    callers.statements.down = True
    under_way = len(callers.statements.sent)
    errors = await callers.outcomes()
    assert len(callers.statements.sent) == under_way + 1
    assert {type(error) for error in errors} == {DatabaseUnreachable}
    assert len({id(error) for error in errors}) == len(errors), "each has an error of its own to raise"
    assert {str(error and error.__cause__) for error in errors} == {"no route"}


async def test_after_an_error_that_says_nothing_of_what_landed_nothing_is_sent_again(callers: Callers) -> None:
    await callers.busy()
    for _ in range(10):
        await callers.call(new_job())
    callers.statements.broken = AttributeError("a bug")
    under_way = len(callers.statements.sent)
    errors = await callers.outcomes()
    assert len(callers.statements.sent) == under_way + 1
    assert {type(error) for error in errors} == {AttributeError}


async def test_a_call_that_is_cancelled_while_it_waits_spawns_nothing_and_disturbs_nobody(callers: Callers) -> None:
    await callers.busy()
    gone = [await callers.call(new_job()) for _ in range(3)]
    await callers.call(new_job())
    for task in gone:
        task.cancel()
    outcomes = await callers.outcomes()
    assert [isinstance(each, asyncio.CancelledError) for each in outcomes[-4:]] == [True, True, True, False]
    sent = {id for statement in callers.statements.sent for id in statement}
    assert sent == {job.id for job, each in zip(callers.jobs, outcomes, strict=True) if each is None}


async def test_a_call_that_is_cancelled_while_it_is_sent_leaves_the_others_to_be_answered(callers: Callers) -> None:
    await callers.busy()
    await callers.call(new_job())
    callers.statements.answers.release()
    await turns()
    callers.tasks[-1].cancel()  # its statement is under way, with that of the one before it
    callers.tasks[0].cancel()  # or done already
    outcomes = await callers.outcomes()
    assert isinstance(outcomes[-1], asyncio.CancelledError)
    assert outcomes[1:-1] == [None] * (len(outcomes) - 2)


async def test_a_cancelled_first_call_has_those_behind_it_sent(callers: Callers) -> None:
    await callers.busy()
    for task in callers.tasks[:-1]:
        task.cancel()
    await turns()
    assert callers.statements.sent[-1] == [callers.jobs[-1].id]
    assert (await callers.outcomes())[-1] is None


async def test_a_statement_has_its_limits_and_more_follow(callers: Callers) -> None:
    await callers.busy()
    big = msgspec.Raw(b'"' + b"x" * 60_000 + b'"')
    for _ in range(40):
        await callers.call(new_job(config=big))
    for _ in range(30):
        await callers.call(*[new_job() for _ in range(90)])
    assert await callers.outcomes() == [None] * len(callers.tasks)
    assert max(len(statement) for statement in callers.statements.sent) <= 1_000
    size = {job.id: len(job.config) for job in callers.jobs}
    assert max(sum(size[id] for id in statement) for statement in callers.statements.sent) <= 1 << 20
    assert [id for statement in callers.statements.sent for id in statement] == [job.id for job in callers.jobs]


async def test_closing_waits_until_all_are_answered(callers: Callers) -> None:
    await callers.busy()
    for _ in range(5):
        await callers.call(new_job())
    callers.tasks[-1].cancel()
    await turns()
    closing = asyncio.create_task(callers.gathering.close())
    await turns()
    assert not closing.done()
    await callers.outcomes()
    async with asyncio.timeout(20):
        await closing
    async with asyncio.timeout(20):
        await callers.gathering.close()


async def test_when_the_loop_ends_nobody_waits_for_ever(callers: Callers) -> None:
    await callers.busy()
    await callers.call(new_job())
    callers.statements.answers.release()
    await turns()
    await callers.call(new_job())
    [sender] = [task for task in asyncio.all_tasks() if task.get_name() == "job-spawns"]
    sender.cancel()
    async with asyncio.timeout(20):
        await asyncio.wait(callers.tasks[-3:])
    assert all(task.cancelled() for task in callers.tasks[-3:])
    await callers.outcomes()


def test_what_may_wait_for_somebody_and_what_is_large_goes_by_itself() -> None:
    assert is_small([new_job()])
    assert is_small([new_job(concurrency_key="a"), new_job(delay=5, tags=["x"])])
    assert not is_small([new_job(key="a")])
    assert not is_small([new_job(), new_job(chosen=True)])
    assert not is_small([new_job() for _ in range(101)])
    assert not is_small([new_job(config=msgspec.Raw(b'"' + b"x" * 70_000 + b'"'))])


@pytest.mark.postgres(18, 15)
async def test_many_callers_take_few_transactions_and_all_their_jobs_are_there(scene: Scene) -> None:
    jobs = [new_job(config=msgspec.Raw(b'{"n": %d}' % n)) for n in range(300)]
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(scene.store.spawn([job])) for job in jobs]
    assert [call.result() for call in calls] == [{}] * 300
    assert scene.value("SELECT count(*) FROM jobs") == 300
    assert int(str(scene.value("SELECT count(DISTINCT xmin::text) FROM jobs"))) <= 10


@pytest.mark.postgres(18, 15)
async def test_a_value_that_the_database_refuses_fails_its_own_call_alone(scene: Scene) -> None:
    jobs = [new_job(config=msgspec.Raw(b'"\\u0000"' if n == 33 else b"{}")) for n in range(100)]
    outcomes = await asyncio.gather(*[scene.store.spawn([job]) for job in jobs], return_exceptions=True)
    [refused] = [n for n, each in enumerate(outcomes) if each != {}]
    assert refused == 33
    assert isinstance(outcomes[33], InvalidConfig)
    assert scene.value("SELECT count(*) FROM jobs") == 99


@pytest.mark.postgres(18, 15)
async def test_who_waits_for_a_key_makes_no_other_spawn_wait(scene: Scene) -> None:
    user = scene.session()
    held = new_job(key="k")
    user.execute(scene.statements.sql("spawn"), [msgspec.json.encode([held]).decode()])
    waiting = [asyncio.create_task(scene.store.spawn([new_job(key="k")])) for _ in range(2)]
    await scene.until_blocked()
    async with asyncio.timeout(4):  # the key is waited for for five seconds
        await asyncio.gather(*[scene.store.spawn([new_job()]) for _ in range(50)])
    assert not any(task.done() for task in waiting)
    user.commit()
    assert [list((await task).values()) for task in waiting] == [[held.id], [held.id]]
