"""A Django project without anything but a database, which each test makes another one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import django
from django.conf import settings
from django.core.cache import cache
from django.db import connection, connections, transaction

if not settings.configured:
    settings.configure(DATABASES={
        "default": {"ENGINE": "django.db.backends.postgresql"},
        "lite": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
    })  # fmt: skip
    django.setup()


@contextmanager
def database(place: dict[str, Any], **options: Any) -> Iterator[None]:
    """Let Django's default connection lead there."""
    before = dict(connections.settings["default"])
    named = {"HOST": place["host"], "PORT": place["port"], "USER": place["user"], "NAME": place["database"]}
    connections.settings["default"].update(named, **options)
    if hasattr(connections._connections, "default"):
        del connections["default"]
    try:
        yield
    finally:
        connections["default"].close()
        del connections["default"]
        connections.settings["default"].update(before)


def proxy() -> Any:
    return connection


def wrapper() -> Any:
    return connections["default"]


def lite() -> Any:
    return connections["lite"]


def cache_proxy() -> Any:
    return cache


def atomic() -> AbstractContextManager[None]:
    return transaction.atomic()  # type: ignore[no-any-return]


def roll_back(stack: ExitStack) -> None:
    """Leave the atomic block in `stack`, if it is still open, without committing."""
    if connection.in_atomic_block:
        transaction.set_rollback(True)
    stack.close()


def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)
