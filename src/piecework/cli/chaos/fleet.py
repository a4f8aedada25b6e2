"""The processes of a chaos run, each behind a proxy of its own, and what befell them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal, TypeAlias

from psycopg.conninfo import make_conninfo

from piecework.cli import lifeline
from piecework.cli.chaos import clocks, variables
from piecework.cli.lifeline import Child
from piecework.testing.history import Cut, this_process
from piecework.testing.proxy import FaultProxy
from piecework.work.database import DSN_VARIABLE, LISTEN_VARIABLE

Role: TypeAlias = Literal["worker", "spawner"]

_STOPS_WITHIN = 30.0


@dataclass(eq=False)
class Member:
    """A process of the run."""

    role: Role
    child: Child
    proxy: FaultProxy
    clock: Path | None = None
    """The file that says how far its clock is off; None: it has the machine's."""
    ended: asyncio.Task[int] | None = None
    gone_at: float | None = None
    """When it was found to have ended, by the clock `time.monotonic`."""

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.child.signal(number)


@dataclass(frozen=True, slots=True)
class Crew:
    """What processes a run has."""

    workers: int
    spawners: int
    rate: float
    """Jobs that a spawner spawns per second."""
    lease: float


class Fleet:
    """Starts what is missing, and keeps book of what ended and stood still.

    Args:
        dsn: where the proxies lead to.
        schema: of the run; the sessions of the processes bear its name.
        crew: how many of each.
        folder: for the ledger and the logs.
        seed: of what is spawned.
    """

    def __init__(self, dsn: str, schema: str, crew: Crew, folder: Path, seed: int) -> None:
        self._dsn = dsn
        self._schema = schema
        self.crew = crew
        self._folder = folder
        self._seed = seed
        self._turn = asyncio.Lock()
        self.members: list[Member] = []
        self.started: Counter[Role] = Counter()
        self.exits: Counter[int] = Counter()
        """How often workers ended with this code."""
        self.cuts: list[Cut] = []
        """What befell processes, by the clock `time.monotonic`."""

    @property
    def ledger(self) -> Path:
        """The file in which runs enter themselves."""
        return self._folder / "ledger"

    def of(self, role: Role) -> list[Member]:
        """Return those of a role, oldest first."""
        return [member for member in self.members if member.role == role]

    def any(self, role: Role, chance: Random) -> Member:
        """Return one of a role.

        Raises:
            LookupError: at this moment there is none.
        """
        if not (there := self.of(role)):
            raise LookupError(f"there is no {role}")
        return chance.choice(there)

    async def keep_up(self) -> None:
        """Start what is missing, and forget what has ended."""
        async with self._turn:
            for member in list(self.members):
                if member.ended is not None and member.ended.done():
                    self._forget(member)
            wanted: dict[Role, int] = {"worker": self.crew.workers, "spawner": self.crew.spawners}
            for role, most in wanted.items():
                while len(self.of(role)) < most:
                    await self.start(role)

    async def start(self, role: Role, clock: Path | None = None) -> Member:
        """Start a process.

        Args:
            role: what it does.
            clock: the file that says how far its clock is off.
        """
        proxy = FaultProxy(self._dsn)
        proxy.__enter__()
        number = self.started[role]
        self.started[role] += 1
        surroundings = {
            variables.SCHEMA: self._schema, variables.LEDGER: str(self.ledger),
            DSN_VARIABLE: make_conninfo(proxy.dsn, application_name=self._schema), LISTEN_VARIABLE: "",
            **({} if clock is None else clocks.turned_by(clock)),
        }  # fmt: skip
        with (self._folder / f"{role}-{number}.log").open("wb") as log:
            child = await lifeline.start(
                [sys.executable, "-P", "-m", *self._program(role, number)], env=os.environ | surroundings, stderr=log
            )
        member = Member(role, child, proxy, clock)
        threading.Thread(target=self._watch, args=[member], name=f"chaos-{child.pid}", daemon=True).start()
        member.ended = asyncio.create_task(_end(member), name=f"chaos-{role}-{number}")
        self.members.append(member)
        return member

    def _program(self, role: Role, number: int) -> Sequence[str]:
        if role == "spawner":
            return ["piecework.cli.chaos.spawner", str(self.crew.rate), f"{self._seed} {number}",
                    str(self.crew.lease)]  # fmt: skip
        return [
            "piecework", "worker", "piecework.cli.chaos.work:jobs", "--concurrency", "30", "--threads", "10",
            "--grace", "1", "--lease", str(self.crew.lease),
        ]  # fmt: skip

    def _watch(self, member: Member) -> None:
        """In a thread: note when the process is gone, before the loop, which may be busy, comes to it."""
        try:
            os.waitid(os.P_PID, member.child.pid, os.WEXITED | os.WNOWAIT)
        except (ChildProcessError, AttributeError):
            return  # the loop was quicker, or this system has no such call
        member.gone_at = time.monotonic()

    async def freeze(self, member: Member, seconds: float) -> None:
        """Let a process stand still for a while."""
        now = time.monotonic()
        self.cuts.append(Cut(_name(member), now, "frozen", now + seconds))
        member.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        member.send(signal.SIGCONT)

    async def stop(self, role: Role) -> None:
        """Let those of a role end what they have begun; end them if they do not."""
        for member in self.of(role):
            member.send(signal.SIGCONT)
            member.send(signal.SIGTERM)
        tasks = [member.ended for member in self.of(role) if member.ended is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=_STOPS_WITHIN)
        await self.close(role)

    async def close(self, *roles: Role) -> None:
        """End processes at once."""
        for member in [member for role in roles for member in self.of(role)]:
            member.send(signal.SIGKILL)
            if member.ended is not None:
                await member.ended
            self._forget(member)

    def _forget(self, member: Member) -> None:
        assert member.ended is not None
        self.cuts.append(Cut(_name(member), member.gone_at or time.monotonic(), "gone"))
        if member.role == "worker":
            self.exits[member.ended.result()] += 1
        self.members.remove(member)
        member.proxy.__exit__()


async def _end(member: Member) -> int:
    code = await member.child.wait()
    member.gone_at = member.gone_at or time.monotonic()
    return code


def _name(member: Member) -> str:
    return this_process(member.child.pid)
