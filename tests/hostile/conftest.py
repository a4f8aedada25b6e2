from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from engine.fixtures import jobs  # noqa: F401

from support.databases import NEWEST, Server


@pytest.fixture(scope="session")
def shared_dsn(servers: Callable[[int], Server]) -> Iterator[str]:
    """One migrated database, for tests that clear it before they use it."""
    with ExitStack() as stack:
        yield stack.enter_context(servers(NEWEST).database(migrated=True))
