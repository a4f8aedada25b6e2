"""What the tests of joined transactions take."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from joining.app import App, open_app

from support.databases import NEWEST, Server


@pytest.fixture(scope="session")
def shared_dsn(servers: Callable[[int], Server]) -> Iterator[str]:
    """One migrated database for the tests that change nothing but its jobs."""
    with servers(NEWEST).database(migrated=True) as dsn:
        yield dsn


@pytest.fixture
def app(shared_dsn: str) -> Iterator[App]:
    """Jobs that are not open, and who looks on; none is stored to begin with."""
    with open_app(shared_dsn) as app:
        app.clear()
        yield app
