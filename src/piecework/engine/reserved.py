"""The connections that a worker keeps for itself (invariant H)."""

from __future__ import annotations

from piecework.base.surroundings import Surroundings
from piecework.model.settings import LivenessSettings
from piecework.store.link import DatabaseHealth, Link
from piecework.store.liveness import Pulse
from piecework.store.store import Store

LINKS = ("claims", "settles", "hints")
"""What each of the links is for."""
_BEAT_DEADLINE = 0.8


def links(store: Store, liveness: LivenessSettings, surroundings: Surroundings) -> list[Link]:
    """Return one link for each of `LINKS`; a statement without an answer is given up when the lease would be over."""
    health, lease = DatabaseHealth(store.dsn), liveness.lease.total_seconds()
    return [Link(store.dsn, store.statements, health, lease, store.revive, store.wire, surroundings) for _ in LINKS]


def pulse(store: Store, liveness: LivenessSettings, surroundings: Surroundings) -> Pulse:
    """Return the connection of the heartbeat."""
    return Pulse(
        store.dsn, store.statements, _BEAT_DEADLINE * liveness.beat.total_seconds(), store.wire, surroundings
    )
