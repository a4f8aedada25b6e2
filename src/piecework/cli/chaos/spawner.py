"""The processes of a chaos run that spawn: `python -m piecework.cli.chaos.spawner RATE SEED LEASE`."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
from datetime import UTC, datetime, timedelta

from piecework.base.errors import PieceworkError
from piecework.base.threads import named as in_task
from piecework.cli import lifeline
from piecework.cli.chaos import ledger, work
from piecework.cli.chaos.work import Number
from piecework.work.spawner import JobSpec

_EVERY = 0.2
_ACCOUNTS, _ROOMS, _NAMES = 12, 3, 20
_CANCELLED = 0.05
_PAUSE = 0.1


def load(chance: random.Random, jobs: int, lease: float) -> list[JobSpec[object]]:
    """Return the specs of so many jobs, of all kinds but those with keys; some run for longer than the lease."""
    specs: list[JobSpec[object]] = []
    longest = 2 * lease
    for _ in range(jobs):
        match chance.randrange(20):
            case 0:
                specs.append(work.nap.spec(chance.random() * longest))
            case 1:
                specs.append(work.nap_in_thread.spec(chance.random() ** 3 * longest))
            case 2:
                specs.append(work.pay_slowly.spec(chance.random() ** 3 * longest))
            case 3 | 4:
                specs.append(work.pay_in_thread.spec())
            case 5 | 6 | 7 | 8:
                specs.append(work.pay.spec(chance.randrange(_ACCOUNTS)))
            case 9 | 10 | 11:
                specs.append(work.visit.spec(chance.randrange(_ROOMS)))
            case 12 | 13 | 14:
                specs.append(work.count.spec(Number(chance.randrange(1000))))
            case 15:
                soon = timedelta(milliseconds=chance.randrange(1000))
                later = work.erratic.options(delay=soon, priority=chance.randrange(3))
                specs.append(later.spec(chance.randrange(1000)))
            case _:
                specs.append(work.erratic.spec(chance.randrange(1000)))
    return specs


async def spawn_some(chance: random.Random, jobs: int, lease: float) -> None:
    """Spawn so many jobs in one call, one with a key in another, and cancel one now and then."""
    handles = await work.jobs.spawn_all(load(chance, jobs, lease))
    ledger.accepted([str(handle.id) for handle in handles])
    one = await work.named.spawn(f"name {chance.randrange(_NAMES)}")
    if one.created:
        ledger.accepted([str(one.id)])
    if chance.random() < _CANCELLED:
        await chance.choice(list(handles)).cancel()


async def spawn(rate: float, seed: str, lease: float) -> None:
    """Spawn until the process is told to end; what fails is said, and not tried again."""
    chance = random.Random(seed)
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    ending = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ending.set)
    while not ending.is_set():
        try:
            async with work.jobs:
                while not ending.is_set():
                    try:
                        await spawn_some(chance, max(1, round(rate * _EVERY)), lease)
                    except PieceworkError as error:
                        _say(f"a spawn failed: {error}")
                    await asyncio.sleep(_EVERY * chance.uniform(0.5, 1.5))
        except PieceworkError as error:  # the server was not there at the start
            _say(str(error))
            await asyncio.sleep(_PAUSE)


def _say(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S.%f} {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rate", type=float)
    parser.add_argument("seed")
    parser.add_argument("lease", type=float)
    parser.add_argument("--lifeline", type=int)
    told = parser.parse_args()
    lifeline.grasp(told.lifeline).ready()
    asyncio.run(in_task("chaos-spawner", lambda: spawn(told.rate, told.seed, told.lease)))


if __name__ == "__main__":
    main()
