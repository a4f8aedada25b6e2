"""One run of the bench: shape by shape, each on the schema made anew, and gone in the end whatever happens."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import click

from piecework.base.errors import PermissionDenied, PieceworkError
from piecework.cli.bench.plan import SHAPES, Plan
from piecework.cli.bench.processes import Starter
from piecework.cli.bench.progress import Progress
from piecework.cli.bench.report import Report, ShapeReport
from piecework.cli.bench.server_cpu import ServerCpu
from piecework.cli.bench.shapes import measure
from piecework.cli.bench.stage import Stage
from piecework.cli.database import named_dsn, opened
from piecework.store.dsn import complete_dsn, describe
from piecework.store.measuring import Gauge, Server, Waits
from piecework.store.overview import drop_schema
from piecework.store.statements import Statements
from piecework.store.store import Store

_LOOKS_ROUND = 1.5
"""Seconds; a server's sessions tell what they did once in a second."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bench is run."""

    dsn: str
    schema: str
    gauge: Gauge
    server: Server
    cpu: ServerCpu | None
    folder: Path
    progress: Progress


async def run(plan: Plan, database_url: str | None, schema: str, say: Callable[[str], None]) -> Report:
    """Measure all shapes of the plan, in a schema of this name that is there for no longer.

    Args:
        plan: what to measure.
        database_url: None: the embedded server.
        schema: there is none of this name.
        say: told where it will work, before anything is made.

    Raises:
        PermissionDenied: the role may not create a schema; nothing was made.
        click.ClickException: a process of the bench ended by itself.
        DatabaseError, EmbeddedError
    """
    async with named_dsn(database_url) as given:
        dsn = complete_dsn(given)
        async with Gauge.of(dsn, Statements(schema)) as gauge:
            server = await gauge.server()
            _check_may_create(server)
            say(
                f"Works in a schema of its own, {schema}, at {describe(dsn)}: made by this, dropped in the end. "
                "Nothing else is touched, but the server will be busy for a while."
            )
            async with _folder() as folder, _schema(dsn, schema):
                place = Place(dsn, schema, gauge, server, ServerCpu.of(server), folder, Progress())
                return await _measure_all(plan, place)


def _check_may_create(server: Server) -> None:
    if not server.may_create:
        raise PermissionDenied(
            f"the role {server.role!r} may not create a schema in the database {server.database!r}, and the bench "
            f'works in one of its own: GRANT CREATE ON DATABASE "{server.database}" TO "{server.role}", or name '
            "another role or database by --dsn"
        )


async def _measure_all(plan: Plan, place: Place) -> Report:
    others = await _others(place)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    waits: list[Waits] = []
    done: dict[str, ShapeReport] = {}
    try:
        for shape in SHAPES:
            if shape.name not in plan.shapes:
                continue
            place.progress.begin(shape.name)
            async with _stage(plan, place) as stage:
                waits.append(await place.gauge.waits())
                done[shape.name] = await measure(stage, shape, _full_speed(done), waits[-1], cores)
    finally:
        place.progress.clear()
    return Report(
        status="failed" if any(each["problems"] for each in done.values()) else "ok",
        postgresql=place.server.version, python=platform.python_version(), piecework=version("piecework"), cores=cores,
        server_is_here=place.cpu is not None, round_trip_ms=median(each.round_trip for each in waits) * 1e3,
        commit_ms=median(each.commit for each in waits) * 1e3,
        others_commits_per_s=others, processes=plan.processes, concurrency=plan.concurrency,
        payload_bytes=plan.payload, shapes=list(done.values()),
    )  # fmt: skip


async def _others(place: Place) -> float:
    """Return how many commits per second there are without the bench."""
    place.progress.begin("before")
    before = await place.gauge.counters()
    await asyncio.sleep(_LOOKS_ROUND)
    return ((await place.gauge.counters()).commits - before.commits) / _LOOKS_ROUND


def _full_speed(done: dict[str, ShapeReport]) -> float | None:
    for name in ("steady", "drain"):
        if name in done:
            return done[name]["jobs_per_s"]
    return None


@asynccontextmanager
async def _stage(plan: Plan, place: Place) -> AsyncGenerator[Stage]:
    """Lend the schema, made anew, for one shape."""
    async with opened(place.dsn, place.schema, migrate=True) as database:
        stage = Stage(
            database.store, place.gauge, Starter(place.dsn, place.schema, place.folder), place.cpu, plan, place.progress
        )
        try:
            yield stage
        finally:
            await stage.close()
        await drop_schema(database.store)


@asynccontextmanager
async def _schema(dsn: str, schema: str) -> AsyncGenerator[None]:
    """Have the schema gone in the end, whoever made it; say so if it could not be."""
    try:
        yield
    finally:
        try:
            await drop_schema(Store(dsn, schema=schema))
        except PieceworkError as error:
            click.echo(f'The schema could not be dropped ({error}). Do it: DROP SCHEMA "{schema}" CASCADE', err=True)


@asynccontextmanager
async def _folder() -> AsyncGenerator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="piecework-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
