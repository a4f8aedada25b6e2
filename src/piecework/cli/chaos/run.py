"""The course of a chaos run: processes under load, a fault after the other, and the verdict."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from piecework.base.errors import PieceworkError
from piecework.cli.chaos import clocks, ledger, server_faults, work
from piecework.cli.chaos.fleet import Fleet
from piecework.cli.chaos.own_server import OwnServer
from piecework.cli.chaos.plan import Plan, Step, steps
from piecework.cli.chaos.scene import Kind, Scene
from piecework.cli.chaos.verdict import ChaosReport, Course, by_fault, must_be_none, shown
from piecework.cli.database import opened
from piecework.store.chaos import Console
from piecework.store.overview import drop_schema
from piecework.store.store import Store
from piecework.testing.history import Cut, Fault, Ledger, Report, Setback, Terms, check

Say = Callable[[str], None]

_LOOK = 0.1
_STARTS_WITHIN = 60.0
_DRAINS_WITHIN = 120.0
_SLACK = 1.0
_MOST_CRASHES = 5


def promised(lease: float) -> float:
    """Return within how many seconds the claims of a lost worker are given back: 30 with the default lease of 18."""
    return max(lease * 30 / 18, lease + 3.0)


@dataclass
class Log:
    """What happened, by the clock `time.monotonic`."""

    faults: list[Fault] = field(default_factory=list[Fault])
    cut_short: Counter[str] = field(default_factory=Counter[str])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    drained_in: float | None = None


async def run(plan: Plan, dsn: str | None, schema: str, folder: Path, say: Say) -> ChaosReport:
    """Break things for a while, and judge.

    Args:
        plan: what to do.
        dsn: a server of somebody's, of which only the run's own sessions are touched; None: one of the run's own.
        schema: made by this, and dropped in the end.
        folder: for the ledger and the logs of the processes.
        say: told what is done.

    Raises:
        PieceworkError: the database cannot be used at the start.
    """
    async with _server(dsn, schema) as server, _schema(dsn or _dsn(server), schema) as direct:
        console = Console(direct, schema)
        fleet = Fleet(direct, schema, plan.crew, folder, plan.seed)
        scene = Scene(fleet, console, server, schema, direct, folder, plan.crew.lease)
        log = Log()
        try:
            await _through(plan, scene, log, say)
        finally:
            await fleet.close("spawner", "worker")
        offset = await console.now() - time.monotonic()
        book = ledger.read(fleet.ledger, offset)
        shift = _shifted(log, fleet.cuts, offset)
        terms = Terms(
            live=False, accepted=book.accepted, runs_of=work.RUNS, effects_of=work.EFFECTS, cuts=shift.cuts,
            faults=shift.faults, promised=promised(plan.crew.lease), n_attempts=work.N_ATTEMPTS,
            forgotten=[(since + offset, until + offset) for since, until in scene.forgotten],
            setbacks=[Setback(since + offset, until + offset, clocks.HOUR) for since, until in scene.setbacks],
            max_crashes=_MOST_CRASHES, slack=_SLACK,
        )  # fmt: skip
        report = await check(direct, schema=schema, terms=terms, entries=book.entries)
        course = Course(
            faults=shift.faults, begins=book.begins, accepted=len(book.accepted), cut_short=log.cut_short
        )  # fmt: skip
        version = await _version(direct)
    return _told(plan, fleet, log, course, report, version)


@dataclass(frozen=True, slots=True)
class _Shift:
    faults: list[Fault]
    cuts: list[Cut]


def _shifted(log: Log, cuts: Sequence[Cut], offset: float) -> _Shift:
    """Return faults and cuts by the clock of the rows."""
    return _Shift(
        [replace(fault, began=fault.began + offset, over=fault.over + offset) for fault in log.faults],
        [replace(cut, at=cut.at + offset, until=cut.until and cut.until + offset) for cut in cuts],
    )


def _dsn(server: OwnServer | None) -> str:
    assert server is not None
    return server.dsn


async def _through(plan: Plan, scene: Scene, log: Log, say: Say) -> None:
    """Start, break, mend, and let all jobs end."""
    fleet = scene.fleet
    keeping = asyncio.create_task(_keep_up(fleet), name="chaos-keeper")
    try:
        await _until_some_run(fleet)
        await _break(plan, scene, log, say)
        for member in fleet.members:
            member.proxy.heal()
        say("The faults are over: the jobs that are left are worked off")
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
    await fleet.keep_up()
    began = time.monotonic()
    await fleet.stop("spawner")
    fleet.crew = type(fleet.crew)(fleet.crew.workers, 0, fleet.crew.rate, fleet.crew.lease)
    if await _drained(scene):
        log.drained_in = time.monotonic() - began
        await fleet.stop("worker")


async def _keep_up(fleet: Fleet) -> None:
    while True:
        await fleet.keep_up()
        await asyncio.sleep(_LOOK)


async def _until_some_run(fleet: Fleet) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN
    while not ledger.read(fleet.ledger, 0.0).begins and time.monotonic() < deadline:  # noqa: ASYNC110 - a file
        await asyncio.sleep(_LOOK)


async def _break(plan: Plan, scene: Scene, log: Log, say: Say) -> None:
    chosen: list[Kind] = []
    for kind in server_faults.KINDS:
        if kind.name in plan.faults:
            if (why := server_faults.possible(kind, scene.server, plan.seconds)) is None:
                chosen.append(kind)
            else:
                log.skipped[kind.name] = why
                say(f"Not done: {kind.name}, since {why}")
    end = time.monotonic() + plan.seconds
    async with asyncio.TaskGroup() as group:
        for step in steps(plan.seed, chosen) if chosen else ():
            await asyncio.sleep(step.before)
            if time.monotonic() >= end:
                break
            say(f"{end - time.monotonic():6.1f} s left: {step.kind.name}")
            task = group.create_task(_do(step, scene, log, say), name="chaos-fault")
            if step.alone:
                await task
                await asyncio.sleep(step.chance.uniform(0.2, 1.5) * scene.lease)
            if step.rest:
                await asyncio.sleep(promised(scene.lease) + 1.0)


async def _do(step: Step, scene: Scene, log: Log, say: Say) -> None:
    fault, why = await server_faults.do(step.kind, scene, step.chance)
    log.faults.append(fault)
    if why is not None:
        log.cut_short[fault.name] += 1
        say(f"         {step.kind.name} was cut short: {why}")


async def _drained(scene: Scene) -> bool:
    """Wait until all jobs have ended; False: they have not within two minutes, or ten leases."""
    deadline = time.monotonic() + max(_DRAINS_WITHIN, 10 * scene.lease)
    while time.monotonic() < deadline:
        await scene.fleet.keep_up()
        try:
            if await scene.console.live() == 0:
                return True
        except PieceworkError:
            pass
        await asyncio.sleep(_LOOK)
    return False


@asynccontextmanager
async def _server(dsn: str | None, schema: str) -> AsyncGenerator[OwnServer | None]:
    if dsn is not None:
        yield None
        return
    server = await OwnServer.make(schema)
    try:
        yield server
    finally:
        await server.remove()


@asynccontextmanager
async def _schema(dsn: str, schema: str) -> AsyncGenerator[str]:
    """Make the schema with the ledger of effects, and drop it in the end."""
    async with opened(dsn, schema, migrate=True):
        pass
    try:
        await Ledger(schema).create(dsn)
        yield dsn
    finally:
        await drop_schema(Store(dsn, schema=schema))


async def _version(dsn: str) -> str:
    return await Console(dsn, "piecework").version()


def _told(plan: Plan, fleet: Fleet, log: Log, course: Course, report: Report, version: str) -> ChaosReport:
    none = must_be_none(course, report)
    return ChaosReport(
        status="failed" if any(none.values()) else "ok", seed=plan.seed, seconds=plan.seconds, lease=plan.crew.lease,
        workers=plan.crew.workers, spawners=plan.crew.spawners,
        started={f"{role}s": number for role, number in fleet.started.items()},
        exits={str(code): times for code, times in sorted(fleet.exits.items())}, postgresql=version, jobs=report.jobs,
        accepted=course.accepted, runs=report.runs, effects=report.effects, statuses=report.statuses,
        attempts=report.attempts, forgotten=len(report.forgotten), taken_over=report.taken_over,
        refused=len(report.refused), drained_in=log.drained_in, promised=promised(plan.crew.lease),
        faults=by_fault(course, report), skipped=log.skipped, must_be_none=none, violations=shown(report),
    )  # fmt: skip
