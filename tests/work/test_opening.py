"""Opening and closing a Jobs: once, from any kind of program, on the right database."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from piecework import (
    AlreadyOpen,
    ConfigurationError,
    CurrentJob,
    DatabaseUnreachable,
    JobFunction,
    Jobs,
    MigrationsNeeded,
    NotOpen,
    WorkerSettings,
    new_id,
)
from piecework.store.embedded import acquire, remove
from piecework.work import database

SOON = timedelta(seconds=20)


def counting(jobs: Jobs) -> JobFunction[[int], int, [int], int]:
    @jobs.job
    def count(n: int) -> int:
        return n + 1

    return count


def named_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "piecework-loop"]


def test_making_a_jobs_does_no_io() -> None:
    Jobs("postgresql://nobody@192.0.2.1:1/nothing")


def test_a_program_without_asyncio_spawns_waits_and_looks(dsn: str) -> None:
    jobs = Jobs(dsn)
    count = counting(jobs)
    with jobs:
        handle = count.spawn_sync(1)
        assert handle.load_sync().status == "pending"
        found = jobs.find_sync(handle.id)
        assert found is not None
        assert found.job_type == "count"
        assert handle.cancel_sync()
        assert handle.wait_sync(timeout=SOON).status == "cancelled"
        assert handle.retry_sync()
        both = jobs.spawn_all_sync([count.spec(2), count.spec(3)])
        assert both.cancel_sync() == [True, True]
        assert [outcome.status for outcome in both.wait_sync(timeout=SOON)] == ["cancelled", "cancelled"]
        assert named_threads() == ["piecework-loop"]
    assert named_threads() == []
    with pytest.raises(NotOpen):
        count.spawn_sync(1)


async def test_results_are_waited_for_from_a_thread_while_the_worker_is_in_the_loop(dsn: str) -> None:
    jobs = Jobs(dsn)
    count = counting(jobs)

    def script() -> int:
        results = jobs.spawn_all_sync([count.spec(2), count.spec(3)]).results_sync(timeout=SOON)
        return sum(results) + count.spawn_sync(1).result_sync(timeout=SOON)

    async with jobs, jobs.worker():
        assert await asyncio.to_thread(script) == 9


async def test_a_plain_job_spawns_another_one_from_its_thread(dsn: str) -> None:
    jobs = Jobs(dsn)
    count = counting(jobs)

    @jobs.job
    def parent(job: CurrentJob, n: int) -> int:
        return count.spawn_sync(n).result_sync(timeout=SOON)

    async with jobs, jobs.worker():
        assert await (await parent.spawn(4)).result(timeout=SOON) == 5


async def test_a_second_loop_can_await_what_the_first_one_opened(dsn: str) -> None:
    jobs = Jobs(dsn)
    count = counting(jobs)

    async def elsewhere() -> int:
        handle = await count.spawn(5)
        return await handle.result(timeout=SOON)

    async with jobs, jobs.worker():
        with ThreadPoolExecutor(1) as pool:
            assert await asyncio.wrap_future(pool.submit(asyncio.run, elsewhere())) == 6


async def test_a_blocking_call_on_the_owning_loop_is_an_error_that_says_await(dsn: str) -> None:
    jobs = Jobs(dsn)
    count = counting(jobs)
    async with jobs:
        with pytest.raises(RuntimeError, match=r"spawn_sync\(\) would block the event loop .*`await ….spawn\(…\)`"):
            count.spawn_sync(1)


async def test_opening_twice_is_an_error_and_leaves_the_first_one_open(dsn: str) -> None:
    jobs = Jobs(dsn)
    count = counting(jobs)
    async with jobs:
        with pytest.raises(AlreadyOpen, match="open it once, around everything that uses it"):
            async with jobs:
                pass
        with pytest.raises(AlreadyOpen):
            jobs.__enter__()
        assert named_threads() == []
        await count.spawn(1)


def test_a_closed_jobs_can_be_opened_again_in_another_way(dsn: str) -> None:
    jobs = Jobs(dsn)
    count = counting(jobs)

    async def once() -> int:
        async with jobs, jobs.worker():
            return await (await count.spawn(1)).result(timeout=SOON)

    assert asyncio.run(once()) == 2
    with jobs:
        count.spawn_sync(1)
    assert asyncio.run(once()) == 2


async def test_a_jobs_that_could_not_be_opened_can_be_opened_later(server: Any, empty_dsn: str) -> None:
    jobs = Jobs(empty_dsn, migrate=False)
    with pytest.raises(MigrationsNeeded):
        async with jobs:
            pass
    async with Jobs(empty_dsn):
        pass
    async with jobs:
        pass


async def test_an_unreachable_database_is_an_error_at_opening(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnreachable):
        async with Jobs(f"host={tmp_path} dbname=nothing"):
            pass
    with pytest.raises(DatabaseUnreachable), Jobs(f"host={tmp_path} dbname=nothing"):
        pass
    assert named_threads() == []


async def test_the_environment_names_the_database_unless_the_argument_does(
    dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIECEWORK_DATABASE_URL", dsn)
    async with Jobs() as jobs:
        handle = await counting(jobs).spawn(1)
    monkeypatch.setenv("PIECEWORK_DATABASE_URL", f"host={tmp_path} dbname=nothing")
    async with Jobs(dsn) as jobs:
        assert await jobs.find(handle.id) is not None


async def test_without_any_url_the_embedded_server_is_used_and_given_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIECEWORK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(database, "acquire", functools.partial(acquire, grace=timedelta(milliseconds=50)))
    jobs = Jobs()
    count = counting(jobs)
    async with jobs, jobs.worker():
        assert await (await count.spawn(1)).result(timeout=SOON) == 2
        assert (tmp_path / "home").is_dir()
    await asyncio.to_thread(remove, tmp_path / "home")  # waits until no lease is held any more


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"max_config_size": 0}, "max_config_size=0"),
        ({"max_connections": 0}, "max_connections=0"),
        ({"max_connections": "4"}, "max_connections='4'"),
        ({"dsn": 5}, "the DSN is a text"),
        ({"schema": ""}, "schema=''"),
        ({"schema": "pg_jobs"}, "schema='pg_jobs'"),
    ],
)
def test_a_wrong_argument_is_an_error_where_the_jobs_is_made(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Jobs(**arguments)


async def test_a_worker_needs_the_loop_that_opened_the_jobs(dsn: str) -> None:
    jobs = Jobs(dsn)
    with jobs, pytest.raises(ConfigurationError, match="open it by `async with jobs, jobs"):
        async with jobs.worker():
            pass


async def test_a_worker_on_a_jobs_that_is_not_open_says_so(dsn: str) -> None:
    with pytest.raises(NotOpen):
        async with Jobs(dsn).worker():
            pass


async def test_schemas_do_not_see_each_other(dsn: str) -> None:
    first, second = Jobs(dsn), Jobs(dsn, schema="other one")
    async with first, second:
        handle = await counting(first).spawn(1)
        assert await first.find(handle.id) is not None
        assert await second.find(handle.id) is None


def test_a_forked_child_is_told_to_open_its_own(dsn: str) -> None:
    program = f"""
