"""A shape beside the plain run, in turns: the same jobs, with nothing in the way, in a fresh database."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import psycopg

from bench.child import ROOT
from bench.peers.contestants import Contestant
from bench.peers.measure import Ring
from bench.peers.process import MeasureError
from bench.shapes import Figures
from bench.stress.measure import OURS, Run, drain, judge, steady
from bench.stress.tables import Filling, fill, fill_history, vacuum

LEAST = 1_000  # jobs of a run, whatever the scale
FRESH = 90.0
"""Seconds for which a plain run of another queue counts for its next shapes, too."""
STEADY = 3
"""Times the jobs of a drain that a steady state has."""
HELD_WITHIN = 120.0  # seconds
ROOM = 500
"""What a worker could run besides: without room it claims nothing, and so parks nothing."""
BYTES_OF_HISTORY = 800
"""Disk that a finished job takes while it is made: its row and index entries, and as much log."""
SPARE = 3e9  # bytes of disk that stay free


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured. The default takes about a quarter of an hour on two quiet cores."""

    rounds: int = 3
    """Of piecework; the others have one, but for what says otherwise."""
    peer_rounds: int = 1
    scale: float = 1.0
    """Of the jobs, and of what is in their way."""
    limit: float = 60
    """Seconds for one run of piecework."""
    peer_limit: float = 15
    """Seconds for one run of another queue: its rate is that of what had run by then."""
    pace: int = 2_000
    """Jobs per second under a pinned horizon."""
    seconds: float = 120
    """How long that is kept up."""


@dataclass(frozen=True)
class Stage:
    """Where the shapes are played, and how large."""

    ring: Ring
    plan: Plan
    most: int = 100
    """Rounds that a shape gets at most."""
    plains: dict[object, tuple[float, Run]] = field(default_factory=dict[object, tuple[float, Run]])
    """The last plain run of each of the others, and when it was."""

    def jobs(self, who: Contestant) -> int:
        """Jobs of a run."""
        return max(int(who.jobs * self.plan.scale), min(who.jobs, LEAST))

    def scaled(self, count: int) -> int:
        """A number of jobs that are in the way."""
        return max(int(count * self.plan.scale), 1)

    def turns(self, who: Contestant) -> range:
        """The rounds of a contestant."""
        return range(min(self.plan.rounds if who.name == OURS else self.plan.peer_rounds, self.most))

    def limit(self, who: Contestant) -> float:
        """Seconds for one of its runs."""
        return self.plan.limit if who.name == OURS else self.plan.peer_limit

    def plain(self, who: Contestant, count: int, *, all: bool) -> Run:
        """A drain with nothing in the way, timed as the shape's: until all have ended, or until so many have run."""
        known, now = (who.name, who.concurrency, *who.env.items(), count, all), time.monotonic()
        at, run = self.plains.get(known, (float("-inf"), None))
        if run is not None and who.name != OURS and now - at < FRESH:
            return run
        with self.ring.database(who) as dsn:
            fill(who.name, dsn, count)
            vacuum(dsn)
            run = drain(self.ring, who, dsn, "bench", count, self.limit(who), all=all)
        self.plains[known] = time.monotonic(), run
        return run


Once = Callable[[Stage, Contestant, str], AbstractContextManager[None]]
"""Puts something in the way, before the rounds and for all of them."""


def beside_plain(
    stage: Stage, who: Contestant, *, once: Once | None = None, filling: Filling | None = None,
    refill: bool = True, count: int | None = None, setting: Contestant | None = None, live: bool = True,
    plain_setting: Contestant | None = None,
) -> Iterator[Figures]:  # fmt: skip
    """Drain jobs, once plainly and once with what the shape puts in the way, round by round.

    Args:
        filling: what the jobs of the shape are.
        refill: whether the jobs of a round are made before it; else they are there.
        count: of the jobs of a run.
        setting: the contestant as its worker runs in the shape.
        plain_setting: the same of the plain run.
        live: whether what `once` puts there is live jobs, so that some are left at the end of a run.
    """
    count, all = count or stage.jobs(who), once is None or not live
    with stage.ring.database(who, "stress") as dsn, once(stage, who, dsn) if once else nullcontext():
        for turn in stage.turns(who):
            plain = stage.plain(plain_setting or who, count, all=all)
            if refill:
                fill(who.name, dsn, count, filling)
            if refill or turn:
                vacuum(dsn)
            run = drain(stage.ring, setting or who, dsn, "stress", count, stage.limit(who), all=all)
            yield _pair(run, plain)
        if filling and filling.keys:
            judge(dsn)


