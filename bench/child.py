"""The measured processes, `python -m bench.child ROLE SYSTEM COUNT SECONDS`, and how the bench starts them.

A process prints JSON lines: `{"ready": …}` where it works until it is done, and its result at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from bench.system import System
from bench.tally import Moment, Tally
from piecework.base.garbage import spare_what_stays

ROOT = Path(__file__).parent.parent
DSN = "BENCH_DSN"
GRACE = 60.0  # seconds beyond its limit until a process that does not end is killed
LOOK = 0.002
SAMPLE = 0.05

Result: TypeAlias = dict[str, object]


class Child:
    """A measured process."""

    def __init__(self, dsn: str, role: str, system: str, count: int, seconds: float) -> None:
        self.what = f"{role} {system}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.child", role, system, str(count), str(seconds)],
            cwd=ROOT, env={**os.environ, DSN: dsn}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._killer = threading.Timer(seconds + GRACE, self._process.kill)
        self._killer.daemon = True
        self._killer.start()

    def result(self) -> Result:
        """Wait for the next line that it prints."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process `{self.what}` ended with code {self._process.wait()} and without a result")
        result: Result = json.loads(line)
        return result

    def end(self) -> None:
        """Wait until it has ended."""
        self._process.wait()
        self._killer.cancel()

    def kill(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()
        self.end()


@contextmanager
def running(dsn: str, role: str, system: str, count: int, seconds: float) -> Generator[Child]:
    """Start a process; leaving waits for its end, or kills it when something went wrong."""
    child = Child(dsn, role, system, count, seconds)
    try:
        yield child
        child.end()
    except BaseException:
        child.kill()
        raise


def make(system: str, dsn: str, tally: Tally) -> System:
    """Make a system in this process."""
    if system == "bare":
        from bench.bare import Bare

        return Bare(dsn, tally)
    from bench.ours import Ours

    return Ours(dsn, tally)


async def produce(system: System, count: int, seconds: float) -> Result:
    """Insert jobs at full speed."""
    start = Moment.now()
    made = await system.produce(count, start.clock + seconds)
    end = Moment.now()
    return {"started": start.clock, "ended": end.clock, "made": made, "cpu": end.cpu - start.cpu}


async def work(system: System, tally: Tally, seconds: float) -> Result:
    """Work until all jobs have run and the database says that none is left, or time is up.

    The garbage collector is set as `run_worker` sets it, on both sides.
    """
    progress: list[tuple[float, int]] = []
    spare_what_stays()
    async with system.working():
        say_ready()
        sampling = asyncio.create_task(_sample(tally, progress))
        complete = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await tally.reached.wait()
                while not (complete := await system.drained()):  # noqa: ASYNC110 - only the database knows
                    await asyncio.sleep(LOOK)
        end, count = Moment.now(), tally.count
        sampling.cancel()
    first = tally.first or end
    return {
        "complete": complete, "count": count, "first": first.clock, "ended": end.clock, "cpu": end.cpu - first.cpu,
        "progress": progress,
    }  # fmt: skip


async def _sample(tally: Tally, progress: list[tuple[float, int]]) -> None:
    while True:
        progress.append((time.monotonic(), tally.count))
        await asyncio.sleep(SAMPLE)


def say(result: Result) -> None:
    """Print a line for the bench."""
    print(json.dumps(result), flush=True)


def say_ready() -> None:
    """Print that the work may come."""
    say({"ready": time.monotonic()})


async def play(role: str, system: str, count: int, seconds: float) -> Result:
    """Do what a role does."""
    dsn = os.environ[DSN]
    match role:
        case "produce":
            return await produce(make(system, dsn, Tally(count)), count, seconds)
        case "work":
            tally = Tally(count)
            return await work(make(system, dsn, tally), tally, seconds)
        case _:
            return await _play_small(role, dsn, count, seconds)


async def _play_small(role: str, dsn: str, count: int, seconds: float) -> Result:
    from bench import small

    match role:
        case "answer":
            return {"waits": await small.answer(dsn, count, seconds, say_ready)}
        case "knock":
            await small.knock(dsn, count, 0.02)
            return {"knocked": count}
        case "spawn-singly":
            ours, bare = await small.spawn_singly(dsn, count, 1)
            return {"ours": ours, "bare": bare}
        case "spawn-concurrently":
            ours, bare = await small.spawn_singly(dsn, count, 10)
            return {"ours": ours, "bare": bare}
        case "spawn-at-once":
            return {"rate": await small.spawn_at_once(dsn, count)}
        case _:
            raise ValueError(f"no role {role!r}")


if __name__ == "__main__":
    _, role, system, count, seconds = sys.argv
    say(asyncio.run(play(role, system, int(count), float(seconds))))
