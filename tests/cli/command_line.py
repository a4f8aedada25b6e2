"""The command line as a user has it: real processes in a folder of their own, on the test's database."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from piecework import new_id
from piecework.model.job import NewJob
from piecework.store.store import Store

DEADLINE = 30.0

APP = '''
import asyncio, time
from datetime import timedelta
from pathlib import Path
from piecework import CurrentJob, Jobs, RetrySettings

jobs = Jobs()
number = 7

async def opened(gate: str) -> None:
    while not Path(gate).exists():
        await asyncio.sleep(0.01)

@jobs.job
async def add(a: int, b: int) -> int:
    return a + b

@jobs.job(retry=RetrySettings.never(), queue="other")
async def break_down(why: str) -> None:
    raise ValueError(why)

@jobs.job
async def wait_for(started: str, gate: str) -> str:
    Path(started).touch()
    await opened(gate)
    return "the gate opened"

@jobs.job(timeout=timedelta(milliseconds=10))
def overrun(started: str, gate: str) -> None:
    Path(started).touch()
    while not Path(gate).exists():
        time.sleep(0.01)

@jobs.job
def block(started: str) -> None:
    Path(started).touch()
    while True:
        time.sleep(60)
'''


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until it holds; polled, because processes give no other sign."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE} s: {what}"
        time.sleep(0.01)


class Process:
    """A running command, with what it says in files: an embedded server may outlive it and hold a pipe open."""

    def __init__(self, arguments: list[str], folder: Path, environment: dict[str, str], number: int) -> None:
        self.out, self.err = folder / f"{number}.out", folder / f"{number}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "piecework", *arguments], cwd=folder, env=environment,
                stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.out.read_text() + self.err.read_text()

    def says(self, text: str, times: int = 1) -> None:
        """Wait until it has said that."""
        until(lambda: self.said.count(text) >= times or self.popen.poll() is not None, f"{text!r} in {self.said}")
        assert self.said.count(text) >= times, self.said

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def ends(self) -> int:
        """Wait for its end and return its exit code."""
        code = self.popen.wait(DEADLINE)
        print(self.said[-3000:])  # for whoever looks at a test that failed
        return code


class CommandLine:
    """Runs `piecework` in `folder`, which holds app.py. Whatever is still running after the test is killed."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self.folder = folder
        self._started: list[Process] = []
        temporary = folder / "tmp"
        temporary.mkdir()
        self.environment = os.environ | {"PIECEWORK_DATABASE_URL": dsn, "TMPDIR": str(temporary)}
        (folder / "app.py").write_text(APP)

    def start(self, *arguments: str) -> Process:
        process = Process(list(arguments), self.folder, self.environment, len(self._started))
        self._started.append(process)
        return process

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run a command to its end; return its exit code and all that it said."""
        process = self.start(*arguments)
        return process.ends(), process.said

    def reads(self, *arguments: str) -> dict[str, object]:
        """Run a reading command with --json and return what it answers."""
        process = self.start(*arguments, "--json")
        assert process.ends() == 0, process.said
        answer = json.loads(process.out.read_text())
        assert isinstance(answer, dict)
        return answer

    def worker(self, *arguments: str) -> Process:
        """Start a worker and wait until it claims jobs."""
        process = self.start("worker", "app:jobs", *arguments)
        process.says("claims from")
        return process

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def spawn(self, job_type: str, queue: str = "default", **config: object) -> str:
        """Spawn a job and return its id."""
        id = str(new_id())
        new = NewJob(id=id, job_type=job_type, queue=queue, config=msgspec.Raw(msgspec.json.encode(config)))

        async def insert() -> None:
            store = Store(self.dsn)
            await store.open(migrate=False)
            await store.spawn([new])
            await store.close()

        asyncio.run(insert())
        return id

    def status_of(self, job: str) -> object:
        shown = self.reads("jobs", "show", job)["job"]
        assert isinstance(shown, dict)
        return shown["status"]

    def until_started(self) -> None:
        """Wait until the job that was given `path("started")` runs."""
        until((self.folder / "started").exists, "the job runs")

    def until_status(self, job: str, status: str) -> None:
        until(lambda: self.status_of(job) == status, f"{job} is {status}")

    def kill_all(self) -> None:
        for process in self._started:
            process.popen.kill()
            process.popen.wait()
