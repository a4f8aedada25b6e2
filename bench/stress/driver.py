"""piecework under stress: the roles of `bench/peers/drivers/harness.py`, and three of its own.

    work --concurrency         as there; ends by SIGTERM in good order: the history can be compared with the tally
    hold --concurrency         a worker of jobs of the type `hold`, which do not end
    transaction --rounds       what others wait for while a transaction is left open: see transaction.py

BENCH_TYPES is how many job types the worker knows, the last of them with a cap. BENCH_KNOWS: the worker of `work` knows
the type `hold` besides.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta

import harness
from harness import DSN, PAUSE, TEXT, hit

from piecework import Jobs, WorkerSettings

CAP = 10
TYPES = int(os.environ.get("BENCH_TYPES", "0"))


async def _for_ever(number: int, text: str, sent: int | None) -> None:
    await asyncio.Event().wait()


def _add_types(jobs: Jobs) -> None:
    """`type-0`, `type-1` … are no-ops, `capped` takes a second and at most CAP of it run at once."""

    async def noop(number: int, text: str, sent: int | None) -> None:
        hit(sent)

    async def second(number: int, text: str, sent: int | None) -> None:
        await asyncio.sleep(1)

    for number in range(TYPES - 1):
        jobs.job(f"type-{number}")(noop)
    jobs.job("capped", max_concurrent_per_process=CAP)(second)


class Peer:
    distribution = "piecework"
    left = "SELECT EXISTS (SELECT FROM piecework.jobs)"
    bulk = True

    def __init__(self) -> None:
        self.jobs = jobs = Jobs(DSN, max_connections=10)
        if PAUSE:

            @jobs.job("noop")
            async def noop(number: int, text: str, sent: int | None) -> None:
                hit(sent)
                await asyncio.sleep(PAUSE)

        else:

            @jobs.job("noop")
            async def noop(number: int, text: str, sent: int | None) -> None:
                hit(sent)

        self._noop = noop
        if TYPES:
            _add_types(jobs)
        if "BENCH_KNOWS" in os.environ:
            jobs.job("hold")(_for_ever)

    async def setup(self) -> None:
        async with self.jobs:
            pass

    @contextlib.asynccontextmanager
    async def spawning(self, callers: int) -> AsyncGenerator[Peer]:
        async with self.jobs:
            yield self

    async def one(self, number: int, sent: int | None) -> None:
        await self._noop.spawn(number, TEXT, sent)

    async def many(self, numbers: Sequence[int], sent: int | None) -> None:
        await self.jobs.spawn_all([self._noop.spec(number, TEXT, sent) for number in numbers])

    async def work(self, concurrency: int) -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        async with self.jobs as jobs, jobs.worker(WorkerSettings(concurrency=concurrency)):
            await stop.wait()
        os._exit(0)


async def hold(concurrency: int) -> None:
    jobs = Jobs(DSN)
    jobs.job("hold")(_for_ever)
    settings = WorkerSettings(concurrency=concurrency, prefetch=0, shutdown_grace=timedelta(seconds=1))
    async with jobs, jobs.worker(settings):
        await asyncio.Event().wait()


def main() -> None:
    role = sys.argv[1]
    if role not in ("hold", "transaction"):
        harness.main(Peer())
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("role")
    parser.add_argument("--concurrency", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    if role == "hold":
        asyncio.run(hold(given.concurrency))
    else:
        from bench.stress.transaction import Scene

        print(json.dumps(asyncio.run(Scene(DSN).play(given.rounds))), flush=True)
        os._exit(0)


if __name__ == "__main__":
    main()
