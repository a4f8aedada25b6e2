"""Batches: which jobs run together, and how each of them ends."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import timedelta

import pytest
from batched.helpers import ONCE, QUICK, Doc, loaded, numbers, statuses
from engine.helpers import SOON, count, moves, query, value

from piecework import (
    BatchItem,
    BatchOutcomes,
    CurrentBatch,
    Fail,
    JobErrored,
    JobId,
    Jobs,
    Reschedule,
    WorkerSettings,
    new_id,
)


@pytest.mark.postgres(18, 15)
async def test_each_job_of_a_batch_runs_once_and_has_its_own_result(jobs: Jobs, dsn: str) -> None:
    ran: Counter[int] = Counter()
    sizes: list[int] = []

    @jobs.batched(max_size=10)
    async def double(batch: CurrentBatch[Doc]) -> BatchOutcomes[int]:
        ran.update(numbers(batch))
        sizes.append(len(batch.items))
        return batch.outcomes(lambda item: 2 * item.config.number)

    async with jobs.worker():
        handles = await jobs.spawn_all(double.spec(Doc(number)) for number in range(20))
        assert await handles.results(timeout=SOON) == [2 * number for number in range(20)]
    assert ran == Counter(range(20))
    assert max(sizes) > 1, "jobs that are due together run together"
    assert max(sizes) <= 10
    assert count(dsn, "jobs") == count(dsn, "attempts") == 0


async def test_a_batch_without_outcomes_completes_all_its_jobs(jobs: Jobs) -> None:
    @jobs.batched
    async def index(batch: CurrentBatch[Doc]) -> None: ...

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(30))
    async with jobs.worker():
        assert await handles.results(timeout=SOON) == [None] * 30


async def test_the_jobs_of_a_batch_end_each_in_its_own_way(jobs: Jobs, dsn: str) -> None:
    attempts: dict[int, list[int]] = {number: [] for number in range(4)}

    @jobs.batched(retry=QUICK)
    async def each(batch: CurrentBatch[Doc]) -> BatchOutcomes[str]:
        for item in batch.items:
            attempts[item.config.number].append(item.attempt)
        return batch.outcomes(outcome)

    def outcome(item: BatchItem[Doc]) -> str | Reschedule | Fail:
        match item.config.number, len(attempts[item.config.number]):
            case 0, _:
                return "done"
            case 1, _:
                return Fail("never again")
            case 2, 1:
                return Reschedule.now()
            case 3, 1:
                raise ConnectionError("try again")
            case number, _:
                return f"{number} at last"

    handles = await jobs.spawn_all(each.spec(Doc(number)) for number in range(4))
    async with jobs.worker():
        await handles.wait(timeout=SOON)
    assert await statuses(handles) == ["completed", "errored", "completed", "completed"]
    assert attempts == {0: [1], 1: [1], 2: [1, 1], 3: [1, 2]}
    assert [await handles[n].result(timeout=SOON) for n in (0, 2, 3)] == ["done", "2 at last", "3 at last"]
    with pytest.raises(JobErrored, match="never again"):
        await handles[1].result(timeout=SOON)
    assert [moves(dsn, handle.id) for handle in handles] == [[], ["fail"], ["reschedule"], ["retry"]]


async def test_an_error_of_the_batch_fails_each_of_its_jobs_which_run_alone_from_then_on(jobs: Jobs, dsn: str) -> None:
    batches: list[list[tuple[int, int]]] = []

    @jobs.batched(retry=QUICK)
    async def poisoned(batch: CurrentBatch[Doc]) -> BatchOutcomes[int]:
        batches.append([(item.config.number, item.attempt) for item in batch.items])
        if 3 in numbers(batch) and batch.items[0].attempt < 3:
            raise ValueError("poison")
        return batch.outcomes(lambda item: item.attempt)

    handles = await jobs.spawn_all(poisoned.spec(Doc(number)) for number in range(5))
    async with jobs.worker():
        assert await handles.results(timeout=SOON) == [2, 2, 2, 3, 2]
    assert batches[0] == [(number, 1) for number in range(5)]
    assert sorted(batches[1:]) == [[(0, 2)], [(1, 2)], [(2, 2)], [(3, 2)], [(3, 3)], [(4, 2)]]
    messages = query(dsn, "SELECT DISTINCT move, error->>'type', error->>'message' FROM piecework.attempts")
    assert messages == [("retry", "ValueError", "poison")]


async def test_each_failed_job_goes_through_its_own_retry_settings_and_is_named_in_the_log(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    @jobs.batched(retry=ONCE)
    async def broken(batch: CurrentBatch[Doc]) -> None:
        raise ValueError("broken")

    handles = await jobs.spawn_all(broken.spec(Doc(number)) for number in range(3))
    with caplog.at_level(logging.ERROR, "piecework.job"):
        async with jobs.worker():
            await handles.wait(timeout=SOON)
    assert await statuses(handles) == ["errored"] * 3
    assert all(any(str(handle.id) in line for line in caplog.messages) for handle in handles)


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda ids: BatchOutcomes(dict.fromkeys(ids[1:])), "has 0"),
        (lambda ids: BatchOutcomes([(id, None) for id in (*ids, ids[0])]), "has 2"),
        (lambda ids: BatchOutcomes([*((id, None) for id in ids), (new_id(), None)]), "is not in the batch"),
    ],
    ids=["missing", "twice", "foreign"],
)
async def test_outcomes_that_do_not_fit_fail_the_batch_rather_than_being_guessed(
    jobs: Jobs, wrong: object, says: str
) -> None:
    @jobs.batched(retry=ONCE)
    async def guesses(batch: CurrentBatch[Doc]) -> BatchOutcomes:
        return wrong([item.id for item in batch.items])  # type: ignore[operator,no-any-return]

    handles = await jobs.spawn_all(guesses.spec(Doc(number)) for number in range(3))
    async with jobs.worker():
        await handles.wait(timeout=SOON)
    for snapshot in await loaded(handles):
        assert snapshot.status == "errored"
        assert snapshot.error is not None
        assert snapshot.error.type == "piecework.BatchOutcomeMismatch"
        assert says in snapshot.error.message


async def test_outcomes_may_be_given_by_id(jobs: Jobs) -> None:
    @jobs.batched(retry=ONCE)
    async def sorts(batch: CurrentBatch[Doc]) -> BatchOutcomes[str]:
        found: dict[JobId, str | Fail | ValueError] = {}
        for item in batch.items:
            odd = item.config.number % 2
            found[item.id] = ValueError("odd") if odd else f"even {item.config.number}"
        return BatchOutcomes(found)

    handles = await jobs.spawn_all(sorts.spec(Doc(number)) for number in range(4))
    async with jobs.worker():
        await handles.wait(timeout=SOON)
    assert await statuses(handles) == ["completed", "errored", "completed", "errored"]


async def test_what_is_no_outcome_fails_the_batch(jobs: Jobs) -> None:
    @jobs.batched(retry=ONCE)
    async def answers(batch: CurrentBatch[Doc]) -> None:
        return 7  # type: ignore[return-value]

    handle = await answers.spawn(Doc(1))
    async with jobs.worker():
        with pytest.raises(JobErrored, match=r"TypeError: a batch returns BatchOutcomes, or None .*, not 7"):
            await handle.result(timeout=SOON)


async def test_a_config_that_cannot_be_read_fails_its_own_job_alone(jobs: Jobs, dsn: str) -> None:
    ran: list[list[int]] = []

    @jobs.batched(retry=ONCE)
    async def reads(batch: CurrentBatch[Doc]) -> None:
        ran.append(numbers(batch))

    handles = await jobs.spawn_all(reads.spec(Doc(number)) for number in range(4))
    query(dsn, "UPDATE piecework.jobs SET config = '{\"number\": \"two\"}' WHERE id = %s", handles[2].id)
    async with jobs.worker():
        await handles.wait(timeout=SOON)
    assert ran == [[0, 1, 3]]
    assert await statuses(handles) == ["completed", "completed", "errored", "completed"]


async def test_a_result_that_cannot_be_stored_fails_its_own_job_alone(jobs: Jobs) -> None:
    @jobs.batched(retry=ONCE)
    async def makes(batch: CurrentBatch[Doc]) -> BatchOutcomes[object]:
        return batch.outcomes(lambda item: object() if item.config.number == 1 else item.config.number)

    handles = await jobs.spawn_all(makes.spec(Doc(number)) for number in range(3))
    async with jobs.worker():
        await handles.wait(timeout=SOON)
    assert await statuses(handles) == ["completed", "errored", "completed"]


async def test_jobs_of_one_concurrency_key_are_never_in_one_batch(jobs: Jobs) -> None:
    batches: list[list[int]] = []

    @jobs.batched(concurrency_key="one", concurrency_limit=10)
    async def keyed(batch: CurrentBatch[Doc]) -> None:
        batches.append(numbers(batch))

    handles = await jobs.spawn_all(keyed.spec(Doc(number)) for number in range(10))
    async with jobs.worker():
        await handles.wait(timeout=SOON)
    assert sorted(batches) == [[number] for number in range(10)]


async def test_jobs_of_different_concurrency_keys_run_together_in_the_order_of_their_keys(
    jobs: Jobs, dsn: str
) -> None:
    batches: list[list[int]] = []

    @jobs.batched(concurrency_key="key-{number}")
    async def keyed(batch: CurrentBatch[Doc]) -> None:
        batches.append(numbers(batch))

    handles = await jobs.spawn_all(keyed.spec(Doc(number)) for number in (3, 1, 2, 5, 4))
    async with jobs.worker():
        await handles.wait(timeout=SOON)
    assert batches == [[1, 2, 3, 4, 5]]
    assert count(dsn, "concurrency_keys") == 0


async def test_jobs_with_a_key_are_spawned_once_and_run_in_batches(jobs: Jobs) -> None:
    @jobs.batched(key="doc-{number}")
    async def keyed(batch: CurrentBatch[Doc]) -> None: ...

    handles = await jobs.spawn_all(keyed.spec(Doc(number)) for number in (1, 2, 1))
    assert [handle.created for handle in handles] == [True, True, False]
    async with jobs.worker():
        await handles.wait(timeout=SOON)


async def test_what_the_jobs_of_a_batch_save_is_there_for_their_retries_and_goes_with_their_end(
    jobs: Jobs, dsn: str
) -> None:
    found: list[tuple[int, int | None]] = []

    @jobs.batched(retry=QUICK)
    async def saves(batch: CurrentBatch[Doc]) -> BatchOutcomes[str | None]:
        for item in batch.items:
            found.append((item.config.number, item.execution_state(int)))
            await item.save_state(10 * item.config.number)
            await item.set_result(f"so far {item.config.number}")
            await item.progress(1)
        if batch.items[0].attempt == 1:
            raise ConnectionError
        return batch.outcomes(lambda item: Fail("enough") if item.config.number == 1 else None)

    handles = await jobs.spawn_all(saves.spec(Doc(number)) for number in range(3))
    async with jobs.worker():
        await handles.wait(timeout=SOON)
    assert await statuses(handles) == ["completed", "errored", "completed"]
    assert sorted(found, key=str) == [(0, 0), (0, None), (1, 10), (1, None), (2, 20), (2, None)]
    assert count(dsn, "execution_states") == count(dsn, "progress") == 0
    assert value(dsn, "SELECT result #>> '{}' FROM piecework.finished_jobs WHERE id = %s", handles[2].id) == "so far 2"


async def test_the_task_of_a_batch_bears_its_job_type_and_size(jobs: Jobs) -> None:
    names: list[str] = []

    @jobs.batched("re-index")
    async def reindex(batch: CurrentBatch[Doc]) -> None:
        task = asyncio.current_task()
        assert task is not None
        names.append(task.get_name())

    handles = await jobs.spawn_all(reindex.spec(Doc(number)) for number in range(3))
    async with jobs.worker():
        await handles.wait(timeout=SOON)
    assert names == ["job-batch-re-index-3"]


async def test_batches_and_single_jobs_share_the_worker_and_neither_starves(jobs: Jobs) -> None:
    @jobs.batched(max_size=5)
    async def together(batch: CurrentBatch[Doc]) -> None:
        await asyncio.sleep(0.001)

    @jobs.job
    async def alone(number: int) -> int:
        await asyncio.sleep(0.001)
        return number

    specs = [spec for n in range(200) for spec in (together.spec(Doc(n)), alone.spec(n))]
    handles = await jobs.spawn_all(specs)
    async with jobs.worker(WorkerSettings(concurrency=2)):
        await handles.wait(timeout=SOON)
    assert set(await statuses(handles)) == {"completed"}


async def test_a_better_priority_of_batches_goes_before_single_jobs(jobs: Jobs) -> None:
    order: list[str] = []

    @jobs.batched(max_size=2, priority=0)
    async def first(batch: CurrentBatch[Doc]) -> None:
        order.extend("b" for _ in batch.items)

    @jobs.job(priority=1)
    async def later() -> None:
        order.append("s")

    handles = await jobs.spawn_all([later.spec() for _ in range(10)] + [first.spec(Doc(n)) for n in range(10)])
    async with jobs.worker(WorkerSettings(concurrency=1, prefetch=0)):
        await handles.wait(timeout=SOON)
    assert "".join(order) == "b" * 10 + "s" * 10


async def test_a_job_of_a_batch_runs_when_it_is_due(jobs: Jobs) -> None:
    seen: list[int] = []

    @jobs.batched
    async def again(batch: CurrentBatch[Doc]) -> BatchOutcomes[int]:
        seen.extend(numbers(batch))
        return batch.outcomes(
            lambda item: Reschedule.after(timedelta(milliseconds=200)) if seen.count(item.config.number) < 2 else 1
        )

    async with jobs.worker():
        handle = await again.options(delay=timedelta(milliseconds=100)).spawn(Doc(1))
        assert await handle.result(timeout=SOON) == 1
    assert seen == [1, 1]
