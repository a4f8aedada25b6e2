"""The server of a chaos run where none was named: a primary with an asynchronous standby, behind one DSN."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from piecework.base.errors import PieceworkError
from piecework.base.threads import in_thread
from piecework.cli.chaos import clocks
from piecework.cli.chaos.node import Node, can_mount, temporary
from piecework.store.chaos import Console

_SETTINGS: Mapping[str, str] = {
    "max_connections": "100", "superuser_reserved_connections": "0", "max_wal_size": "64MB", "min_wal_size": "32MB",
    "wal_keep_size": "32MB", "checkpoint_timeout": "30s",
}  # fmt: skip
_DISK = 768 << 20
_CLOCK = "libfaketime.so.1"
_LOOK = 0.05
_STANDBY_WITHIN = 60.0
_BLOCK = b"\0" * 4096


class OwnServer:
    """What may be done to a server of one's own. `dsn` leads to whichever of the two is to be used."""

    def __init__(self, schema: str) -> None:
        folder = Path(mkdtemp(prefix="piecework-way-", dir=temporary()))
        folder.chmod(0o755)  # the servers, which may run as another user, look at their clock
        self._clock = folder / "clock"
        clocks.turn(self._clock, 0)
        self._disk = _DISK if can_mount() else None
        self.primary = self._make_node()
        self.standby: Node | None = None
        self._schema = schema
        self._way = folder / "to"
        self._making: asyncio.Task[None] | None = None
        self._lead_to(self.primary)
        self.dsn = make_conninfo(self.primary.dsn, host=str(self._way))

    @classmethod
    async def make(cls, schema: str) -> OwnServer:
        """Make the primary; its standby follows."""
        server = await in_thread("chaos-server", lambda: cls(schema))
        server.make_standby()
        return server

    def _make_node(self, copy_of: Node | None = None) -> Node:
        surroundings = clocks.turned_by(self._clock, _CLOCK)
        return Node(None, _SETTINGS, copy_of=copy_of, surroundings=surroundings, disk=self._disk)

    def make_standby(self) -> None:
        """Begin to make a standby; `standby` is there when it has caught up."""
        self._making = asyncio.create_task(self._make_standby(), name="chaos-standby")

    async def _make_standby(self) -> None:
        primary = self.primary
        try:
            made = await in_thread("chaos-standby", lambda: self._make_node(primary))
        except (subprocess.CalledProcessError, AssertionError, TimeoutError):
            return  # the primary was broken meanwhile
        try:
            there = await self._caught_up(primary) is not None
        except (PieceworkError, psycopg.Error):
            there = False
        if there:
            self.standby = made
        else:
            await in_thread("chaos-standby", made.remove)

    async def _caught_up(self, primary: Node) -> list[int] | None:
        """Wait until a standby has what the primary has written by now.

        Returns:
            The process ids of what sends to it; None: it lags behind for long.
        """
        console, deadline = Console(primary.dsn, self._schema), time.monotonic() + _STANDBY_WITHIN
        position = await console.position()
        while time.monotonic() < deadline:
            senders = await console.senders(position)
            if senders and all(there for _, there in senders):
                return [pid for pid, _ in senders]
            await asyncio.sleep(_LOOK)
        return None

    async def standby_made(self) -> bool:
        """Wait for the standby; False: it could not be made, since something else was broken, and is tried again."""
        if self.standby is None and self._making is not None:
            await asyncio.wait([self._making])
            if self.standby is None:
                self.make_standby()
        return self.standby is not None

    async def restart(self) -> None:
        """Restart it in order."""
        await in_thread("chaos-server", self.primary.restart)

    async def crash(self, mode: signal.Signals, out_for: float) -> None:
        """End the postmaster by this signal, and start it again after a while."""
        await in_thread("chaos-server", lambda: self.primary.stop(mode))
        await asyncio.sleep(out_for)
        await self._start()

    async def _start(self) -> None:
        """Start it. Sessions of a postmaster that was killed may take a while to notice, and nobody starts before."""
        deadline = time.monotonic() + _STANDBY_WITHIN
        while True:
            try:
                return await in_thread("chaos-server", self.primary.start)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_LOOK)

    async def fail_over(self, forgets: float) -> tuple[float, float]:
        """Let the standby fall behind for a while, end the primary, and make the standby the primary.

        Returns:
            From when to when what was committed may be forgotten, by the clock `time.monotonic`.
        """
        standby, gone = self.standby, self.primary
        assert standby is not None
        since = time.monotonic()
        senders = await self._caught_up(gone)
        if senders is None:
            raise LookupError("its standby lags behind")
        for pid in senders:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(forgets)
        os.kill(gone.pid, signal.SIGQUIT)
        for pid in senders:
            os.kill(pid, signal.SIGKILL)
        await in_thread("chaos-server", lambda: gone.stop(signal.SIGQUIT))
        until = time.monotonic()
        if not await Console(standby.dsn, self._schema).promote():
            await self._start()
            raise LookupError("its standby did not become the primary in time")
        self.primary, self.standby = standby, None
        self._lead_to(standby)
        await in_thread("chaos-server", gone.remove)
        self.make_standby()
        return since, until

    @property
    def has_clock(self) -> bool:
        """Whether its clock can be turned."""
        return clocks.library(_CLOCK) is not None

    def turn_clock(self, seconds: int) -> None:
        """Let its clock, and the standby's, be off by so much; sessions notice after `clocks.LOOKED_AT_EVERY`."""
        clocks.turn(self._clock, seconds)

    def lead_to_standby(self) -> None:
        """Let new sessions go to the standby."""
        assert self.standby is not None
        self._lead_to(self.standby)

    def lead_back(self) -> None:
        """Let new sessions go to the primary again."""
        self._lead_to(self.primary)

    async def fill_disk(self, full_for: float) -> None:
        """Fill the disk for a while, and see that the server runs afterwards."""
        disk = self.primary.disk
        assert disk is not None
        filler = disk / "filler"
        try:
            await in_thread("chaos-disk", lambda: _fill(filler))
            await asyncio.sleep(full_for)
        finally:
            filler.unlink(missing_ok=True)
        if not self.primary.running:
            await in_thread("chaos-server", lambda: self.primary.stop(signal.SIGQUIT))
            await self._start()

    async def remove(self) -> None:
        """Stop and delete both."""
        if self._making is not None:
            await asyncio.wait([self._making])
        for node in (self.standby, self.primary):
            if node is not None:
                await in_thread("chaos-server", node.remove)
        shutil.rmtree(self._way.parent)

    def _lead_to(self, node: Node) -> None:
        fresh = self._way.with_suffix(".new")
        fresh.symlink_to(str(conninfo_to_dict(node.dsn)["host"]))
        fresh.replace(self._way)


def _fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(_BLOCK * 256) == len(_BLOCK) * 256:
                pass
            while file.write(_BLOCK) == len(_BLOCK):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
