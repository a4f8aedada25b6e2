"""What the tests of the store ask for: a scene."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest

from support.databases import Server
from support.scene import Scene


@pytest.fixture(scope="session")
def shared_dsn(servers: Callable[[int], Server]) -> Iterator[Callable[[int], str]]:
    """One migrated database per PostgreSQL version, for the tests that leave its tables as they are."""
    made: dict[int, str] = {}
    with ExitStack() as stack:

        def dsn(major: int) -> str:
            if major not in made:
                made[major] = stack.enter_context(servers(major).database(migrated=True))
            return made[major]

        yield dsn


@pytest.fixture
async def scene(server: Server, shared_dsn: Callable[[int], str]) -> AsyncIterator[Scene]:
    """An empty schema that the test shares with the tests before it: it may change rows, nothing else."""
    async with Scene.open(shared_dsn(server.major)) as scene:
        scene.clear()
        yield scene


@pytest.fixture
async def own_scene(dsn: str) -> AsyncIterator[Scene]:
    """A schema in a database of the test's own."""
    async with Scene.open(dsn) as scene:
        yield scene
