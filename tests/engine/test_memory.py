"""What a worker keeps of the jobs that it has run."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path

import pytest
from engine.helpers import SOON, WorkerProcess, count, until
from engine.memory_app import ONE_FAILS, make

from support.private_postgres import PrivatePostgres

JOBS, BEFORE, PART = 1_000_000, 100_000, 10_000
MOST_WAITING = 100_000
MOST_GROWTH = 10 << 20  # bytes


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def start(dsn: str, folder: Path) -> WorkerProcess:
    return WorkerProcess(dsn, folder, folder / "log", app=Path(__file__).with_name("memory_app.py"))


async def test_the_collector_passes_over_what_was_there_before_the_worker_and_not_in_an_application_around_it(
    dsn: str, tmp_path: Path
) -> None:
    jobs, _, collector = make(dsn)
    async with jobs:
        worker = start(dsn, tmp_path)
        frozen, young = await (await collector.spawn()).result(timeout=SOON)
        assert frozen > 10_000
        assert young == 10_000
        worker.kill()
        before = gc.get_freeze_count(), gc.get_threshold()[0]
        async with jobs.worker():
            assert tuple(await (await collector.spawn()).result(timeout=SOON)) == before


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_worker_grows_by_less_than_10_mib_while_it_runs_900_000_jobs(
    private_postgres: Callable[..., PrivatePostgres], tmp_path: Path
) -> None:
    dsn = private_postgres().dsn
    jobs, mostly_succeeds, _ = make(dsn)
    async with jobs:
        worker = start(dsn, tmp_path)
        spawned, seen = 0, list[tuple[int, int]]()
        while not seen or seen[-1][0] < JOBS:
            ended = count(dsn, "finished_jobs")
            seen.append((ended, resident(worker.pid)))
            while spawned < JOBS and spawned - ended < MOST_WAITING:
                await jobs.spawn_all([mostly_succeeds.spec(spawned + number) for number in range(PART)])
                spawned += PART
            await asyncio.sleep(0.5)
        await until(lambda: count(dsn, "jobs") == 0)
        worker.kill()
    assert count(dsn, "finished_jobs WHERE status = 'completed'") == JOBS - JOBS // ONE_FAILS
    settled = [size for ended, size in seen if ended >= BEFORE]
    growth = max(settled) - settled[0]
    print(f"{settled[0] / 2**20:.1f} MiB after the first {BEFORE:,} jobs, {growth / 2**20:.1f} MiB more at most")
    assert growth < MOST_GROWTH, [(ended, size >> 10) for ended, size in seen]
