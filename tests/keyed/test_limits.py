"""What operators say of concurrency keys counts at once, and before what jobs bring along."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from click.testing import CliRunner, Result
from engine.helpers import SOON, count, until

from piecework import InvalidOptions, Jobs
from piecework.cli.main import command
from piecework.jobs import service_of
from piecework.store.limiting import ConcurrencyLimit, list_concurrency_limits, pause_concurrency_key


class Runs:
    """Jobs of the type `hold` run until they are let go, one by one."""

    def __init__(self, jobs: Jobs) -> None:
        self.running: set[int] = set()
        self._go_on: dict[int, asyncio.Event] = {}

        @jobs.job
        async def hold(number: int) -> int:
            self.running.add(number)
            await self._go_on.setdefault(number, asyncio.Event()).wait()
            self.running.discard(number)
            return number

        self.hold = hold

    def let_go(self, *numbers: int) -> None:
        for number in numbers:
            self._go_on.setdefault(number, asyncio.Event()).set()


@pytest.fixture
def runs(jobs: Jobs) -> Runs:
    return Runs(jobs)


@asynccontextmanager
async def held(jobs: Jobs, runs: Runs, total: int = 5, **options: int) -> AsyncIterator[None]:
    """So many jobs of the key `c`, and a worker; all go at the end, when nothing is said of the key any more."""
    spawner = runs.hold.options(concurrency_key="c", **options)  # type: ignore[arg-type]
    handles = await jobs.spawn_all(spawner.spec(number) for number in range(total))
    async with jobs.worker():
        yield
        await jobs.set_concurrency_limit("c", None)
        runs.let_go(*range(total))
        assert await handles.results(timeout=SOON) == [*range(total)]


async def settled(dsn: str, runs: Runs, running: int, total: int) -> None:
    """Wait until so many run, and all others are parked."""
    await until(lambda: len(runs.running) == running and count(dsn, "jobs WHERE parked") == total - running)


async def test_a_raised_limit_counts_at_once(jobs: Jobs, runs: Runs, dsn: str) -> None:
    async with held(jobs, runs):
        await settled(dsn, runs, 1, 5)
        await jobs.set_concurrency_limit("c", 3)
        await settled(dsn, runs, 3, 5)
        assert runs.running == {0, 1, 2}, "in the order of the key"
        await asyncio.to_thread(jobs.set_concurrency_limit_sync, "c", 4)
        await settled(dsn, runs, 4, 5)


async def test_a_lowered_limit_lets_run_what_runs_and_starts_no_more(jobs: Jobs, runs: Runs, dsn: str) -> None:
    async with held(jobs, runs, concurrency_limit=4):
        await settled(dsn, runs, 4, 5)
        await jobs.set_concurrency_limit("c", 2)
        runs.let_go(0, 1)
        await until(lambda: count(dsn, "finished_jobs") == 2)
        assert runs.running == {2, 3}
        assert count(dsn, "jobs WHERE parked") == 1
        runs.let_go(2)
        await until(lambda: runs.running == {3, 4})


async def test_without_a_word_the_jobs_own_limit_counts_again(jobs: Jobs, runs: Runs, dsn: str) -> None:
    await jobs.set_concurrency_limit("c", 1)
    async with held(jobs, runs, concurrency_limit=3):
        await settled(dsn, runs, 1, 5)
        await jobs.set_concurrency_limit("c", None)
        await settled(dsn, runs, 3, 5)
        assert count(dsn, "limits") == 0


async def test_a_paused_key_starts_nothing_until_it_is_resumed(jobs: Jobs, runs: Runs, dsn: str) -> None:
    store = service_of(jobs).store
    await pause_concurrency_key(store, "c", "", paused=True)
    other = await runs.hold.options(concurrency_key="d").spawn(9)
    async with held(jobs, runs):
        runs.let_go(9)
        await other.result(timeout=SOON)
        await settled(dsn, runs, 0, 5)
        await jobs.set_concurrency_limit("c", 2)
        await settled(dsn, runs, 0, 5)
        await pause_concurrency_key(store, "c", "", paused=False)
        await settled(dsn, runs, 2, 5)
        assert await list_concurrency_limits(store) == [ConcurrencyLimit("c", "", 2, False)], "the limit was kept"
        await jobs.set_concurrency_limit("c", 0)
        runs.let_go(0, 1)
        await settled(dsn, runs, 0, 3)


async def test_the_key_itself_counts_before_a_beginning_and_the_longest_of_those(
    jobs: Jobs, runs: Runs, dsn: str
) -> None:
    await jobs.set_concurrency_limit("*", 4)
    await jobs.set_concurrency_limit("account:*", 1)
    await jobs.set_concurrency_limit("account:7*", 2)
    await jobs.set_concurrency_limit("account:7", 3)
    expected = {"account:7": 3, "account:70": 2, "account:1": 1, "other": 4}
    handles = await jobs.spawn_all(
        runs.hold.options(concurrency_key=key).spec(number)
        for row, key in enumerate(expected) for number in range(row * 10, row * 10 + 5)
    )  # fmt: skip
    async with jobs.worker():
        await settled(dsn, runs, 10, 20)
        per_key = [sum(number // 10 == row for number in runs.running) for row in range(4)]
        assert per_key == [*expected.values()]
        await jobs.set_concurrency_limit("account:*", 5)
        await settled(dsn, runs, 14, 20)
        runs.let_go(*range(40))
        await handles.results(timeout=SOON)


async def test_what_is_said_of_a_queue_counts_there_and_first(jobs: Jobs, runs: Runs, dsn: str) -> None:
    from engine.app import settings

    await jobs.set_concurrency_limit("c", 1)
    await jobs.set_concurrency_limit("c", 2, queue="mail")
    handles = await jobs.spawn_all(
        runs.hold.options(concurrency_key="c", queue=queue).spec(number)
        for row, queue in enumerate(("default", "mail")) for number in range(row * 10, row * 10 + 3)
    )  # fmt: skip
    async with jobs.worker(settings(queues=("default", "mail"))):
        await settled(dsn, runs, 3, 6)
        assert runs.running == {0, 10, 11}
        await jobs.set_concurrency_limit("c", 3, queue="mail")
        await settled(dsn, runs, 4, 6)
        assert runs.running == {0, 10, 11, 12}
        runs.let_go(*range(20))
        await handles.results(timeout=SOON)


@pytest.mark.parametrize(("key", "limit", "queue"), [
    ("", 1, ""), (7, 1, ""), ("c", -1, ""), ("c", True, ""), ("c", 1.5, ""), ("c", 2**31, ""), ("c", 1, 3),
    ("c\0", 1, ""),
])  # fmt: skip
async def test_what_is_no_limit_is_refused(jobs: Jobs, key: object, limit: object, queue: object) -> None:
    with pytest.raises(InvalidOptions, match=r"set_concurrency_limit\(…\)"):
        await jobs.set_concurrency_limit(key, limit, queue=queue)  # type: ignore[arg-type]


# by the command line


def test_limits_are_listed_set_paused_and_resumed(dsn: str) -> None:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(command, ["limits", *arguments, "--database-url", dsn])

    def reads(*arguments: str) -> object:
        return json.loads(run(*arguments, "--json").output)["limits"]

    account = {"key": "account:*", "queue": "", "limit": 4, "paused": False}
    assert run("list").output.startswith("Nothing is said of any concurrency key")
    assert reads("list") == []
    assert reads("set", "account:*", "4") == [account]
    assert reads("pause", "account:*") == [account | {"paused": True}]
    mail = {"key": "account:*", "queue": "mail", "limit": None, "paused": True}
    assert reads("pause", "account:*", "--queue", "mail") == [account | {"paused": True}, mail]
    assert reads("resume", "account:*") == [account, mail]
    assert [line.split() for line in run("list").output.splitlines()] == [
        ["CONCURRENCY", "KEY", "QUEUE", "LIMIT", "PAUSED"], ["account:*", "all", "4", "no"],
        ["account:*", "mail", "-", "yes"],
    ]  # fmt: skip
    assert reads("set", "account:*", "-") == [mail]
    assert reads("resume", "account:*", "--queue", "mail") == []
    for number in ("many", "1.5", str(2**31)):
        refused = run("set", "c", number)
        assert refused.exit_code == 2, refused.output
        assert "no number from 0 to 2147483647" in refused.output
