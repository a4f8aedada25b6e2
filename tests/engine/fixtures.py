"""What the tests of `engine` and `races` take; their conftest.py files re-export it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from engine.app import App, make
from engine.helpers import WorkerProcess
from engine.ledger import Ledger

from piecework import Jobs


@pytest.fixture
async def jobs(dsn: str) -> AsyncIterator[Jobs]:
    """An open `Jobs` without job types."""
    async with Jobs(dsn) as jobs:
        yield jobs


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger")
    yield ledger
    ledger.close()


@pytest.fixture
async def app(dsn: str, ledger: Ledger) -> AsyncIterator[App]:
    """The jobs of the worker processes, to be spawned; open."""
    app = make(dsn, ledger)
    async with app.jobs:
        yield app


class Gate:
    """What jobs of the app wait for: a file. `str(gate)` is what they are given."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> None:
        self._path.touch()

    def __str__(self) -> str:
        return str(self._path)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Closed, to begin with."""
    return Gate(tmp_path / "gate")


@pytest.fixture
def workers(dsn: str, ledger: Ledger, tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Start worker processes, which are killed after the test: `workers(lease=3.0, concurrency=10)`."""
    started: list[WorkerProcess] = []

    def start(on: str = dsn, **settings: object) -> WorkerProcess:
        started.append(WorkerProcess(on, ledger.path, tmp_path / f"worker-{len(started)}.log", **settings))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()
        print(f"worker {worker.pid} said:\n{worker.log[-3000:]}")
