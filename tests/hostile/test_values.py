"""Configs, results, states and progress: each comes back as it went, by every door, or is refused there."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import psycopg
import pytest
from engine.app import ONCE
from engine.helpers import SOON
from hypothesis import given
from hypothesis import strategies as st

from hostile.helpers import connected, is_readable, refusal, sql
from hostile.texts import STRAY, alike, can_be_stored, texts, values
from piecework import ConfigTooLarge, CurrentJob, InvalidConfig, JobErrored, JobHandle, Jobs, UndecodableResult
from piecework.testing import current_job, in_memory
from support.examples import examples

SOME = st.lists(values(), min_size=1, max_size=6)


@examples(20)
@given(SOME)
async def test_a_value_comes_back_by_every_door(jobs: Jobs, sent: list[object]) -> None:
    @jobs.job
    async def echo(job: CurrentJob, value: object) -> object:
        return value

    handles: list[JobHandle[object]] = list(await jobs.spawn_all(echo.spec(value) for value in sent))
    async with await psycopg.AsyncConnection.connect(jobs.dsn) as conn:
        handles += [await echo.options(conn=conn).spawn(value) for value in sent]
    async with connected(jobs.dsn) as other:
        handles += [await echo.options(conn=other).spawn(value) for value in sent]
    handles += [await asyncio.to_thread(echo.spawn_sync, value) for value in sent]
    async with jobs.worker():
        came = [await handle.result(timeout=SOON) for handle in handles]
    for value, result in zip(sent * 4, came, strict=True):
        assert alike(value, result)


@examples(10)
@given(st.lists(st.tuples(values(), texts(30)), min_size=1, max_size=5))
async def test_state_result_and_progress_come_back(jobs: Jobs, sent: list[tuple[object, str]]) -> None:
    seen: dict[int, object] = {}

    @jobs.job
    async def carry(job: CurrentJob, number: int) -> object:
        value, note = sent[number]
        await job.save_state(value)
        seen[number] = job.execution_state(object)
        await job.progress(number, note)
        found = await jobs.find(job.id)
        assert found is not None
        assert found.progress is not None
        assert (found.progress.done, found.progress.note) == (number, note)
        assert value is None or alike(value, found.execution_state(object))
        await job.set_result(value)
        return None

    @jobs.job
    def carry_in_thread(job: CurrentJob, number: int) -> object:
        job.save_state_sync(sent[number][0])
        job.progress_sync(0.5, sent[number][1])
        job.set_result_sync(sent[number][0])
        return job.execution_state(object)

    async with jobs.worker():
        specs = [job.spec(number) for job in (carry, carry_in_thread) for number in range(len(sent))]
        came = await (await jobs.spawn_all(specs)).results(timeout=SOON)
    for number, (value, _) in enumerate(sent):
        assert alike(value, came[number])
        assert alike(value, came[len(sent) + number])
        assert alike(value, seen[number])


@examples(10)
@given(SOME)
async def test_the_store_in_memory_takes_the_same(sent: list[object]) -> None:
    jobs = Jobs()

    @jobs.job
    async def echo(job: CurrentJob, value: object) -> object:
        await job.save_state(value)
        return job.execution_state(object)

    async with in_memory(jobs), jobs.worker():
        handles = await jobs.spawn_all(echo.options(tags=["'\\"]).spec(value) for value in sent)
        came = await handles.results(timeout=SOON)
    assert all(map(alike, sent, came))


endless: list[object] = []
endless.append(endless)


def nested(depth: int) -> object:
    value: object = []
    for _ in range(depth):
        value = [value]
    return value


UNSTORABLE: dict[str, object] = {
    "nul": "a\0b", "surrogate": "a\ud800", "in a key": {"\0": 1}, "in a list": ["x", {"a": ["\udfff"]}],
    "nan": float("nan"), "infinite": [1, {"a": float("-inf")}], "endless": endless, "nested": nested(5000),
    "object": object(), "too many digits": 10**5000,
}  # fmt: skip


@pytest.mark.parametrize("value", UNSTORABLE.values(), ids=UNSTORABLE)
def test_a_config_that_cannot_be_stored_is_refused_by_the_name_of_the_argument(value: object) -> None:
    jobs = Jobs()

    @jobs.job
    async def echo(job: CurrentJob, value: object) -> None: ...

    refused = refusal(InvalidConfig, lambda: echo.spec(value))
    assert refused is not None
    assert "the argument value cannot be stored" in str(refused)
    assert is_readable(refused)


@pytest.mark.parametrize("value", UNSTORABLE.values(), ids=UNSTORABLE)
async def test_a_run_is_told_of_a_state_that_cannot_be_stored_and_goes_on(value: object) -> None:
    job = current_job(job_type="work")
    for refused in (
        refusal((ValueError, TypeError), lambda: job.save_state_sync(value)),
        refusal((ValueError, TypeError), lambda: job.set_result_sync(value)),
    ):
        assert refused is not None
        assert is_readable(refused)


@pytest.mark.parametrize("done", [float("nan"), float("inf"), 10**400, -(10**400), True, "half", None])
def test_progress_is_a_finite_number(done: Any) -> None:
    with pytest.raises(ValueError, match="finite number") as refused:
        current_job(job_type="work").progress_sync(done)
    assert is_readable(refused.value)


async def test_results_that_cannot_be_stored_fail_alone_and_say_why(jobs: Jobs) -> None:
    kinds = list(UNSTORABLE)

    @jobs.job(retry=ONCE)
    async def give(number: int) -> object:
        return UNSTORABLE[kinds[number // 2]] if number % 2 else number

    @jobs.job(retry=ONCE)
    def give_in_thread(number: int) -> object:
        return UNSTORABLE[kinds[number // 2]] if number % 2 else number

    numbers = range(2 * len(kinds))
    async with jobs.worker():
        specs = [*(give.spec(number) for number in numbers), *(give_in_thread.spec(number) for number in numbers)]
        handles = await jobs.spawn_all(specs)
        outcomes = await handles.wait(timeout=SOON)
    assert [outcome.result for outcome in outcomes] == [None if n % 2 else n for n in (*numbers, *numbers)]
    for outcome in outcomes[1::2]:
        assert outcome.error is not None
        assert 10 < len(outcome.error.message) < 1000


@examples(15)
@given(st.lists(st.sampled_from((*STRAY, "a", "\\", '"', "é", "\n")), min_size=1, max_size=40).map("".join))
async def test_a_text_is_stored_whole_or_refused(jobs: Jobs, text: str) -> None:
    @jobs.job
    async def echo(text: str) -> None: ...

    refused = refusal(InvalidConfig, lambda: echo.spec(text))
    assert (refused is None) is can_be_stored(text)
    if refused is None:
        handle = await echo.spawn(text)
        [(stored,)] = await sql(jobs.dsn, "SELECT config->>'text' FROM jobs WHERE id = %s", handle.id)
        assert stored == text


async def test_a_text_of_a_mebibyte_is_refused_by_its_size_or_comes_back_whole(dsn: str) -> None:
    small, large = Jobs(dsn), Jobs(dsn, max_config_size=8 << 20)
    text = "שé😀\u202e" * 2**17

    async def echo(text: str) -> str:
        return text

    with pytest.raises(ConfigTooLarge, match=r"1,441,803 bytes, the limit is 1,048,576") as refused:
        small.job(echo).spec(text)
    assert is_readable(refused.value)
    async with large, large.worker():
        assert await (await large.job(echo).spawn(text)).result(timeout=SOON) == text


async def test_a_config_that_is_nested_as_deep_as_it_can_be_spawned_runs_or_fails_alone(jobs: Jobs) -> None:
    """Between what can be written and what can be read in a claim there is a little: no worker stumbles over it."""

    @jobs.job(retry=ONCE)
    async def depth(job: CurrentJob, value: object) -> int:
        found = 0
        while isinstance(value, list) and value:
            value, found = value[0], found + 1
        return found

    @jobs.job(retry=ONCE, concurrency_key="one")
    async def keyed_depth(job: CurrentJob, value: object) -> int:
        return 0

    specs = []
    for levels in range(700, 1000):
        refused = refusal(InvalidConfig, lambda: specs.append(depth.spec(nested(levels))))  # noqa: B023
        if refused is not None:
            assert "nested too deeply" in str(refused)
            break
        specs += [depth.spec(nested(3))]
        if levels % 50 == 0:
            specs += [keyed_depth.spec(nested(levels))]
    handles = await jobs.spawn_all(specs)
    async with jobs.worker():
        outcomes = await handles.wait(timeout=SOON)
    assert all(outcome.status == "completed" for outcome in outcomes if outcome.result == 3)
    assert sum(outcome.result == 3 for outcome in outcomes) > 50


async def test_a_waiter_is_told_where_a_result_is_not_what_it_should_be(jobs: Jobs) -> None:
    @jobs.job
    async def count() -> int:
        return 1

    async with jobs.worker():
        handle = await count.spawn()
        assert await handle.result(timeout=SOON) == 1
    await sql(jobs.dsn, "UPDATE finished_jobs SET result = %s::jsonb", json.dumps("\x1b[31m\n" * 400))
    with pytest.raises(UndecodableResult) as refused:
        await handle.result(timeout=SOON)
    assert is_readable(refused.value)


async def test_an_error_that_was_stored_is_raised_whole_for_whoever_waits(jobs: Jobs) -> None:
    @jobs.job(retry=ONCE)
    async def fail(text: str) -> None:
        raise RuntimeError(text)

    async with jobs.worker():
        with pytest.raises(JobErrored, match="☃"):
            await (await fail.spawn("☃" * 2000)).result(timeout=SOON)
