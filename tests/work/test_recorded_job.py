"""Job functions that are called in a test, with a `CurrentJob` that has no worker behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict

import pytest

from piecework import ClaimLost, CurrentJob, Jobs, Reschedule, UndecodableState
from piecework.testing import current_job

jobs = Jobs()
CONN: Any = object()
"""A connection of the test: nothing is sent on it."""


@dataclass
class Cursor:
    page: int = 0


class Place(TypedDict):
    page: int


@jobs.job
async def pages(job: CurrentJob, last: int) -> int:
    cursor = job.execution_state(Cursor) or Cursor()
    while cursor.page < last and not job.shutdown_requested:
        cursor.page += 1
        await job.save_state(cursor)
        await job.progress(cursor.page / last, f"page {cursor.page}")
    await job.set_result(cursor.page)
    return job.attempt


async def test_a_job_function_is_called_with_a_recorded_job() -> None:
    job = current_job(attempt=2, state=Cursor(page=3))
    assert await pages(job, 4) == 2
    assert job.reports == [(1.0, "page 4")]
    assert job.results == [4]
    assert job.saved == [Cursor(4)]


def test_the_state_is_read_as_whatever_type_is_asked_for_and_is_a_new_value_each_time() -> None:
    job = current_job(state={"page": 7})
    first = job.execution_state(Cursor)
    assert first == Cursor(7)
    assert job.execution_state(Cursor) is not first
    assert job.execution_state(Place) == {"page": 7}
    assert job.execution_state(dict[str, int]) == {"page": 7}
    assert current_job(state=[1, 2]).execution_state(list[int]) == [1, 2]
    assert current_job().execution_state(Cursor) is None


def test_a_state_of_another_type_is_an_error_that_shows_it() -> None:
    job = current_job(state={"page": "seven"}, job_type="crawl")
    with pytest.raises(UndecodableState, match=rf"(?s){job.id} of type crawl is no .*Cursor.*int.*\"seven\""):
        job.execution_state(Cursor)


async def test_a_state_that_cannot_be_written_is_refused_and_the_one_before_stays() -> None:
    job = current_job(state=1)
    with pytest.raises(TypeError, match=r"the execution state of job .* cannot be stored"):
        await job.save_state(object())
    with pytest.raises(ValueError, match="NUL"):
        job.save_state_sync("\0")
    with pytest.raises(ValueError, match="NUL"):
        job.progress_sync(1, "\0")
    for done in (float("nan"), float("inf"), True, "half"):
        with pytest.raises(ValueError, match="a finite number"):
            await job.progress(done)  # type: ignore[arg-type]
    assert (job.execution_state(int), job.saved, job.reports) == (1, [], [])


async def test_what_is_saved_on_a_connection_is_not_answered_in_the_same_run() -> None:
    job = current_job(state=1)
    await job.save_state(2, conn=CONN)
    assert job.execution_state(int) == 1
    await job.save_state(3)
    assert job.execution_state(int) == 3
    assert job.saved == [2, 3]
    await job.save_state(None)
    assert job.execution_state(int) is None


async def test_after_the_claim_is_lost_every_write_raises_and_changes_nothing() -> None:
    job = current_job(state=1)
    job.lose_claim()
    with pytest.raises(ClaimLost, match=r"save_state has no effect on job .* \(claim 1\)"):
        await job.save_state(2)
    for write in (
        lambda: job.save_state_sync(2), lambda: job.set_result_sync(2), lambda: job.progress_sync(2),
        lambda: job.guard_sync(CONN), lambda: job.complete_in_sync(CONN),
    ):  # fmt: skip
        with pytest.raises(ClaimLost):
            write()
    assert (job.execution_state(int), job.saved, job.results, job.completions) == (1, [], [], [])


async def test_a_block_completes_with_the_connection_that_it_was_given() -> None:
    opened: list[str] = []

    @asynccontextmanager
    async def begin() -> AsyncIterator[str]:
        opened.append("begin")
        yield "the connection"
        opened.append("commit")

    @contextmanager
    def begin_sync() -> Iterator[int]:
        yield 7

    job = current_job()
    async with job.completing(begin=begin) as conn:
        assert conn == "the connection"
        assert job.completions == []
    assert opened == ["begin", "commit"]
    again = Reschedule.after(timedelta(hours=1))
    with job.completing(again, begin=begin_sync) as number:
        assert number == 7
    assert job.completions == [None, again]
    with pytest.raises(ZeroDivisionError):
        async with job.completing(begin=begin):
            raise ZeroDivisionError
    assert len(job.completions) == 2
    assert opened == ["begin", "commit", "begin"]


async def test_a_block_needs_something_that_opens_a_connection() -> None:
    job = current_job()
    with pytest.raises(RuntimeError, match="begin="):
        async with job.completing():
            pass
    with pytest.raises(TypeError, match=r"engine\.begin"):
        job.completing(begin=7)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"completing\(7\) takes Reschedule"):
        job.completing(7)  # type: ignore[call-overload]


async def test_a_rescheduled_job_has_no_result() -> None:
    job = current_job()
    with pytest.raises(TypeError, match="set_result"):
        await job.complete_in(CONN, Reschedule.now(), result=7)
    await job.complete_in(CONN, result=8)
    assert (job.results, job.completions) == ([8], [None])


async def test_blocks_of_one_job_do_not_nest() -> None:
    @contextmanager
    def begin() -> Iterator[None]:
        yield

    job = current_job()
    with job.completing(begin=begin), pytest.raises(RuntimeError, match="do not nest"), job.completing(begin=begin):
        pass


async def test_everybody_who_waits_for_the_shutdown_is_told_and_who_comes_later_too() -> None:
    job = current_job()
    waiting = [asyncio.create_task(job.wait_for_shutdown()) for _ in range(3)]
    in_thread = asyncio.create_task(asyncio.to_thread(job.wait_for_shutdown_sync))
    given_up = asyncio.create_task(job.wait_for_shutdown())
    await asyncio.sleep(0)
    given_up.cancel()
    assert not job.shutdown_requested
    assert job.wait_for_shutdown_sync(timedelta(milliseconds=1)) is False
    await asyncio.to_thread(job.request_shutdown)
    async with asyncio.timeout(20):
        await asyncio.gather(*waiting)
        assert await in_thread is True
        await job.wait_for_shutdown()
    assert [job.shutdown_requested, job.shutdown_requested] == [True, True]
    assert given_up.cancelled() or await asyncio.gather(given_up, return_exceptions=True)


async def test_a_loop_that_was_closed_while_it_waited_does_not_keep_others_from_being_told() -> None:
    job = current_job()

    def wait_on_a_loop_of_its_own() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(job.wait_for_shutdown())
        loop.run_until_complete(asyncio.sleep(0))
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()

    await asyncio.to_thread(wait_on_a_loop_of_its_own)
    waiting = asyncio.create_task(job.wait_for_shutdown())
    await asyncio.sleep(0)
    job.request_shutdown()
    async with asyncio.timeout(20):
        await waiting


def test_a_job_has_what_it_was_made_with() -> None:
    job = current_job(Cursor(3), attempt=2, queue="mail", job_type="send")
    assert (job.config, job.attempt, job.claim_no, job.queue, job.job_type) == (Cursor(3), 2, 2, "mail", "send")
    assert not job.cancel_requested
    job.request_cancel()
    assert job.cancel_requested
