"""The links of one worker, and where each of them leads."""

from __future__ import annotations

from piecework.store.link import DatabaseHealth, Link
from piecework.store.store import Store


def links_of(store: Store, deadline: float) -> tuple[Link, Link, Link]:
    """Return the links of a worker: for claims, for settles, and to listen."""
    health = DatabaseHealth(store.dsn)
    claims, settles = (Link(store.dsn, store.statements, health, deadline, store.revive) for _ in range(2))
    listens = Link(
        store.listen_dsn or store.dsn, store.statements, health, deadline, store.revive,
        listens_anyway=store.listen_dsn is not None,
    )  # fmt: skip
    return claims, settles, listens
