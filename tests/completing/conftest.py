"""What the tests of completion in a transaction take."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from completing.effects import Effects
from engine.fixtures import gate, jobs  # noqa: F401
from engine.helpers import query


@pytest.fixture
def effects(dsn: str) -> Effects:
    """A table of the application's."""
    query(dsn, "CREATE TABLE effects (what text NOT NULL)")
    query(dsn, "CREATE TABLE accounts (id integer PRIMARY KEY)")
    query(dsn, "CREATE TABLE debts (id integer REFERENCES accounts DEFERRABLE INITIALLY DEFERRED)")
    return Effects(dsn)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged about jobs, from WARNING on."""
    caplog.set_level(logging.WARNING, logger="piecework.job")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "piecework.job"]
