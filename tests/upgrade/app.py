"""What the processes of both releases run: `python app.py worker|spawner|ticker DSN BOOK`.

It uses public names alone, and nothing of the tests, so that the wheel of any release is enough for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import piecework
from piecework import (
    BatchItem,
    BatchOutcomes,
    CurrentBatch,
    CurrentJob,
    Fail,
    Jobs,
    JobSpec,
    LivenessSettings,
    Reschedule,
    RetrySettings,
    WorkerSettings,
)
from piecework.testing.history import Ledger

LEASE = timedelta(seconds=6)
ATTEMPTS = 40
PROCESS = f"{socket.gethostname()}:{os.getpid()}"
UNLUCKY = 7  # numbers that it divides are failed on purpose

retry = RetrySettings(
    n_attempts=ATTEMPTS, n_warn_attempts=None, min_backoff=timedelta(milliseconds=1), max_backoff=timedelta(seconds=1)
)


class Book:
    """A file in which each line was written in one piece, by any of the processes."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._last: float | None = None

    def write(self, event: str, at: float, **fields: object) -> None:
        line = json.dumps({"event": event, "at": at, "process": PROCESS, **fields})
        os.write(self._file, line.encode() + b"\n")

    @contextmanager
    def run_of(self, job: CurrentJob) -> Iterator[None]:
        """Enter the begin of a run, and its end, whatever it is."""
        fields: dict[str, object] = {"job": str(job.id), "claim_no": job.claim_no}
        self.write("began", time.monotonic(), well=True, **fields)
        well = False
        try:
            yield
            well = True
        finally:
            self.write("ended", time.monotonic(), well=well, **fields)

    def tick(self) -> None:
        """Enter how long it is since the last tick of this process, where that is worth a line."""
        now = time.monotonic()
        if self._last is None or now - self._last > 0.02:
            self.write("gap", now, took=0.0 if self._last is None else now - self._last)
        self._last = now


@dataclass(frozen=True)
class Number:
    number: int


def make(dsn: str, book: Book) -> tuple[Jobs, dict[str, object]]:
    """Return the jobs, and the functions by name."""
    jobs = Jobs(dsn)
    effects = Ledger()

    @jobs.job("erratic", retry=retry)
    async def erratic(job: CurrentJob, number: int) -> int | Reschedule | Fail:
        with book.run_of(job):
            await asyncio.sleep(random.random() * 0.02)
            match random.randrange(8):
                case 0 | 1:
                    raise RuntimeError("bad luck")
                case 2:
                    return Reschedule.now()
                case 3:
                    return Reschedule.after(timedelta(milliseconds=random.randrange(50)))
                case _:
                    return Fail("unlucky number") if number % UNLUCKY == 0 else number

    @jobs.job("nap", retry=retry)
    async def nap(job: CurrentJob, seconds: float) -> None:
        with book.run_of(job):
            await asyncio.sleep(seconds)

    @jobs.job("nap-in-thread", retry=retry)
    def nap_in_thread(job: CurrentJob, seconds: float) -> None:
        with book.run_of(job):
            time.sleep(seconds)

    @jobs.job("saves", retry=retry)
    async def saves(job: CurrentJob, steps: int) -> int | Reschedule:
        with book.run_of(job):
            done = job.execution_state(int) or 0
            if done >= steps:
                return done
            await job.save_state(done + 1)
            if random.random() < 0.3:
                raise RuntimeError("after it has saved")
            return Reschedule.now()

    @jobs.job("pays", retry=retry, concurrency_key="account:{account}")
    async def pays(job: CurrentJob, account: int) -> None:
        with book.run_of(job):
            async with job.completing() as conn:
                await effects.write(conn, job, "effect")
                await asyncio.sleep(random.random() * 0.02)

    @jobs.job("visits", retry=retry, concurrency_key="room:{room}", concurrency_limit=3)
    async def visits(job: CurrentJob, room: int) -> None:
        with book.run_of(job):
            await asyncio.sleep(random.random() * 0.02)

    @jobs.job("named", retry=retry, key="{name}")
    async def named(job: CurrentJob, name: str) -> None:
        with book.run_of(job):
            await asyncio.sleep(random.random() * 0.02)

    @jobs.batched("counts", max_size=50, retry=retry)
    async def counts(batch: CurrentBatch[Number]) -> BatchOutcomes[int]:
        def each(item: BatchItem[Number]) -> int | Fail:
            return Fail("unlucky number") if item.config.number % UNLUCKY == 0 else item.config.number

        return batch.outcomes(each)

    @jobs.job("tick", retry=retry)
    async def tick() -> None:
        book.tick()

    functions: dict[str, object] = {
        "erratic": erratic, "nap": nap, "nap-in-thread": nap_in_thread, "saves": saves, "pays": pays, "visits": visits,
        "named": named, "counts": counts, "tick": tick,
    }  # fmt: skip
    return jobs, functions


