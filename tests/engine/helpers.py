"""Worker processes, and ways to look at what workers do."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psycopg

APP = Path(__file__).with_name("app.py")
DEADLINE = 40.0  # seconds for anything that is to happen
SOON = timedelta(seconds=DEADLINE)


class WorkerProcess:
    """A worker in a process of its own. `settings` are those of `app.settings`; `app` is the program that runs it."""

    def __init__(self, dsn: str, ledger: Path, log: Path, *, app: Path = APP, **settings: object) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, app, dsn, ledger, json.dumps(settings)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        self.pid = self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(DEADLINE)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self) -> int:
        """Wait until it has ended; returns its exit code."""
        try:
            return self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker goes on:\n{self.log}") from None


async def until(what: Callable[[], object], within: float = DEADLINE) -> float:
    """Wait for the condition; returns how long that took, in seconds."""
    start = time.monotonic()
    while not what():
        if time.monotonic() - start > within:
            raise AssertionError(f"not within {within} s: {what}")
        await asyncio.sleep(0.01)
    return time.monotonic() - start


def query(dsn: str, statement: str, *params: object) -> list[tuple[object, ...]]:
    """The rows of a statement, by a connection of its own whose name is not that of piecework."""
    with psycopg.connect(dsn, autocommit=True, application_name="test") as connection:
        cursor = connection.execute(statement.encode(), params or None)
        return cursor.fetchall() if cursor.description is not None else []


def value(dsn: str, statement: str, *params: object) -> object:
    """The first column of the first row."""
    return query(dsn, statement, *params)[0][0]


def count(dsn: str, what: str, *params: object) -> int:
    """How many rows `what`, a FROM clause with its condition, has."""
    return int(str(value(dsn, f"SELECT count(*) FROM piecework.{what}", *params)))


def moves(dsn: str, job: object) -> list[object]:
    """How the attempts of a job ended that did not complete it, in their order."""
    found = query(dsn, "SELECT move FROM piecework.attempts WHERE job_id = %s ORDER BY claim_no", job)
    return [row[0] for row in found]
