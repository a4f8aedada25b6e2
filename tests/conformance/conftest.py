"""What the tests of both stores ask for: a side, on PostgreSQL or in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager

import pytest

from conformance.sides import MemorySide, PostgresSide, Side
from support.databases import Server
from support.scene import Scene


@pytest.fixture(scope="session")
def shared_dsn(servers: Callable[[int], Server]) -> Iterator[str]:
    """One migrated database."""
    with ExitStack() as stack:
        yield stack.enter_context(servers(18).database(migrated=True))


@asynccontextmanager
async def open_postgres(dsn: str) -> AsyncIterator[PostgresSide]:
    async with Scene.open(dsn) as scene:
        scene.clear()
        side = PostgresSide(scene)
        yield side
        await side.close()


@pytest.fixture
async def postgres(shared_dsn: str) -> AsyncIterator[PostgresSide]:
    """An empty schema on PostgreSQL."""
    async with open_postgres(shared_dsn) as side:
        yield side


@asynccontextmanager
async def open_memory() -> AsyncIterator[MemorySide]:
    side = MemorySide()
    await side.store.open(migrate=False)
    yield side
    await side.close()


@pytest.fixture
async def memory() -> AsyncIterator[MemorySide]:
    """An empty schema in memory."""
    async with open_memory() as side:
        yield side


@pytest.fixture(params=["postgres", "memory"])
async def side(request: pytest.FixtureRequest, shared_dsn: str) -> AsyncIterator[Side]:
    """Each of the two."""
    async with open_postgres(shared_dsn) if request.param == "postgres" else open_memory() as side:
        yield side
