"""What operators say of concurrency keys: how many jobs of one may run at once, and whether any may start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import msgspec

from piecework.store.store import Store


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """What is said of a concurrency key, or of all keys with one beginning. It counts before what jobs bring along."""

    key: str
    """The key; or with an asterisk at the end the beginning of keys: the longest that fits counts."""
    queue: str
    """Empty: of all queues. What is said of one queue counts first."""
    limit: int | None
    """None: it is only paused."""
    paused: bool


async def set_concurrency_limit(store: Store, key: str, limit: int | None, queue: str) -> None:
    """Say how many jobs of a key may run at once; None leaves it to the jobs again. Whether it is paused stays."""
    await _set(store, {"name": key, "queue": queue, "max_running": limit})


async def pause_concurrency_key(store: Store, key: str, queue: str, *, paused: bool) -> None:
    """Have no job of a key start any more, or let them start again. Those that run go on."""
    await _set(store, {"name": key, "queue": queue, "paused": paused})


async def list_concurrency_limits(store: Store) -> list[ConcurrencyLimit]:
    """Return all that is said of concurrency keys, by key and queue."""
    return [
        ConcurrencyLimit(cast(str, key), cast(str, queue), cast("int | None", limit), cast(bool, paused))
        for key, queue, limit, paused in await store.rows("list_limits")
    ]


async def _set(store: Store, limit: Mapping[str, object]) -> None:
    await store.rows("set_limit", msgspec.json.encode(limit).decode())