def some(functions: dict, count: int) -> list[JobSpec]:
    """Return the specs of so many jobs, of all kinds but those with keys."""
    specs: list[JobSpec] = []
    for _ in range(count):
        match random.randrange(16):
            case 0:
                specs.append(functions["nap"].spec(random.random() * 2))
            case 1:
                specs.append(functions["nap-in-thread"].spec(random.random()))
            case 2 | 3:
                specs.append(functions["saves"].spec(random.randrange(6)))
            case 4 | 5 | 6:
                specs.append(functions["pays"].spec(random.randrange(8)))
            case 7 | 8:
                specs.append(functions["visits"].spec(random.randrange(3)))
            case 9 | 10:
                specs.append(functions["counts"].spec(Number(random.randrange(1000))))
            case 11:
                later = functions["erratic"].options(delay=timedelta(milliseconds=random.randrange(1000)), priority=1)
                specs.append(later.spec(random.randrange(1000)))
            case _:
                specs.append(functions["erratic"].spec(random.randrange(1000)))
    return specs


def until_told_to_stop() -> asyncio.Event:
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    return ending


async def spawn(jobs: Jobs, functions: dict, book: Book) -> None:
    """Spawn jobs of all kinds, ten times a second, cancel some, and enter what was accepted."""
    ending = until_told_to_stop()
    async with jobs:
        while not ending.is_set():
            handles = list(await jobs.spawn_all(some(functions, 8)))
            one = await functions["named"].spawn(f"name {random.randrange(20)}")
            handles += [one] if one.created else []
            book.write("accepted", time.monotonic(), jobs=[str(handle.id) for handle in handles])
            if random.random() < 0.2:
                await random.choice(handles).cancel()
            await asyncio.sleep(random.random() * 0.2)


async def spawn_ticks(jobs: Jobs, functions: dict, book: Book) -> None:
    """Spawn a job a hundred times a second, and enter how many, and how long each took that took long."""
    ending = until_told_to_stop()
    count = 0
    async with jobs:
        while not ending.is_set():
            began = time.monotonic()
            await functions["tick"].spawn()
            count += 1
            if (took := time.monotonic() - began) > 0.02:
                book.write("spawn", began, took=took)
            await asyncio.sleep(0.01)
    book.write("spawned", time.monotonic(), count=count)


def main() -> None:
    role, dsn, path = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("piecework.job").setLevel(logging.CRITICAL)  # jobs fail on purpose
    print(f"{role} {os.getpid()} of {piecework.__file__}", file=sys.stderr, flush=True)
    book = Book(path)
    jobs, functions = make(dsn, book)
    if role == "worker":
        settings = WorkerSettings(
            concurrency=30, threads=5, shutdown_grace=timedelta(seconds=20), liveness=LivenessSettings.scaled(LEASE)
        )
        jobs.run_worker(settings)
    else:
        asyncio.run((spawn if role == "spawner" else spawn_ticks)(jobs, functions, book))


if __name__ == "__main__":
    main()