def steady_beside_plain(
    stage: Stage, who: Contestant, *, autovacuum: bool = True, processes: int = 1
) -> Iterator[Figures]:
    """A producer and workers together, once plainly and once as the shape has it."""
    count = stage.jobs(who) * (STEADY if who.fast else 1)

    def once(processes: int) -> Run:
        with stage.ring.database(who) as dsn:
            return steady(stage.ring, who, dsn, "bench", count, processes, stage.limit(who))

    for _ in stage.turns(who):
        plain = once(1)
        with nullcontext() if autovacuum else stage.ring.server.without_autovacuum():
            yield _pair(once(processes), plain)


def _pair(run: Run, plain: Run) -> Figures:
    return {"factor": run.rate / plain.rate, **run.figures(), **plain.figures("plain_")}


def jobs_in_the_way(count: int, **filling: object) -> Once:
    """Jobs that are there all the time."""

    @contextmanager
    def once(stage: Stage, who: Contestant, dsn: str) -> Generator[None]:
        fill(who.name, dsn, stage.scaled(count), Filling(**filling))  # type: ignore[arg-type]
        vacuum(dsn)
        yield

    return once


def history(count: int, of_peers: int) -> Once:
    """Jobs that ended long ago."""

    @contextmanager
    def once(stage: Stage, who: Contestant, dsn: str) -> Generator[None]:
        kept = stage.scaled(count if who.name == OURS else of_peers)
        need, free = kept * BYTES_OF_HISTORY + SPARE, shutil.disk_usage(ROOT).free
        if free < need:
            raise MeasureError(f"{kept:,} finished jobs want {need / 1e9:.0f} GB of disk, {free / 1e9:.0f} GB are free")
        fill_history(who.name, dsn, kept)
        vacuum(dsn)
        yield

    return once


def held(count: int, *, keys: int | None = None) -> Once:
    """Jobs that another worker runs and that do not end; with concurrency keys, what waits behind them is parked."""

    @contextmanager
    def once(stage: Stage, who: Contestant, dsn: str) -> Generator[None]:
        jobs = stage.scaled(count)
        fill(who.name, dsn, jobs, Filling(types=("hold",), keys=keys))
        vacuum(dsn)
        running = min(keys or jobs, jobs)
        with contextlib.ExitStack() as stack:
            holder = stage.ring.start(who, dsn, "hold", concurrency=running + ROOM)
            stack.callback(holder.kill)
            until = time.monotonic() + HELD_WITHIN
            while (found := _held(dsn)) != (running, jobs - running):
                holder.must_live()
                if time.monotonic() > until:
                    raise MeasureError(
                        f"after {HELD_WITHIN:.0f} s {found[0]} jobs ran and {found[1]} were parked, not {running} and "
                        f"{jobs - running}"
                    )
                time.sleep(0.1)
            vacuum(dsn)
            yield
            holder.must_live()

    return once


def _held(dsn: str) -> tuple[int, int]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        row = conn.execute(
            "SELECT count(*) FILTER (WHERE worker_id IS NOT NULL), count(*) FILTER (WHERE parked) "
            "FROM piecework.jobs WHERE job_type = 'hold'"
        ).fetchone()  # fmt: skip
    assert row is not None
    return row[0], row[1]


def with_env(who: Contestant, concurrency: int | None = None, **env: str) -> Contestant:
    """The contestant with other settings of its worker."""
    return replace(who, concurrency=concurrency or who.concurrency, env={**who.env, **env})
