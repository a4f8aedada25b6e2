from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from engine.fixtures import jobs  # noqa: F401

from support.databases import NEWEST, Server
from support.examples import TIMES


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let more examples take their time."""
    for item in items:
        if TIMES > 1 and item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture(scope="session")
def shared_dsn(servers: Callable[[int], Server]) -> Iterator[str]:
    """One migrated database, for tests that clear it before they use it."""
    with ExitStack() as stack:
        yield stack.enter_context(servers(NEWEST).database(migrated=True))