import os, warnings
warnings.simplefilter("ignore")
from piecework import Jobs, NotOpen
jobs = Jobs({dsn!r})
@jobs.job
def count(n: int) -> int:
    return n
with jobs:
    count.spawn_sync(1)
    child = os.fork()
    if child == 0:
        try:
            count.spawn_sync(2)
        except NotOpen as error:
            os._exit(42 if "open it in each child" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_an_interrupt_ends_a_blocking_wait(dsn: str) -> None:
    jobs = Jobs(dsn)
    count = counting(jobs)
    with jobs:
        handle = count.spawn_sync(1)

        def interrupt() -> None:
            while not jobs._service.waiters._waits:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            handle.wait_sync(timeout=SOON)
        assert handle.cancel_sync()


def test_closing_ends_what_blocks_in_other_threads(dsn: str) -> None:
    jobs = Jobs(dsn)
    count = counting(jobs)
    with ThreadPoolExecutor(2) as pool:
        with jobs:
            handle = count.spawn_sync(1)
            waiting = pool.submit(lambda: handle.result_sync(timeout=SOON))
            stuck = pool.submit(lambda: jobs._service.run_sync(lambda store: asyncio.sleep(1000), "sleep"))
            while not jobs._service.waiters._waits or not stuck.running():
                time.sleep(0.001)
        with pytest.raises(NotOpen, match="closed during a wait"):
            waiting.result(timeout=10)
        with pytest.raises(NotOpen, match=r"closed while the call was under way|is not open"):
            stuck.result(timeout=10)


def test_a_cancelled_wait_on_another_loop_is_a_cancellation(dsn: str) -> None:
    jobs = Jobs(dsn)
    count = counting(jobs)

    async def elsewhere() -> None:
        handle = await count.spawn(5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await handle.result(timeout=SOON)
        assert await handle.cancel()

    with jobs:
        asyncio.run(elsewhere())
        assert jobs._service.waiters._waits == {}


def test_run_worker_works_until_it_is_told_to_stop(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import sys\nfrom piecework import Jobs, WorkerSettings\njobs = Jobs(sys.argv[1])\n"
        "@jobs.job\ndef count(n: int) -> int:\n    return n + 1\n"
        "if __name__ == '__main__':\n    jobs.run_worker(WorkerSettings(concurrency=2))\n    print('ended')\n"
    )
    jobs = Jobs(dsn)
    count = counting(jobs)
    command = [sys.executable, str(tmp_path / "app.py"), dsn]
    with jobs, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert count.spawn_sync(41).result_sync(timeout=SOON) == 42
            program.send_signal(signal.SIGTERM)
            assert program.communicate(timeout=20)[0] == "ended\n"
            assert program.returncode == 0
        finally:
            program.kill()


async def test_max_connections_is_a_limit(dsn: str) -> None:
    async with Jobs(dsn, max_connections=2) as jobs:
        await asyncio.gather(*(jobs.find(new_id()) for _ in range(40)))
        async with await psycopg.AsyncConnection.connect(dsn) as conn:
            others = await conn.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            row = await others.fetchone()
        assert row is not None
        assert row[0] <= 2


def test_worker_settings_are_checked_where_they_are_made() -> None:
    with pytest.raises(ConfigurationError):
        WorkerSettings(concurrency=0)
