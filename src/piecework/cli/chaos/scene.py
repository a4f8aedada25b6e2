"""Where faults are done, and what they all use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal, TypeAlias

from piecework.cli.chaos.fleet import Fleet, Member
from piecework.cli.chaos.own_server import OwnServer
from piecework.store.chaos import Console

Need: TypeAlias = Literal["own server", "small disk", "clock library", "server's clock"]


@dataclass
class Scene:
    """A chaos run as its faults see it."""

    fleet: Fleet
    console: Console
    """Past all proxies."""
    server: OwnServer | None
    """None: the server is somebody's, and is left alone."""
    schema: str
    dsn: str
    folder: Path
    lease: float
    forgotten: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """When the database has forgotten what was committed, by the clock `time.monotonic`."""
    setbacks: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """When the server's clock was behind, by the clock `time.monotonic`."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever does something to the server."""

    def a_while(self, chance: Random) -> float:
        """Return for how many seconds something is broken: shorter than the lease, or longer."""
        return chance.choice([0.2, 1.0, self.lease, 2.5 * self.lease])

    def heal(self, member: Member) -> None:
        """Let everything through to a process again, if it is still there."""
        if member in self.fleet.members:
            member.proxy.heal()

    def cut_all(self) -> None:
        """Cut all connections: what comes next goes to wherever the DSN leads now."""
        for member in list(self.fleet.members):
            member.proxy.cut()


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: `do` breaks something, waits, and mends it, unless that is what others have to do."""

    name: str
    do: Callable[[Scene, Random], Awaitable[None]]
    needs: Need | None = None
    server: bool = False
    """It is done to the server: one at a time."""
    hinders: bool = False
    """Nobody may be able to take back meanwhile what a lost worker held."""
