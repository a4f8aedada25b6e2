"""How batched job types are defined, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from batched.helpers import ONCE, Doc, numbers, statuses
from engine.helpers import SOON, until

from piecework import (
    BatchedJobRunner,
    BatchItem,
    BatchOutcomes,
    CurrentBatch,
    CurrentJob,
    Fail,
    InvalidConfig,
    JobFunction,
    Jobs,
    RegistrationError,
    RetrySettings,
)


class Index(BatchedJobRunner[Doc, int]):
    job_type = "index"
    max_batch_size = 3
    max_concurrent_batches = 1
    retry = ONCE
    timeout = timedelta(minutes=1)

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def concurrency_key(self, config: Doc) -> str | None:
        return "nine" if config.number == 9 else None

    async def run_batch(self, batch: CurrentBatch[Doc]) -> BatchOutcomes[int]:
        self.batches.append(numbers(batch))
        return batch.outcomes(self.each)

    def each(self, item: BatchItem[Doc]) -> int | Fail:
        return Fail("five") if item.config.number == 5 else item.config.number


async def test_a_class_runs_batches_with_its_settings(jobs: Jobs) -> None:
    runner = Index()
    index = jobs.add(runner)
    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(10))
    async with jobs.worker():
        await handles.wait(timeout=SOON)
    assert await statuses(handles) == ["errored" if number == 5 else "completed" for number in range(10)]
    assert sorted(number for batch in runner.batches for number in batch) == list(range(10))
    assert max(map(len, runner.batches)) == 3
    assert (await handles[9].load()).concurrency_key == "nine"


async def test_jobs_of_a_class_are_spawned_without_a_runner(jobs: Jobs) -> None:
    handle = await jobs.spawner(Index).spawn(Doc(1))
    runner = Index()
    jobs.add(runner)
    async with jobs.worker():
        assert await handle.result(timeout=SOON) == 1


async def test_a_batched_function_stays_the_function(jobs: Jobs) -> None:
    @jobs.batched("other-name", max_size=2, retry=RetrySettings(n_attempts=2), queue="docs")
    async def index(batch: CurrentBatch[Doc]) -> None:
        """Index documents."""

    assert isinstance(index, JobFunction)
    assert (index.job_type, index.__name__, index.__doc__) == ("other-name", "index", "Index documents.")
    handle = await index.spawn(Doc(1))
    assert (await handle.load()).queue == "docs"


async def test_the_config_may_be_defined_below_the_function(jobs: Jobs) -> None:
    seen: list[str] = []

    @jobs.batched
    async def index(batch: CurrentBatch[Below]) -> None:
        seen.extend(item.config.text for item in batch.items)

    @dataclass
    class Below:
        text: str

    index.fn.__globals__["Below"] = Below
    try:
        await index.spawn(Below("found"))
        async with jobs.worker():
            await until(lambda: seen == ["found"])
    finally:
        del index.fn.__globals__["Below"]


async def test_a_batched_job_takes_one_config(jobs: Jobs) -> None:
    @jobs.batched
    async def index(batch: CurrentBatch[Doc]) -> None: ...

    spawn: Callable[..., object] = index.spec
    for wrong in ((), (1,), (Doc(1), Doc(2))):
        with pytest.raises(InvalidConfig):
            spawn(*wrong)
    with pytest.raises(InvalidConfig):
        spawn(number=1)


async def test_templates_name_fields_of_the_config(jobs: Jobs) -> None:
    @jobs.batched(key="doc-{number}", concurrency_key="{number}")
    async def index(batch: CurrentBatch[Doc]) -> None: ...

    snapshot = await (await index.spawn(Doc(7))).load()
    assert (snapshot.key, snapshot.concurrency_key) == ("doc-7", "7")
    with pytest.raises(RegistrationError, match="has no field size"):

        @jobs.batched(key="{size}")
        async def other(batch: CurrentBatch[Doc]) -> None: ...


async def takes_a_job(job: CurrentJob) -> None: ...
async def takes_a_config(doc: Doc) -> None: ...
async def takes_two(batch: CurrentBatch[Doc], more: int) -> None: ...
async def takes_nothing() -> None: ...
async def says_no_config(batch: CurrentBatch) -> None: ...
async def says_nothing(batch) -> None: ...  # type: ignore[no-untyped-def]
async def takes_an_object(batch: CurrentBatch[object]) -> None: ...
async def returns_a_value(batch: CurrentBatch[Doc]) -> int: ...  # type: ignore[empty-body]
async def takes_the_unreadable(batch: CurrentBatch[Jobs]) -> None: ...
async def returns_the_unreadable(batch: CurrentBatch[Doc]) -> BatchOutcomes[Jobs]: ...  # type: ignore[empty-body]
def blocks(batch: CurrentBatch[Doc]) -> None: ...


@pytest.mark.parametrize(
    "fn, says",
    [
        (takes_a_job, "one parameter, the batch"),
        (takes_a_config, "one parameter, the batch"),
        (takes_two, "this one has 2"),
        (takes_nothing, "this one has 0"),
        (says_no_config, "which config do its jobs have"),
        (says_nothing, "one parameter, the batch"),
        (takes_an_object, "which config do its jobs have"),
        (returns_a_value, "returns None, when all jobs of the batch complete, or BatchOutcomes"),
        (takes_the_unreadable, "which has no JSON form"),
        (returns_the_unreadable, "which has no JSON form"),
        (blocks, "write async def"),
    ],
)
def test_functions_that_cannot_run_batches_are_refused(fn: Callable[..., object], says: str) -> None:
    batched: Callable[..., object] = Jobs().batched
    with pytest.raises(RegistrationError, match=says):
        batched(fn)


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"max_size": 0}, "takes an int of 1 or more, not 0"),
        ({"max_size": "many"}, "takes an int of 1 or more, not 'many'"),
        ({"max_concurrent_batches": 0}, "max_concurrent_batches takes an int of 1 or more"),
        ({"max_concurrent_per_process": 3}, "write max_concurrent_batches"),
        ({"timeuot": timedelta(seconds=1)}, "timeuot"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict[str, object], says: str) -> None:
    async def index(batch: CurrentBatch[Doc]) -> None: ...

    batched: Callable[..., Callable[..., object]] = Jobs().batched
    with pytest.raises(RegistrationError, match=says):
        batched("index", **settings)(index)


def test_a_class_with_settings_without_meaning_is_refused() -> None:
    class NoBatches(Index):
        max_batch_size = 0

    class Singly(Index):
        max_concurrent_per_process = 3

    with pytest.raises(RegistrationError, match="the most jobs of a batch takes an int of 1 or more"):
        Jobs().add(NoBatches())
    with pytest.raises(RegistrationError, match="write max_concurrent_batches"):
        Jobs().add(Singly())


def test_a_second_job_type_of_the_name_is_refused() -> None:
    jobs = Jobs()
    jobs.add(Index())
    with pytest.raises(RegistrationError, match="registered twice"):

        @jobs.batched
        async def index(batch: CurrentBatch[Doc]) -> None: ...
