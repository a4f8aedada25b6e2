"""Resources, opened and closed by workers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from engine.helpers import SOON, count, until, value

from piecework import Jobs, NotOpen, WorkerSettings


class Log:
    """Two resources of a `Jobs`, an async and a plain one, and what became of them."""

    def __init__(self, jobs: Jobs) -> None:
        self.events: list[str] = []
        self.threads: set[str] = set()
        self.gate = asyncio.Event()

        @jobs.resource
        async def first() -> AsyncIterator[str]:
            self.events.append("first opens")
            async with asyncio.timeout(None), asyncio.TaskGroup():  # which are left by the task that entered them
                yield "one"
            self.events.append("first closes")

        @jobs.resource
        def second() -> Iterator[str]:
            self.events.append(f"second opens after {first.get()}")
            self.threads.add(threading.current_thread().name)
            yield "two"
            self.threads.add(threading.current_thread().name)
            self.events.append("second closes")

        @jobs.job
        async def on_loop() -> str:
            return f"{first.get()} {second.get()}"

        @jobs.job
        def in_thread() -> str:
            return f"{first.get()} {second.get()}"

        @jobs.job
        async def waits() -> None:
            self.events.append("waits")
            await self.gate.wait()
            self.events.append(f"ends with {second.get()}")

        self.first, self.second, self.on_loop, self.in_thread, self.waits = first, second, on_loop, in_thread, waits


OPENED = ["first opens", "second opens after one"]
CLOSED = ["second closes", "first closes"]


async def test_a_worker_opens_them_in_order_and_closes_them_in_reverse(jobs: Jobs) -> None:
    log = Log(jobs)
    async with jobs.worker():
        assert log.events == OPENED
        assert await (await log.on_loop.spawn()).result(timeout=SOON) == "one two"
        assert await (await log.in_thread.spawn()).result(timeout=SOON) == "one two"
        assert log.events == OPENED
    assert log.events == OPENED + CLOSED
    assert log.threads == {"job-resource-second"}
    for resource in (log.first, log.second):
        with pytest.raises(NotOpen):
            resource.get()


async def test_they_are_closed_only_when_the_last_run_has_ended(jobs: Jobs) -> None:
    log = Log(jobs)
    async with jobs.worker():
        await log.waits.spawn()
        await until(lambda: "waits" in log.events)
        asyncio.get_running_loop().call_later(0.2, log.gate.set)
    assert log.events == [*OPENED, "waits", "ends with two", *CLOSED]


async def test_workers_of_one_process_share_them(jobs: Jobs) -> None:
    log = Log(jobs)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(jobs.worker())
        async with jobs.worker():
            pass
        assert log.events == OPENED
        assert await (await log.on_loop.spawn()).result(timeout=SOON) == "one two"
    assert log.events == OPENED + CLOSED


async def test_workers_that_start_at_once_open_them_once_and_the_next_worker_anew(jobs: Jobs) -> None:
    log = Log(jobs)

    async def work() -> None:
        async with jobs.worker():
            await asyncio.sleep(0.05)

    await asyncio.gather(work(), work())
    assert log.events == OPENED + CLOSED
    await work()
    assert log.events == (OPENED + CLOSED) * 2


async def test_an_error_while_one_opens_stops_the_worker_with_it_and_closes_those_before(
    jobs: Jobs, dsn: str
) -> None:
    log = Log(jobs)
    broken = True

    @jobs.resource
    async def third() -> AsyncIterator[int]:
        if broken:
            raise ConnectionError("no such host")
        yield 3

    handle = await log.on_loop.spawn()
    with pytest.raises(ConnectionError, match="no such host"):
        async with jobs.worker():
            raise AssertionError("it does not start")
    assert log.events == OPENED + CLOSED
    assert count(dsn, "workers") == 0
    assert (await jobs.find(handle.id)) is not None
    broken = False
    async with jobs.worker():
        assert await handle.result(timeout=SOON) == "one two"
        assert third.get() == 3


async def test_a_worker_that_is_cancelled_while_they_open_closes_them(jobs: Jobs) -> None:
    log = Log(jobs)
    opening = asyncio.Event()

    @jobs.resource
    async def third() -> AsyncIterator[int]:
        opening.set()
        await asyncio.Event().wait()
        yield 3

    async def work() -> None:
        async with jobs.worker():
            raise AssertionError("it does not start")

    working = asyncio.create_task(work())
    await opening.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert log.events == OPENED + CLOSED
    with pytest.raises(NotOpen):
        third.get()


async def test_an_error_while_one_closes_is_raised_and_the_others_are_closed(jobs: Jobs, dsn: str) -> None:
    log = Log(jobs)

    @jobs.resource
    async def third() -> AsyncIterator[int]:
        yield 3
        raise OSError("cannot close")

    async def work() -> None:
        async with jobs.worker():
            assert await (await log.on_loop.spawn()).result(timeout=SOON) == "one two"
            assert third.get() == 3

    with pytest.raises(OSError, match="cannot close"):
        await work()
    assert log.events == OPENED + CLOSED
    assert value(dsn, "SELECT count(*) FROM piecework.jobs WHERE worker_id IS NOT NULL") == 0


async def test_one_that_is_overridden_is_not_opened(jobs: Jobs) -> None:
    log = Log(jobs)
    with log.first.override("fake"):
        async with jobs.worker():
            assert await (await log.on_loop.spawn()).result(timeout=SOON) == "fake two"
    assert log.events == ["second opens after fake", "second closes"]


async def test_one_that_is_defined_while_a_worker_runs_is_for_the_next(jobs: Jobs) -> None:
    async with jobs.worker(WorkerSettings(concurrency=2)):
        log = Log(jobs)
        with pytest.raises(NotOpen, match="if it was defined by then"):
            log.first.get()
    async with jobs.worker():
        assert log.first.get() == "one"


async def test_a_worker_in_a_hurry_cancels_what_does_not_close(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("piecework.work.resource._HURRIED_CLOSE", 0.05)
    log = Log(jobs)
    closing = asyncio.Event()

    @jobs.resource
    async def third() -> AsyncIterator[int]:
        yield 3
        closing.set()
        await asyncio.Event().wait()

    async def work() -> None:
        async with jobs.worker():
            assert third.get() == 3

    working = asyncio.create_task(work())
    await closing.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert log.events == OPENED + CLOSED
