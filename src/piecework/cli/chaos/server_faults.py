"""Faults of the server. Those that hit others than the run itself are done to a server of its own only."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack, nullcontext
from random import Random

import psycopg

from piecework.base.errors import PieceworkError
from piecework.cli.chaos import clocks
from piecework.cli.chaos.own_server import OwnServer
from piecework.cli.chaos.process_faults import KINDS as PROCESS_KINDS
from piecework.cli.chaos.scene import Kind, Need, Scene
from piecework.store.dsn import complete_dsn
from piecework.testing.history import Fault

_OF_WORKERS = ("LISTEN", "claim_", "look_", "owned_", "idle_workers", "settle_", "complete_", "beat")
_SLOTS = 200
_FORGETS = 1.0


def _own(scene: Scene) -> OwnServer:
    assert scene.server is not None
    return scene.server


async def end_sessions(scene: Scene, chance: Random) -> None:
    for pid, _ in await scene.console.sessions(scene.schema):
        if chance.random() < 0.5:
            await scene.console.end_session(pid)


async def freeze_back_end(scene: Scene, chance: Random) -> None:
    sessions = await scene.console.sessions(scene.schema)
    found = [pid for pid, statement in sessions if any(part in statement for part in _OF_WORKERS)]
    if not found:
        raise LookupError("none of the run's sessions is there")
    pid = chance.choice(found)
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(scene.a_while(chance))
    finally:
        os.kill(pid, signal.SIGCONT)


async def take_slots(scene: Scene, chance: Random) -> None:
    """End the sessions and take their places, until nobody gets one."""
    async with AsyncExitStack() as held:
        for pid, _ in await scene.console.sessions(scene.schema):
            await scene.console.end_session(pid)
        for _ in range(_SLOTS):
            try:
                connection = await psycopg.AsyncConnection.connect(complete_dsn(scene.dsn))
            except psycopg.OperationalError:
                break
            held.push_async_callback(connection.close)
        await asyncio.sleep(scene.a_while(chance))


async def pin(scene: Scene, chance: Random) -> None:
    async with scene.console.pinned():
        await asyncio.sleep(2 * scene.a_while(chance))


async def restart(scene: Scene, chance: Random) -> None:
    await _own(scene).restart()


async def crash(scene: Scene, chance: Random) -> None:
    await _own(scene).crash(signal.SIGQUIT, scene.a_while(chance))


async def kill_server(scene: Scene, chance: Random) -> None:
    await _own(scene).crash(signal.SIGKILL, scene.a_while(chance))


async def fail_over(scene: Scene, chance: Random) -> None:
    await _need_standby(scene)
    scene.forgotten.append(await _own(scene).fail_over(_FORGETS))


async def lead_to_standby(scene: Scene, chance: Random) -> None:
    server = _own(scene)
    await _need_standby(scene)
    server.lead_to_standby()
    scene.cut_all()
    try:
        await asyncio.sleep(scene.a_while(chance))
    finally:
        server.lead_back()
        scene.cut_all()


async def _need_standby(scene: Scene) -> None:
    if not await _own(scene).standby_made():
        raise LookupError("its standby could not be made, and is tried again")


async def fill_disk(scene: Scene, chance: Random) -> None:
    await _own(scene).fill_disk(scene.a_while(chance))


async def set_clock_back(scene: Scene, chance: Random) -> None:
    """Set the server's clock back by an hour, and after a while right again: what was due waits so long."""
    since = time.monotonic()
    _own(scene).turn_clock(-clocks.HOUR)
    try:
        await asyncio.sleep(clocks.LOOKED_AT_EVERY + scene.a_while(chance))
    finally:
        _own(scene).turn_clock(0)
        await asyncio.sleep(clocks.LOOKED_AT_EVERY)
        scene.setbacks.append((since, time.monotonic()))


_KINDS: tuple[Kind, ...] = (
    Kind("sessions are ended", end_sessions, hinders=True),
    Kind("the MVCC horizon is pinned", pin),
    Kind("a back end stands still (SIGSTOP)", freeze_back_end, "own server", server=True, hinders=True),
    Kind("every connection slot is taken", take_slots, "own server", server=True, hinders=True),
    Kind("the server is restarted", restart, "own server", server=True, hinders=True),
    Kind("the server crashes", crash, "own server", server=True, hinders=True),
    Kind("the server is killed (SIGKILL)", kill_server, "own server", server=True, hinders=True),
    Kind("a failover forgets the last second", fail_over, "own server", server=True, hinders=True),
    Kind("the DSN leads to a read-only standby", lead_to_standby, "own server", server=True, hinders=True),
    Kind("the disk is full", fill_disk, "small disk", server=True, hinders=True),
    Kind("the server's clock is set back by an hour, then right", set_clock_back, "server's clock", server=True),
)
KINDS: tuple[Kind, ...] = (*PROCESS_KINDS, *_KINDS)
NAMES: tuple[str, ...] = tuple(kind.name for kind in KINDS)


def possible(kind: Kind, server: OwnServer | None, seconds: float) -> str | None:
    """Return None if this kind of fault can be done here, in a run of so many seconds, else why not."""
    why: dict[Need, str] = {
        "own server": "the server was named: only one of the run's own is broken",
        "small disk": "a small disk takes a server of the run's own, root and Linux",
        "clock library": "libfaketime is not installed (on Debian: apt-get install faketime)",
        "server's clock": "it takes libfaketime, a server of the run's own, and a run of no more than 20 minutes, for "
        "nobody could tell else which moments are an hour behind",
    }
    there: dict[Need, bool] = {
        "own server": server is not None,
        "small disk": server is not None and server.primary.disk is not None,
        "clock library": clocks.library() is not None,
        "server's clock": server is not None and server.has_clock and seconds <= clocks.HOUR / 3,
    }
    return None if kind.needs is None or there[kind.needs] else why[kind.needs]


async def do(kind: Kind, scene: Scene, chance: Random) -> tuple[Fault, str | None]:
    """Do a fault, in its turn.

    Returns:
        When it began and was over, by the clock `time.monotonic`, and why it was cut short if another was in its way.
    """
    async with scene.turn if kind.server else nullcontext():
        began, why = time.monotonic(), None
        try:
            await kind.do(scene, chance)
        except (PieceworkError, psycopg.Error, LookupError, ProcessLookupError) as error:
            why = str(error)
        return Fault(kind.name, began, time.monotonic(), hinders=kind.hinders), why
