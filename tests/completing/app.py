"""A worker process for the tests of the fence: `python app.py DSN FOLDER`. It freezes where a file says so."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

from piecework import CurrentJob, JobFunction, Jobs, LivenessSettings, WorkerSettings

PAY = "INSERT INTO effects VALUES (%s)"
SETTINGS = WorkerSettings(liveness=LivenessSettings.scaled(timedelta(seconds=2)), shutdown_grace=timedelta(seconds=1))


def define(jobs: Jobs, folder: Path, name: str) -> tuple[JobFunction[[], None], JobFunction[[], None]]:
    """Two jobs that pay. Each says in the folder when it is in its block, and when it is over, and the first one of all
    waits there until it may go on."""

    def arrived() -> bool:
        try:
            (folder / "arrived").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def ended(how: str) -> None:
        (folder / f"{name} {how}").touch()

    @jobs.job
    def pay_in_thread(job: CurrentJob) -> None:
        try:
            with job.completing() as conn:
                conn.execute(PAY, [name])
                if arrived():
                    while not (folder / "go on").exists():
                        time.sleep(0.01)
        except Exception as error:
            ended(type(error).__name__)
            raise
        ended("committed")

    @jobs.job
    async def pay(job: CurrentJob) -> None:
        try:
            async with job.completing() as conn:
                await conn.execute(PAY, [name])
                if arrived():
                    while not (folder / "go on").exists():  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
        except BaseException as error:
            ended(type(error).__name__)
            raise
        ended("committed")

    return pay, pay_in_thread


async def work(dsn: str, folder: Path) -> None:
    async with Jobs(dsn) as jobs:
        define(jobs, folder, "first")
        async with jobs.worker(SETTINGS):
            while os.getppid() != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], Path(sys.argv[2])))
