"""Two servers, one of which follows the other, behind one DSN that names both; and ways to lose the first."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from embedded.helpers import children
from engine.helpers import query, until
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from piecework.cli.chaos.node import Node
from piecework.testing import FaultProxy

SETTINGS = {"max_connections": "100", "wal_keep_size": "64MB", "autovacuum_naptime": "5s"}
LAG = 1.0
"""Seconds for which the standby hears nothing before the primary is lost."""
ENTERED = 1.0
"""Seconds within which a spawner has entered what was answered before the primary was lost."""


class Switch(NamedTuple):
    """A change of primaries, by the clock `time.monotonic`."""

    began: float
    old: int
    """Which of the servers was the primary before, which is it now: their places in the DSN."""
    new: int
    forgotten: tuple[float, float] | None = None
    """From when to when what was committed may be forgotten."""


class Cluster:
    """A primary and its standby, as hosts of one DSN in this order: who connects tries the lost one first."""

    def __init__(self, bin_dir: Path | None) -> None:
        self.nodes = [Node(bin_dir, SETTINGS)]
        try:
            self.nodes.append(Node(bin_dir, SETTINGS, copy_of=self.primary))
        except BaseException:
            self.remove()
            raise
        self.dsn = along(self.primary.dsn, *[node.dsn for node in self.nodes])
        self.ways = [node.dsn for node in self.nodes]
        """The DSN of each alone, as who uses it would name it."""

    @property
    def primary(self) -> Node:
        return self.nodes[0]

    @property
    def standby(self) -> Node:
        return self.nodes[1]

    def remove(self) -> None:
        for node in self.nodes:
            node.remove()

    async def caught_up(self) -> list[int]:
        """Wait until the standby has what is committed by now; returns the pids of what sends to it."""
        [[position]] = query(self.primary.dsn, "SELECT pg_current_wal_insert_lsn()::text")
        flushed = "SELECT pid FROM pg_stat_replication WHERE state = 'streaming' AND flush_lsn >= %s::pg_lsn"
        await until(lambda: query(self.primary.dsn, flushed, position))
        return [int(str(pid)) for [pid] in query(self.primary.dsn, flushed, position)]

    async def have_commits_wait_for_the_standby(self) -> None:
        query(self.primary.dsn, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        query(self.primary.dsn, "SELECT pg_reload_conf()")
        in_step = "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'"
        await until(lambda: query(self.primary.dsn, in_step))
        assert query(self.primary.dsn, "SHOW synchronous_commit") == [("on",)]

    def kill_primary(self) -> None:
        """What the end of its machine does: no process of it does anything any more."""
        pids = [self.primary.pid, *children(self.primary.pid)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.primary.stop(signal.SIGKILL)

    def promote(self) -> None:
        assert query(self.standby.dsn, "SELECT pg_promote()") == [(True,)]

    # the ways to lose the primary

    async def switch_over(self) -> Switch:
        """Stop the primary in order, which sends all to its standby, and promote that."""
        await self.caught_up()
        began = time.monotonic()
        await asyncio.to_thread(self.primary.stop, signal.SIGINT)
        await asyncio.to_thread(self.promote)
        return Switch(began, 0, 1)

    async def lose_behind_the_standbys_back(self) -> Switch:
        """Let the standby hear nothing for a while, then kill the primary and promote the standby."""
        since = time.monotonic()
        for pid in await self.caught_up():
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(LAG)
        began = time.monotonic()
        await asyncio.to_thread(self.kill_primary)
        await asyncio.sleep(ENTERED)
        until = time.monotonic()
        await asyncio.to_thread(self.promote)
        return Switch(began, 0, 1, (since, until))


class Distant(Cluster):
    """The same, each server behind a network of its own that may fall silent."""

    def __init__(self, bin_dir: Path | None) -> None:
        super().__init__(bin_dir)
        self.proxies = [FaultProxy(node.dsn).__enter__() for node in self.nodes]
        self.ways = [proxy.dsn for proxy in self.proxies]
        self.dsn = along(self.ways[0], *self.ways)

    def remove(self) -> None:
        for proxy in self.proxies:
            proxy.__exit__()
        super().remove()

    async def fall_silent(self, known_after: float, promoted_after: float) -> Switch:
        """Have the primary's machine answer nothing any more, not even that a port is closed.

        Args:
            known_after: seconds after which the kernels of the clients give the open connections up.
            promoted_after: seconds after which the standby is promoted.
        """
        began = time.monotonic()
        self.proxies[0].black_hole()
        await asyncio.sleep(known_after)
        self.proxies[0].reset()
        await asyncio.sleep(promoted_after - known_after)
        await asyncio.to_thread(self.promote)
        return Switch(began, 0, 1)


def along(like: str, *dsns: str) -> str:
    """One DSN with the hosts of these, in their order."""
    ways = [conninfo_to_dict(dsn) for dsn in dsns]
    hosts, ports = (",".join(str(way.get(name) or "") for way in ways) for name in ("host", "port"))
    return make_conninfo(like, host=hosts, **({"port": ports} if ports.strip(",") else {}))
