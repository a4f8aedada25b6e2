"""A worker process for tests: `python app.py DSN LEDGER OPTIONS`, with the jobs that tests spawn for it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from engine.ledger import Ledger

from piecework import (
    CurrentJob,
    Fail,
    JobFunction,
    Jobs,
    LivenessSettings,
    Reschedule,
    RetrySettings,
    WorkerSettings,
)

LOOK = 0.01  # seconds between two looks at a gate
QUICK = RetrySettings(min_backoff=timedelta(milliseconds=1), max_backoff=timedelta(milliseconds=10))
ONCE = RetrySettings(n_attempts=1)


@dataclass
class App:
    """One `Jobs`, and its job functions."""

    jobs: Jobs
    ledger: Ledger
    note: JobFunction
    nap: JobFunction
    nap_in_thread: JobFunction
    hangs_at_first: JobFunction
    hangs_once: JobFunction
    kills_its_worker: JobFunction
    waits: JobFunction
    waits_in_thread: JobFunction
    goes_when_asked: JobFunction
    goes_when_asked_in_thread: JobFunction
    clings: JobFunction
    freezes: JobFunction
    late: JobFunction
    erratic: JobFunction


def settings(
    *, lease: float = 3.0, grace: float = 30.0, queues: tuple[str, ...] = ("default",), default_liveness: bool = False,
    **options: int,
) -> WorkerSettings:
    """Settings of a worker; `lease` and `grace` in seconds."""
    liveness = LivenessSettings() if default_liveness else LivenessSettings.scaled(timedelta(seconds=lease))
    return WorkerSettings(
        queues=tuple(queues), shutdown_grace=timedelta(seconds=grace), liveness=liveness, **options,
    )  # fmt: skip


def make(dsn: str, ledger: Ledger, listen_dsn: str | None = None) -> App:
    jobs = Jobs(dsn, listen_dsn=listen_dsn)

    @jobs.job
    async def note(job: CurrentJob) -> None:
        with ledger.run_of(job):
            pass

    @jobs.job
    async def nap(job: CurrentJob, seconds: float) -> None:
        with ledger.run_of(job):
            await asyncio.sleep(seconds)

    @jobs.job
    def nap_in_thread(job: CurrentJob, seconds: float) -> None:
        with ledger.run_of(job):
            time.sleep(seconds)

    @jobs.job
    async def hangs_at_first(job: CurrentJob) -> None:
        with ledger.run_of(job):
            if job.attempt == 1:
                await asyncio.Event().wait()

    @jobs.job(retry=ONCE)
    async def hangs_once(job: CurrentJob) -> None:
        with ledger.run_of(job):
            await asyncio.Event().wait()

    @jobs.job
    async def kills_its_worker(job: CurrentJob, by_signal: bool) -> None:
        with ledger.run_of(job):
            if by_signal:
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(3)

    @jobs.job
    async def waits(job: CurrentJob, gate: str) -> str:
        with ledger.run_of(job):
            while not os.path.exists(gate):  # noqa: ASYNC110
                await asyncio.sleep(LOOK)
            return "through"

    @jobs.job
    def waits_in_thread(job: CurrentJob, gate: str) -> str:
        with ledger.run_of(job):
            while not os.path.exists(gate):
                time.sleep(LOOK)
            return "through"

    @jobs.job
    async def goes_when_asked(job: CurrentJob) -> str:
        with ledger.run_of(job):
            while not job.shutdown_requested:  # noqa: ASYNC110
                await asyncio.sleep(LOOK)
            return "asked"

    @jobs.job
    def goes_when_asked_in_thread(job: CurrentJob) -> str:
        with ledger.run_of(job):
            while not job.shutdown_requested:
                time.sleep(LOOK)
            return "asked"

    @jobs.job
    async def clings(job: CurrentJob, gate: str) -> str:
        """Takes no notice of being cancelled."""
        with ledger.run_of(job):
            while not os.path.exists(gate):
                try:
                    await asyncio.sleep(LOOK)
                except asyncio.CancelledError:
                    ledger.note("cancelled")
            return "through"

    @jobs.job
    async def freezes(job: CurrentJob, seconds: float) -> str:
        """Stops the event loop of its worker."""
        with ledger.run_of(job):
            time.sleep(seconds)
            return "thawed"

    @jobs.job
    def late(job: CurrentJob, then: str, first: str, second: str) -> Reschedule | str:
        """The first attempt waits for the gate `first`, later ones do as they are told."""
        with ledger.run_of(job):
            if job.attempt == 1:
                while not os.path.exists(first):
                    time.sleep(LOOK)
                return "first"
            if then == "reschedule":
                return Reschedule.after(timedelta(hours=1))
            while then == "run" and not os.path.exists(second):
                time.sleep(LOOK)
            return "second"

    @jobs.job(retry=QUICK)
    async def erratic(job: CurrentJob, number: int) -> int | Reschedule | Fail:
        with ledger.run_of(job):
            await asyncio.sleep(random.random() * 0.02)
            match random.randrange(8):
                case 0 | 1:
                    raise RuntimeError("bad luck")
                case 2:
                    return Reschedule.now()
                case 3:
                    return Reschedule.after(timedelta(milliseconds=random.randrange(20)))
                case _:
                    return Fail("unlucky number") if number % 7 == 0 else number

    return App(
        jobs, ledger, note, nap, nap_in_thread, hangs_at_first, hangs_once, kills_its_worker, waits, waits_in_thread,
        goes_when_asked, goes_when_asked_in_thread, clings, freezes, late, erratic,
    )  # fmt: skip


async def work_inside(jobs: Jobs, settings: WorkerSettings) -> None:
    """Be an application that has a worker inside: it does not end with what the worker cannot stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with jobs, jobs.worker(settings):
        await stop.wait()


def main() -> None:
    dsn, ledger, text = sys.argv[1:]
    options = json.loads(text)
    inside = options.pop("inside", False)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    jobs = make(dsn, Ledger(Path(ledger)), options.pop("listen_dsn", None)).jobs
    if inside:
        asyncio.run(work_inside(jobs, settings(**options)))
    else:
        jobs.run_worker(settings(**options))


if __name__ == "__main__":
    main()
