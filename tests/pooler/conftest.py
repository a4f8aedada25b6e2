"""What the tests behind a pooler take: the test's database, reached by pgbouncer in transaction mode."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from engine.app import App, make
from engine.fixtures import gate, ledger  # noqa: F401
from engine.helpers import WorkerProcess
from engine.ledger import Ledger

from piecework import Jobs
from support.pgbouncer import Pgbouncer


@pytest.fixture
def make_pgbouncer() -> Iterator[Callable[[str], Pgbouncer]]:
    started: list[Pgbouncer] = []

    def start(dsn: str) -> Pgbouncer:
        started.append(Pgbouncer(dsn))
        return started[-1]

    yield start
    for each in started:
        each.remove()


@pytest.fixture
def pgbouncer(dsn: str, make_pgbouncer: Callable[[str], Pgbouncer]) -> Pgbouncer:
    return make_pgbouncer(dsn)


@pytest.fixture(params=[True, False], ids=["listening", "polling"])
def listen_dsn(request: pytest.FixtureRequest, dsn: str) -> str | None:
    """The server's own address; in the second run of each test none is given."""
    return dsn if request.param else None


@pytest.fixture
async def jobs(pgbouncer: Pgbouncer, listen_dsn: str | None) -> AsyncIterator[Jobs]:
    """An open `Jobs` without job types, behind the pooler."""
    async with Jobs(pgbouncer.dsn, listen_dsn=listen_dsn) as jobs:
        yield jobs


@pytest.fixture
async def app(pgbouncer: Pgbouncer, listen_dsn: str | None, ledger: Ledger) -> AsyncIterator[App]:  # noqa: F811
    """The jobs of the worker processes, to be spawned; open."""
    app = make(pgbouncer.dsn, ledger, listen_dsn)
    async with app.jobs:
        yield app


@pytest.fixture
def workers(
    pgbouncer: Pgbouncer, listen_dsn: str | None, ledger: Ledger, tmp_path: Path  # noqa: F811
) -> Iterator[Callable[..., WorkerProcess]]:  # fmt: skip
    """Start worker processes behind the pooler, which are killed after the test."""
    started: list[WorkerProcess] = []

    def start(**settings: object) -> WorkerProcess:
        log = tmp_path / f"worker-{len(started)}.log"
        started.append(WorkerProcess(pgbouncer.dsn, ledger.path, log, listen_dsn=listen_dsn, **settings))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()
        print(f"worker {worker.pid} said:\n{worker.log[-3000:]}")
