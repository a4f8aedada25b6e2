"""How a shape is measured, and its figures."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from piecework.cli.bench.plan import Shape
from piecework.cli.bench.processes import Process
from piecework.cli.bench.report import LimitReport, Percentiles, ShapeReport
from piecework.cli.bench.stage import Cost, Stage
from piecework.cli.bench.verdicts import Load, find_limit, find_problems
from piecework.store.measuring import History, Waits

_SETTLES_DOWN = 1.0
"""Seconds until a worker without work is idle."""
_PARTS = (0.5, 0.9, 0.99, 0.999, 1.0)
_TOO_FEW_FOR_P99, _TOO_FEW_FOR_P999 = 100, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What there is to compute the figures of a shape from."""

    shape: Shape
    asked_rate: float | None
    spawner: Process
    workers: Sequence[Process]
    drained: bool
    cost: Cost
    history: History
    cores: int
    waits: Waits


async def measure(stage: Stage, shape: Shape, full_speed: float | None, waits: Waits, cores: int) -> ShapeReport:
    """Measure a shape on a schema that nobody has used.

    Raises:
        click.ClickException: a process of the bench ended by itself.
        DatabaseError: the database is lost, or refuses.
    """
    task, drained = stage.plan.task(shape, full_speed), True
    if shape.order == "spawn first":
        spawner = await stage.spawn(task)
        await stage.gauge.vacuum()
        before = await stage.before()
        await stage.start_workers(ready=False)
    else:
        before = await stage.before()
        if shape.order == "work first":
            await stage.start_workers(ready=True)
        if shape.role == "knock":
            await asyncio.sleep(_SETTLES_DOWN)
        spawner = await stage.spawn(task)
    if stage.workers:
        drained = await stage.until_drained(spawner.read().count, stage.plan.patience(shape))
        await stage.stop_workers()
    found = Found(
        shape=shape, asked_rate=task.rate if shape.role == "paced" else None, spawner=spawner, workers=stage.workers,
        drained=drained, cost=await stage.cost(before), history=await stage.gauge.history(), cores=cores, waits=waits,
    )  # fmt: skip
    return figures(found)


def figures(found: Found) -> ShapeReport:
    """Compute the figures of a shape."""
    shape, history, cost = found.shape, found.history, found.cost
    spawned = found.spawner.read()
    ran = [worker.read() for worker in found.workers]
    spawner_cpu = 0.0 if shape.order == "spawn first" else spawned.cpu
    cpu = sum(reading.cpu for reading in ran) + spawner_cpu
    jobs = history.finished if found.workers else spawned.count
    per_job = max(jobs, 1)
    seconds, rate = spawned.seconds, spawned.rate
    if found.workers:
        seconds, rate = _pace(shape, history)
    limit = find_limit(Load(
        seconds=seconds, worker=max((reading.share for reading in ran), default=0.0),
        spawner=0.0 if shape.order == "spawn first" else spawned.share,
        clients=cpu / seconds if seconds else 0.0, server=_rate(cost.cpu, seconds), busy=cost.busy,
        cores=found.cores,
        commits=cost.commits, callers=_callers(shape, len(ran)), commit=found.waits.commit,
        round_trip=found.waits.round_trip,
    ))  # fmt: skip
    return ShapeReport(
        name=shape.name, what=shape.what, jobs=jobs, complete=found.drained, seconds=seconds, jobs_per_s=rate,
        asked_jobs_per_s=found.asked_rate,
        spawned_jobs_per_s=spawned.rate if shape.order == "work first" else None,
        call_ms=percentiles(found.spawner.waits()) if shape.role in ("one", "ten") else None,
        pickup_ms=_pickup(found),
        client_cpu_us_per_job=cpu / per_job * 1e6, server_cpu_us_per_job=_rate(cost.cpu, per_job / 1e6),
        wal_bytes_per_job=_rate(cost.wal_bytes, per_job), statements_per_job=_rate(cost.statements, per_job),
        commits_per_s=cost.commits / seconds if seconds else 0.0, dead_rows=cost.dead_rows,
        limit=LimitReport(kind=limit.kind, text=limit.text, advice=limit.advice) if shape.at_full_speed else None,
        problems=find_problems(spawned.count, sum(reading.count for reading in ran), history),
    )  # fmt: skip


def _pace(shape: Shape, history: History) -> tuple[float, float]:
    """Return seconds and jobs per second of what workers did."""
    if shape.order == "work first":
        seconds = history.seconds_since_created
        return seconds, history.finished / seconds if seconds else 0.0
    # Processes begin one after the other: all of them together are what is asked for, if that was the larger part.
    together = history.finished_together * 2 > history.finished and history.seconds_together > 0
    seconds = history.seconds_together if together else history.seconds
    done = history.finished_together if together else history.finished
    return history.seconds, done / seconds if seconds else 0.0


def _callers(shape: Shape, workers: int) -> int:
    """Return how many connections commit at once: of a worker one claims while one settles."""
    return 2 * workers + (0 if shape.order == "spawn first" else shape.callers)


def _pickup(found: Found) -> Percentiles | None:
    if found.shape.role == "knock":
        return percentiles([wait for worker in found.workers for wait in worker.waits()])
    if found.shape.order == "work first" and found.history.waits is not None:
        return _percentiles(found.history.waits, found.history.finished)
    return None


def percentiles(seconds: Sequence[float]) -> Percentiles | None:
    """Return the percentiles of some waits; None of none."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    return _percentiles([ordered[math.ceil(part * len(ordered)) - 1] for part in _PARTS], len(ordered))


def _percentiles(seconds: Sequence[float], count: int) -> Percentiles:
    p50, p90, p99, p999, most = (each * 1e3 for each in seconds)
    return Percentiles(
        p50=p50, p90=p90, p99=p99 if count >= _TOO_FEW_FOR_P99 else None,
        p99_9=p999 if count >= _TOO_FEW_FOR_P999 else None, max=most,
    )  # fmt: skip


def _rate(amount: float | None, per: float) -> float | None:
    return None if amount is None or not per else amount / per
