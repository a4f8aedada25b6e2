"""Jobs of classes, run by a worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict

import msgspec
import pytest
from engine.app import QUICK
from engine.helpers import SOON, moves, query, until

from piecework import (
    CurrentJob,
    Fail,
    JobCompletion,
    JobErrored,
    JobInitializer,
    JobRunner,
    Jobs,
    Reschedule,
    RetrySettings,
    UndecodableResult,
)


@dataclass
class Sync:
    account: str
    full: bool = False


class Report(msgspec.Struct):
    rows: int


class Bank:
    """What a runner is given."""

    def __init__(self) -> None:
        self.pages: list[str] = []

    async def page(self, account: str) -> int:
        self.pages.append(account)
        return len(self.pages)


class SyncAccount(JobRunner[Sync, Report]):
    job_type = "sync-account"
    retry = QUICK

    def __init__(self, bank: Bank) -> None:
        self.bank = bank

    async def run(self, job: CurrentJob[Sync]) -> Report | Reschedule | Fail:
        assert type(job.config) is Sync
        if job.config.account == "nobody":
            return Fail("no such account")
        rows = await self.bank.page(job.config.account)
        return Reschedule.now() if rows < 3 else Report(rows)


@pytest.mark.postgres(18, 15)
async def test_a_runner_runs_with_what_it_was_given_and_its_config(jobs: Jobs, dsn: str) -> None:
    bank = Bank()
    accounts = jobs.add(SyncAccount(bank))
    async with jobs.worker():
        handle = await accounts.spawn(Sync("ada"))
        assert await handle.result(timeout=SOON) == Report(3)
        with pytest.raises(JobErrored, match="no such account"):
            await (await accounts.spawn(Sync("nobody"))).result(timeout=SOON)
    assert bank.pages == ["ada"] * 3
    assert moves(dsn, handle.id) == ["reschedule", "reschedule"]
    assert query(dsn, "SELECT config FROM piecework.finished_jobs WHERE id = %s", handle.id) == [
        ({"account": "ada", "full": False},)
    ]


class Row(TypedDict):
    sku: str


@pytest.mark.parametrize(
    "kind, config", [(int, 7), (list[str], ["a"]), (Row, {"sku": "tea"}), (int | None, None), (type(None), None)]
)
async def test_a_config_may_be_any_plain_value(jobs: Jobs, kind: Any, config: Any) -> None:
    class Echo(JobRunner[kind, kind]):  # type: ignore[valid-type]
        job_type = "echo"

        async def run(self, job: CurrentJob[Any]) -> Any:
            return job.config

    echo = jobs.add(Echo())
    async with jobs.worker():
        assert await (await echo.spawn(config)).result(timeout=SOON) == config


async def test_a_failing_run_is_retried_with_the_settings_of_the_class(jobs: Jobs, dsn: str) -> None:
    attempts: list[int] = []

    class Fails(JobRunner[int]):
        job_type = "fails"
        retry = RetrySettings(n_attempts=3, min_backoff=timedelta(0), max_backoff=timedelta(0))
        fail_on = (KeyError,)

        async def run(self, job: CurrentJob[int]) -> None:
            attempts.append(job.attempt)
            raise KeyError("gone") if job.config else ValueError("boom")

    fails = jobs.add(Fails())
    async with jobs.worker():
        with pytest.raises(JobErrored, match=r"in attempt 3: .*ValueError: boom"):
            await (await fails.spawn(0)).result(timeout=SOON)
        with pytest.raises(JobErrored, match="in attempt 1"):
            await (await fails.spawn(1)).result(timeout=SOON)
    assert attempts == [1, 2, 3, 1]


async def test_a_runner_that_runs_too_long_is_stopped(jobs: Jobs) -> None:
    class Slow(JobRunner[int]):
        job_type = "slow"
        timeout = timedelta(milliseconds=50)
        retry = RetrySettings.never()

        async def run(self, job: CurrentJob[int]) -> None:
            await asyncio.Event().wait()

    slow = jobs.add(Slow())
    async with jobs.worker():
        with pytest.raises(JobErrored, match="TimeoutError"):
            await (await slow.spawn(1)).result(timeout=SOON)


async def test_runners_of_one_class_are_different_job_types(jobs: Jobs) -> None:
    class Tenant(JobRunner[int, str]):
        def __init__(self, tenant: str) -> None:
            self.tenant = tenant
            self.job_type = f"tenant-{tenant}"

        async def run(self, job: CurrentJob[int]) -> str:
            return f"{self.tenant} {job.config}"

    spawners = [jobs.add(Tenant(tenant)) for tenant in ("a", "b")]
    async with jobs.worker():
        handles = [await spawner.spawn(number) for number, spawner in enumerate(spawners)]
        assert [await handle.result(timeout=SOON) for handle in handles] == ["a 0", "b 1"]


async def test_a_runner_that_is_added_while_a_worker_runs_is_taken_up(jobs: Jobs) -> None:
    async with jobs.worker():
        waiting = await jobs.spawner(SyncAccount).spawn(Sync("ada"))
        accounts = jobs.add(SyncAccount(Bank()))
        assert (await (await accounts.spawn(Sync("ada"))).result(timeout=SOON)).rows >= 3
        assert (await waiting.result(timeout=SOON)).rows >= 3


class Built(JobInitializer[Sync, str]):
    job_type = "built"
    retry = RetrySettings(n_attempts=2, min_backoff=timedelta(0), max_backoff=timedelta(0))

    def __init__(self) -> None:
        self.made: list[str] = []

    def init(self, job: CurrentJob[Sync]) -> JobRunner[Sync, str]:
        self.made.append(job.config.account)
        if job.config.account == "bad":
            raise LookupError("no such entity")
        if job.config.account == "wrong":
            return "no runner"  # type: ignore[return-value]
        return Greets(job.config.account)


class Greets(JobRunner[Sync, str]):
    def __init__(self, name: str) -> None:
        self.name = name

    async def run(self, job: CurrentJob[Sync]) -> str:
        return f"Hello {self.name}"


@pytest.mark.parametrize("bad, says", [("bad", "LookupError: no such entity"), ("wrong", "which is no JobRunner")])
async def test_an_initializer_builds_a_runner_per_job_and_its_failure_is_that_of_the_job_alone(
    jobs: Jobs, bad: str, says: str
) -> None:
    initializer = Built()
    built = jobs.add(initializer)
    handles = await jobs.spawn_all([built.spec(Sync(name)) for name in ("ada", bad, "grace")])
    async with jobs.worker():
        assert await handles[0].result(timeout=SOON) == "Hello ada"
        assert await handles[2].result(timeout=SOON) == "Hello grace"
        with pytest.raises(JobErrored, match=says):
            await handles[1].result(timeout=SOON)
    assert sorted(initializer.made) == sorted(["ada", "grace", bad, bad])
    assert (await handles[1].load()).attempt == 2


async def test_an_initializer_may_give_up(jobs: Jobs) -> None:
    class GivesUp(JobInitializer[int]):
        job_type = "gives-up"

        def init(self, job: CurrentJob[int]) -> JobRunner[int]:
            raise Fail("it is no use")

    gives_up = jobs.add(GivesUp())
    async with jobs.worker():
        with pytest.raises(JobErrored, match=r"in attempt 1.*it is no use"):
            await (await gives_up.spawn(1)).result(timeout=SOON)


async def test_a_result_of_another_type_is_told_to_who_waits(jobs: Jobs) -> None:
    class Lies(JobRunner[int]):
        job_type = "lies"

        async def run(self, job: CurrentJob[int]) -> JobCompletion:
            return "something"  # type: ignore[return-value]

    lies = jobs.add(Lies())
    async with jobs.worker():
        handle = await lies.spawn(1)
        with pytest.raises(UndecodableResult):
            await handle.result(timeout=SOON)


# What was stored under the class of yesterday.


@dataclass
class Wider:
    account: str
    full: bool = False
    region: str = "eu"


def reading(kind: Any, *, is_strict: bool = False) -> JobRunner[Any, str]:
    class Reads(JobRunner[kind, str]):  # type: ignore[valid-type]
        job_type = "reads"
        strict = is_strict
        retry = RetrySettings(n_attempts=2, min_backoff=timedelta(0), max_backoff=timedelta(0))

        async def run(self, job: CurrentJob[Any]) -> str:
            return repr(job.config)

    return Reads()


async def test_a_field_that_is_not_known_any_more_is_ignored_with_one_warning(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    old = Jobs().add(reading(Wider))
    jobs.add(reading(Sync))
    async with jobs.worker():
        handles = await jobs.spawn_all([old.spec(Wider(name)) for name in "ab"])
        results = [await handle.result(timeout=SOON) for handle in handles]
    assert results == ["Sync(account='a', full=False)", "Sync(account='b', full=False)"]
    warnings = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "job type reads: stored configs have a field 'region'" in warnings[0]


async def test_a_field_that_is_not_known_fails_the_attempt_of_a_strict_type(jobs: Jobs) -> None:
    old = Jobs().add(reading(Wider))
    jobs.add(reading(Sync, is_strict=True))
    async with jobs.worker():
        handles = await jobs.spawn_all([old.spec(Wider("a"))])
        with pytest.raises(JobErrored, match=r"in attempt 2.*strict=True forbids to ignore them: 'region'"):
            await handles[0].result(timeout=SOON)


async def test_a_strict_function_fails_on_a_field_that_it_does_not_take(jobs: Jobs) -> None:
    def old(n: int, region: str = "eu") -> int:
        return n

    def new(n: int) -> int:
        return n

    strict = {"strict": True, "retry": RetrySettings.never()}
    define: Callable[..., Any] = jobs.job("count", **strict)  # type: ignore[arg-type]
    define(new)
    spawner = Jobs().job("count")(old)
    async with jobs.worker():
        passed, failed = await jobs.spawn_all([spawner.spec(1), spawner.spec(2, region="us")])
        assert await passed.result(timeout=SOON) == 1
        with pytest.raises(JobErrored, match="strict=True forbids to ignore them: 'region'"):
            await failed.result(timeout=SOON)


async def test_a_config_that_does_not_fit_any_more_fails_its_attempts_and_is_kept(jobs: Jobs) -> None:
    old = Jobs().add(reading(int))
    jobs.add(reading(Sync))
    async with jobs.worker():
        handles = await jobs.spawn_all([old.spec(1)])
        with pytest.raises(JobErrored, match="UndecodableConfig: a stored config of job type reads does not fit"):
            await handles[0].result(timeout=SOON)
    assert (await handles[0].load()).attempt == 2


async def test_a_cancelled_runner_is_cancelled_where_it_awaits(jobs: Jobs) -> None:
    started = asyncio.Event()

    class Waits(JobRunner[int]):
        job_type = "waits"

        async def run(self, job: CurrentJob[int]) -> None:
            started.set()
            await asyncio.Event().wait()

    waits = jobs.add(Waits())
    async with jobs.worker():
        handle = await waits.spawn(1)
        await started.wait()
        assert await handle.cancel()
        await until(started.is_set)
        assert (await handle.wait(timeout=SOON)).status == "cancelled"
