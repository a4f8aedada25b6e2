"""Spawning, looking, waiting, cancelling, retrying: against a real PostgreSQL, with a real worker where needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest

from piecework import (
    CurrentJob,
    DatabaseError,
    Fail,
    InvalidConfig,
    InvalidOptions,
    JobAlreadyExists,
    JobCancelled,
    JobErrored,
    JobNotFinished,
    JobNotFound,
    Jobs,
    NotOpen,
    Reschedule,
    RetrySettings,
    UndecodableResult,
    WrongConnection,
    new_id,
)

SOON = timedelta(seconds=20)
NOW = timedelta(0)


class Total(msgspec.Struct):
    sum: int


class App:
    """A Jobs with some job functions; what a running one does is steered by events."""

    def __init__(self, dsn: str) -> None:
        self.jobs = jobs = Jobs(dsn)
        self.started, self.go_on = asyncio.Event(), asyncio.Event()

        @jobs.job
        async def add(a: int, b: int = 1) -> Total:
            return Total(a + b)

        @jobs.job
        def shout(job: CurrentJob, text: str) -> str:
            return text.upper() * job.attempt

        @jobs.job
        async def give_up(n: int) -> int | Reschedule | Fail:
            return Fail("it is no use") if n < 0 else n

        @jobs.job(retry=RetrySettings.never())
        async def explode() -> None:
            raise ArithmeticError("boom")

        @jobs.job
        async def hold() -> str:
            self.started.set()
            await self.go_on.wait()
            return "held"

        @jobs.job
        async def lies() -> int:
            return "no number"  # type: ignore[return-value]

        @jobs.job
        async def anything(value: dict[str, object]) -> object:
            return value

        self.add, self.shout, self.give_up, self.explode = add, shout, give_up, explode
        self.hold, self.lies, self.anything = hold, lies, anything


@pytest.fixture
async def app(dsn: str) -> AsyncIterator[App]:
    app = App(dsn)
    async with app.jobs:
        yield app


async def test_a_spawned_job_is_found_as_it_was_spawned(app: App) -> None:
    before = datetime.now(UTC)
    mine = new_id()
    spawner = app.add.options(id=mine, queue="sums", priority=7, tags=["x", "y"], delay=timedelta(hours=1))
    handle = await spawner.spawn(2, b=3)
    assert handle.id == mine
    assert handle.created
    found = await app.jobs.find(mine)
    assert found is not None
    assert (found.id, found.job_type, found.status, found.queue, found.priority) == (mine, "add", "pending", "sums", 7)
    assert (found.attempt, found.tags, found.completed, found.finished) == (1, ("x", "y"), False, False)
    assert msgspec.json.decode(found.config) == {"a": 2, "b": 3}
    assert found.run_at is not None
    assert timedelta(minutes=59) < found.run_at - before < timedelta(minutes=61)


async def test_a_run_at_is_kept_to_the_microsecond(app: App) -> None:
    moment = datetime(2031, 5, 6, 7, 8, 9, 123_457, tzinfo=UTC)
    handle = await app.add.options(run_at=moment).spawn(1)
    assert (await handle.load()).run_at == moment


async def test_an_unknown_id_is_found_as_none_and_its_handle_says_so(app: App) -> None:
    nobody = new_id()
    assert await app.jobs.find(nobody) is None
    handle = app.jobs.handle(nobody)
    assert not handle.created
    for call in (handle.load, handle.cancel, handle.retry):
        with pytest.raises(JobNotFound, match=f"there is no job {nobody}"):
            await call()
    with pytest.raises(JobNotFound):
        await handle.result(timeout=SOON)


async def test_an_id_that_is_no_uuid_is_refused(app: App) -> None:
    text: Any = str(new_id())
    with pytest.raises(InvalidOptions, match=r"jobs.find\(…\) takes a uuid.UUID, not '"):
        await app.jobs.find(text)
    for handle in (app.jobs.handle, app.add.handle):
        with pytest.raises(InvalidOptions, match=r"write UUID\('…'\)"):
            handle(text)


async def test_results_come_back_typed_from_async_and_plain_functions(app: App) -> None:
    async with app.jobs.worker():
        handle = await app.add.spawn(2, b=3)
        assert await handle.result(timeout=SOON) == Total(5)
        assert await app.add.handle(handle.id).result(timeout=NOW) == Total(5)
        assert await app.jobs.handle(handle.id).result(timeout=NOW) == {"sum": 5}
        assert await (await app.shout.spawn("hey")).result(timeout=SOON) == "HEY"
        assert await (await app.give_up.spawn(4)).result(timeout=SOON) == 4


async def test_bulk_spawns_jobs_of_any_types_and_their_results_come_in_order(app: App) -> None:
    async with app.jobs.worker():
        specs = [app.add.spec(1), app.shout.options(priority=3).spec("b"), app.give_up.spec(3)]
        handles = await app.jobs.spawn_all(specs)
        assert [handle.id for handle in handles] == [spec.id for spec in specs]
        assert await handles.results(timeout=SOON) == [Total(2), "B", 3]
        assert [outcome.status for outcome in await handles[:2].wait(timeout=NOW)] == ["completed", "completed"]
        many = await app.jobs.spawn_all(app.add.spec(n) for n in range(1500))
        assert [total.sum for total in await many.results(timeout=SOON)] == list(range(1, 1501))


async def test_a_job_that_failed_raises_its_reason_to_whoever_waits(app: App) -> None:
    async with app.jobs.worker():
        refused = await app.give_up.spawn(-1)
        with pytest.raises(JobErrored, match=rf"job {refused.id} of type give_up errored in attempt 1: .*it is no use"):
            await refused.result(timeout=SOON)
        exploded = await app.explode.spawn()
        outcome = await exploded.wait(timeout=SOON)
        assert (outcome.status, outcome.result) == ("errored", None)
        assert outcome.error is not None
        assert (outcome.error.type, outcome.error.message) == ("ArithmeticError", "boom")
        both = await app.jobs.spawn_all([app.add.spec(1), app.explode.spec()])
        with pytest.raises(JobErrored, match="ArithmeticError: boom"):
            await both.results(timeout=SOON)
        assert [outcome.status for outcome in await both.wait(timeout=SOON)] == ["completed", "errored"]


async def test_a_result_of_another_type_than_declared_is_an_error_of_its_own(app: App) -> None:
    async with app.jobs.worker():
        handle = await app.lies.spawn()
        with pytest.raises(UndecodableResult, match="Expected `int`, got `str`"):
            await handle.result(timeout=SOON)
        assert await app.jobs.handle(handle.id).result(timeout=NOW) == "no number"


async def test_a_wait_that_times_out_says_how_the_job_stands(app: App) -> None:
    handle = await app.add.options(queue="nobody").spawn(1)
    with pytest.raises(JobNotFinished) as late:
        await handle.result(timeout=timedelta(milliseconds=50))
    assert f"job {handle.id} of type add is still pending" in str(late.value)
    assert "a worker running that takes the queue 'nobody'" in str(late.value)
    assert isinstance(late.value, TimeoutError)
    both = await app.jobs.spawn_all([app.add.spec(1), app.add.spec(2)])
    with pytest.raises(JobNotFinished, match="2 of 2 jobs have not ended"):
        await both.wait(timeout=NOW)


async def test_a_timeout_is_a_timedelta(app: App) -> None:
    handle = await app.add.spawn(1)
    with pytest.raises(TypeError, match=r"timeout= takes a timedelta, not 30: write timedelta\(seconds=…\)"):
        await handle.result(timeout=30)  # type: ignore[arg-type]


async def test_a_pending_job_can_be_cancelled_and_retried(app: App) -> None:
    handle = await app.add.spawn(1)
    assert not await handle.retry()
    assert await handle.cancel()
    assert not await handle.cancel()
    with pytest.raises(JobCancelled, match=f"job {handle.id} of type add was cancelled"):
        await handle.result(timeout=SOON)
    assert (await handle.load()).status == "cancelled"
    assert await handle.retry()
    assert (await handle.load()).status == "pending"
    async with app.jobs.worker():
        assert await handle.result(timeout=SOON) == Total(2)


async def test_a_running_job_is_cancelled_once(app: App) -> None:
    async with app.jobs.worker():
        handle = await app.hold.spawn()
        await app.started.wait()
        assert await handle.cancel()
        with pytest.raises(JobCancelled, match=f"job {handle.id} of type hold was cancelled"):
            await handle.result(timeout=SOON)
        assert not await handle.cancel()


async def test_many_handles_are_cancelled_at_once(app: App) -> None:
    handles = await app.jobs.spawn_all(app.add.spec(n) for n in range(3))
    await handles[1].cancel()
    assert await handles.cancel() == [True, False, True]


async def test_an_id_can_be_spawned_only_once_also_after_its_job_ended(app: App) -> None:
    mine = new_id()
    handle = await app.add.options(id=mine).spawn(1)
    with pytest.raises(JobAlreadyExists, match=str(mine)):
        await app.add.options(id=mine).spawn(2)
    await handle.cancel()
    with pytest.raises(JobAlreadyExists, match=str(mine)):
        await app.add.options(id=mine).spawn(2)
    assert msgspec.json.decode((await handle.load()).config) == {"a": 1}


async def test_bulk_is_all_or_nothing(app: App) -> None:
    mine = new_id()
    await app.add.options(id=mine).spawn(1)
    other = app.add.spec(2)
    with pytest.raises(JobAlreadyExists):
        await app.jobs.spawn_all([other, app.add.options(id=mine).spec(3)])
    assert await app.jobs.find(other.id) is None


async def test_bulk_refuses_what_cannot_be_meant(app: App) -> None:
    spec = app.add.spec(1)
    cases: list[tuple[Any, str]] = [
        ([], "spawn_all got no specs"),
        (spec, "got one spec"),
        ([spec, spec], "a spec twice"),
        ([app.add], r"number 0 is <JobFunction add>: write .spec\(…\) behind it"),
        ([spec, ("a", 1)], r"number 1 is \('a', 1\)"),
    ]
    for specs, says in cases:
        with pytest.raises(InvalidOptions, match=says):
            await app.jobs.spawn_all(specs)
    with pytest.raises(WrongConnection, match="is no connection that piecework knows"):
        await app.jobs.spawn_all([spec], conn=object())  # type: ignore[arg-type]
    assert await app.jobs.find(spec.id) is None


async def test_nothing_is_spawned_when_the_arguments_are_wrong(app: App, dsn: str) -> None:
    with pytest.raises(InvalidConfig):
        await app.add.spawn("one")  # type: ignore[arg-type]
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        assert await (await conn.execute("SELECT count(*) FROM piecework.jobs")).fetchone() == (0,)


async def test_unusual_texts_are_stored_as_they_are(app: App) -> None:
    value = {"quote": "\"\\'", "line": "\u2028\n", "face": "😀", "tag": "</script>", "brace": "{}$1 %s"}
    async with app.jobs.worker():
        assert await (await app.anything.spawn(value)).result(timeout=SOON) == value


async def test_a_spawn_on_a_jobs_that_is_not_open_says_what_to_do(dsn: str) -> None:
    app = App(dsn)
    with pytest.raises(NotOpen, match="this Jobs is not open: open it around everything that uses it: `async with"):
        await app.add.spawn(1)
    with pytest.raises(NotOpen):
        await app.jobs.spawn_all([app.add.spec(1)])
    with pytest.raises(NotOpen):
        app.add.spawn_sync(1)
    with pytest.raises(NotOpen):
        await app.jobs.handle(UUID(int=1)).load()
    with pytest.raises(NotOpen):
        await app.jobs.find(UUID(int=1))
    async with app.jobs:
        await app.add.spawn(1)
    with pytest.raises(NotOpen):
        await app.add.spawn(1)


async def test_closing_ends_the_waits_that_are_under_way(dsn: str) -> None:
    app = App(dsn)
    async with app.jobs:
        handle = await app.add.spawn(1)
        waiting = asyncio.create_task(handle.result(timeout=SOON))
        await asyncio.sleep(0)
    with pytest.raises(NotOpen, match="closed during a wait"):
        await waiting


async def test_a_refusal_of_the_database_is_an_error_of_piecework(app: App, dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute("DROP SCHEMA piecework CASCADE")
    with pytest.raises(DatabaseError):
        await app.add.spawn(1)
