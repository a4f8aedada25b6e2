"""The processes of the bench that spawn: `python -m piecework.cli.bench.spawner ROLE COUNT SECONDS PAYLOAD RATE`."""

from __future__ import annotations

import argparse
import asyncio
import time
from array import array
from collections.abc import Iterator
from typing import cast

from piecework.base.threads import named
from piecework.cli import lifeline
from piecework.cli.bench.task import CALLERS, Role, Task
from piecework.cli.bench.work import jobs, meter, noop, stamp

BATCH = 1000
"""Jobs per `spawn_all`, unless they are large."""
_MOST_BYTES = 8_000_000
_TICK = 0.01
_KNOCK_EVERY = 0.02


async def spawn(task: Task) -> None:
    """Do it, on an open `jobs`, and count each job that is committed."""
    text = "x" * task.payload
    callers = CALLERS if task.role == "ten" else 1
    if task.role in ("one", "ten"):
        # So that the connections are there when the time begins.
        await asyncio.gather(*(noop.spawn(number, text) for number in range(callers)))
        meter().warm_up(callers)
    deadline = time.monotonic() + task.seconds
    meter().stamp()
    match task.role:
        case "bulk":
            for numbers in _batches(task.count, task.payload):
                await _spawn_all(numbers, text)
                if time.monotonic() >= deadline:
                    break
        case "one" | "ten":
            left = iter(range(callers, task.count))
            async with asyncio.TaskGroup() as group:
                for number in range(callers):
                    group.create_task(_spawn_singly(left, text, deadline), name=f"bench-caller-{number + 1}")
        case "paced":
            await _spawn_paced(task, text, deadline)
        case "knock":
            await _knock(task.count, deadline)
    meter().stamp()


def _batches(count: int, payload: int) -> Iterator[range]:
    size = max(1, min(BATCH, _MOST_BYTES // (payload + 1)))
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


async def _spawn_all(numbers: range, text: str) -> None:
    meter().hit(len(await jobs.spawn_all([noop.spec(number, text) for number in numbers])))


async def _spawn_singly(numbers: Iterator[int], text: str, deadline: float) -> None:
    """Spawn one job after the other, of those that other callers leave."""
    took = array("d")
    for number in numbers:
        start = time.monotonic()
        await noop.spawn(number, text)
        end = time.monotonic()
        meter().hit()
        took.append(end - start)
        if end >= deadline:
            break
    meter().keep(took)


async def _spawn_paced(task: Task, text: str, deadline: float) -> None:
    """Spawn at a rate, whatever becomes of the jobs; what was missed is made up for."""
    start, made = time.monotonic(), 0
    while made < task.count and (now := time.monotonic()) < deadline:
        due = min(int((now - start) * task.rate), task.count, made + BATCH)
        if due > made:
            await _spawn_all(range(made, due), text)
            made = due
        await asyncio.sleep(max(0.0, now + _TICK - time.monotonic()))


async def _knock(count: int, deadline: float) -> None:
    """Spawn a job now and then."""
    for _ in range(count):
        await asyncio.sleep(_KNOCK_EVERY)
        if time.monotonic() >= deadline:
            break
        await stamp.spawn(time.monotonic_ns())
        meter().hit()


async def _run(task: Task) -> None:
    async with jobs:
        await spawn(task)


def main() -> None:
    """Do what the command line says, until the parent is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role")
    parser.add_argument("count", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("payload", type=int)
    parser.add_argument("rate", type=float)
    parser.add_argument("--lifeline", type=int)
    told = parser.parse_args()
    lifeline.grasp(told.lifeline).ready()
    role = cast(Role, told.role)
    task = Task(role=role, count=told.count, seconds=told.seconds, payload=told.payload, rate=told.rate)
    asyncio.run(named("bench-spawner", lambda: _run(task)))


if __name__ == "__main__":
    main()
