"""The links of one worker, and where each of them leads."""

from __future__ import annotations

from piecework.base.surroundings import Surroundings
from piecework.store.link import DatabaseHealth, Link
from piecework.store.liveness import Pulse
from piecework.store.store import Store

_PATIENCE = 0.8
"""Of the time between two beats: so long an answer is waited for."""

def links_of(store: Store, deadline: float) -> tuple[Link, Link, Link]:
    """Return the links of a worker: for claims, for settles, and to listen."""
    health = DatabaseHealth(store.dsn)
    claims, settles = (Link(store.dsn, store.statements, health, deadline, store.revive, store.wire) for _ in range(2))
    listens = Link(
        store.listen_dsn or store.dsn, store.statements, health, deadline, store.revive, store.wire,
        listens_anyway=store.listen_dsn is not None,
    )  # fmt: skip
    return claims, settles, listens


def pulse_of(store: Store, beat: float, surroundings: Surroundings) -> Pulse:
    """Return the connection of the heartbeat of a worker that beats every `beat` seconds."""
    return Pulse(store.listen_dsn or store.dsn, store.statements, _PATIENCE * beat, store.wire, surroundings)
