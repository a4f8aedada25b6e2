"""Faults of processes, and of the network between them and the server."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from random import Random

from piecework.cli.chaos import clocks, work
from piecework.cli.chaos.fleet import Role
from piecework.cli.chaos.scene import Kind, Scene
from piecework.jobs import Jobs
from piecework.testing.faults import Direction, Moment

_WAYS: tuple[tuple[Direction, ...], ...] = ((), ("to_server",), ("to_client",))
_REPLACED_WITHIN = 30.0
_LOOK = 0.05


async def kill(scene: Scene, chance: Random) -> None:
    scene.fleet.any("worker", chance).send(signal.SIGKILL)


async def kill_all(scene: Scene, chance: Random) -> None:
    """Kill all workers; it is over when one of those that are started for them is at work."""
    before = await scene.console.workers()
    for member in scene.fleet.of("worker"):
        member.send(signal.SIGKILL)
    deadline = time.monotonic() + _REPLACED_WITHIN
    while await scene.console.workers() <= before and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK)


async def kill_spawner(scene: Scene, chance: Random) -> None:
    scene.fleet.any("spawner", chance).send(signal.SIGKILL)


async def stand_still(scene: Scene, chance: Random) -> None:
    await scene.fleet.freeze(scene.fleet.any("worker", chance), scene.a_while(chance))


async def replace(scene: Scene, chance: Random) -> None:
    scene.fleet.any("worker", chance).send(signal.SIGTERM)


async def roll(scene: Scene, chance: Random) -> None:
    for old in scene.fleet.of("worker"):
        await scene.fleet.start("worker")
        old.send(signal.SIGTERM)
        assert old.ended is not None
        await asyncio.wait([old.ended], timeout=_REPLACED_WITHIN)
        await scene.fleet.keep_up()


async def block(scene: Scene, chance: Random) -> None:
    async with Jobs(scene.dsn, schema=scene.schema, migrate=False) as jobs:
        seconds = scene.lease * chance.uniform(1.2, 2.0)
        await jobs.spawn_all([work.block.spec(seconds)])
        await asyncio.sleep(seconds)


async def turn_clock(scene: Scene, chance: Random) -> None:
    clock = scene.folder / f"clock-{scene.fleet.started['worker']}"
    hours = chance.choice([-1, 1])
    clocks.turn(clock, hours * clocks.HOUR)
    scene.fleet.any("worker", chance).send(signal.SIGTERM)
    await scene.fleet.start("worker", clock)
    await asyncio.sleep(scene.lease)
    clocks.turn(clock, -hours * clocks.HOUR)
    await asyncio.sleep(scene.lease)


async def cut(scene: Scene, chance: Random) -> None:
    chance.choice(scene.fleet.members).proxy.cut()


async def reset(scene: Scene, chance: Random) -> None:
    chance.choice(scene.fleet.members).proxy.reset()


async def black_hole(scene: Scene, chance: Random) -> None:
    member = chance.choice(scene.fleet.members)
    member.proxy.black_hole(*chance.choice(_WAYS))
    await asyncio.sleep(scene.a_while(chance))
    scene.heal(member)


async def freeze(scene: Scene, chance: Random) -> None:
    member = chance.choice(scene.fleet.members)
    member.proxy.freeze()
    await asyncio.sleep(scene.a_while(chance))
    scene.heal(member)


async def delay(scene: Scene, chance: Random) -> None:
    member = chance.choice(scene.fleet.members)
    member.proxy.delay(chance.choice([0.02, 0.2]))
    await asyncio.sleep(scene.a_while(chance))
    scene.heal(member)


async def half_open(scene: Scene, chance: Random) -> None:
    for connection in scene.fleet.any("worker", chance).proxy.connections(b"^LISTEN"):
        connection.half_open(chance.choice(["client", "server"]))


def lose(moment: Moment, statement: bytes, answer: bytes | None = None) -> Callable[[Scene, Random], Awaitable[None]]:
    """Break the next connections that run such a statement."""

    async def do(scene: Scene, chance: Random) -> None:
        role: Role = "spawner" if statement.startswith(b"spawn") else "worker"
        scene.fleet.any(role, chance).proxy.trap(moment, statement, answer=answer, times=chance.randint(1, 5))

    return do


KINDS: tuple[Kind, ...] = (
    Kind("a worker is killed (SIGKILL)", kill),
    Kind("all workers are killed at once", kill_all, hinders=True),
    Kind("a spawner is killed", kill_spawner),
    Kind("a worker stands still (SIGSTOP)", stand_still),
    Kind("a worker is replaced (SIGTERM)", replace),
    Kind("the whole fleet is replaced, one by one", roll, hinders=True),
    Kind("an event loop is blocked for longer than the lease", block),
    Kind("a worker's clock is an hour off, and steps back by two", turn_clock, "clock library"),
    Kind("connections are cut", cut),
    Kind("connections are reset", reset),
    Kind("a black hole", black_hole),
    Kind("a frozen network", freeze),
    Kind("a slow network", delay),
    Kind("a half-open LISTEN", half_open),
    Kind("claims are lost on their way", lose("request", rb"claim_\w*\d")),
    Kind("answers to claims are lost", lose("answer", rb"claim_\w*\d", rb'\[\["')),
    Kind("answers to claims are cut in the middle", lose("middle", rb"claim_\w*\d", rb'\[\["')),
    Kind("answers to settles are lost", lose("answer", rb"settle_\w*\d")),
    Kind("answers to spawns are lost", lose("answer", rb"spawn_\w*\d")),
    Kind("answers to completions are lost", lose("answer", rb"complete_\d|COMMIT")),
)
