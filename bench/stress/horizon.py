"""Shapes under a pinned MVCC horizon: somebody's old snapshot keeps every dead row where it is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import psycopg

from bench.peers.contestants import Contestant
from bench.shapes import Figures
from bench.stress.measure import OURS, Watch, clock_of, drain, end, rest, tenths, working
from bench.stress.rounds import Stage
from bench.stress.tables import fill, vacuum

LATE_WITHIN = 60.0  # seconds until a late row that does not start is given up
LATE_AT = (0.5, 0.6, 0.7, 0.8, 0.9)
"""When late rows come, as parts of all jobs."""
PEERS_AT_MOST = 10
"""Times its jobs of a drain that another queue has under a pinned horizon."""
AFTER = 30.0  # seconds until the last job of a pace must have run
EVERY = 0.01

LATE = """
INSERT INTO piecework.jobs (id, job_type, config, run_at)
VALUES (uuidv7(), 'noop', '{"number": -1, "text": "late", "sent": null}', now() - interval '2 hours') RETURNING id::text
"""
STARTED = """
SELECT extract(epoch FROM max(started_at - created_at))::float, count(*) FROM piecework.finished_jobs
WHERE id = ANY (%s::uuid[])
"""


@contextmanager
def pinned(dsn: str) -> Generator[None]:
    """A session that is idle in a transaction with a snapshot."""
    with psycopg.connect(dsn, application_name="somebody's report") as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        conn.execute("SELECT count(*) FROM pg_class")
        yield


class Late:
    """Jobs that come late: due before all others, so that they stand where the worker has been already."""

    def __init__(self, dsn: str, at: list[int]) -> None:
        self._dsn = dsn
        self._at = at
        self._ids: list[object] = []

    def look(self, count: int) -> None:
        """Make those whose time has come."""
        while self._at and count >= self._at[0]:
            self._at.pop(0)
            with psycopg.connect(self._dsn, autocommit=True) as conn:
                row = conn.execute(LATE.encode()).fetchone()
            assert row is not None
            self._ids.append(row[0])

    def worst(self) -> float | None:
        """Seconds until the last one started, or for which one has waited in vain."""
        if not self._ids:
            return None
        until = time.monotonic() + LATE_WITHIN
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            while True:
                row = conn.execute(STARTED.encode(), [self._ids]).fetchone()
                assert row is not None
                if row[1] == len(self._ids):
                    return float(row[0])
                if time.monotonic() > until:
                    return LATE_WITHIN
                time.sleep(0.1)


def drain_pinned(stage: Stage, who: Contestant, count: int) -> Iterator[Figures]:
    """Drain a deep backlog; how fast the last tenth of it went beside the first."""
    ours = who.name == OURS
    jobs = stage.scaled(count) if ours else min(stage.scaled(count), stage.jobs(who) * PEERS_AT_MOST)
    with stage.ring.database(who, "stress") as dsn:
        fill(who.name, dsn, jobs)
        vacuum(dsn)
        late = Late(dsn, [int(jobs * part) for part in LATE_AT] if ours else [])
        late_jobs = len(LATE_AT) if ours else 0
        with pinned(dsn):
            limit = stage.limit(who) * 3
            run = drain(stage.ring, who, dsn, "stress", jobs + late_jobs, limit, late.look, all=True)
        yield {**run.figures(), **tenths(run), "late_s": late.worst()}


def pace_pinned(stage: Stage, who: Contestant) -> Iterator[Figures]:
    """So many jobs per second for minutes: whether the worker keeps up, and how long a job waits for its start."""
    plan = stage.plan
    count = int(plan.pace * plan.seconds)
    with stage.ring.database(who, "stress") as dsn:
        began, late = clock_of(dsn), Late(dsn, [int(count * 0.8)] if who.name == OURS else [])
        with working(stage.ring, who, dsn) as workers, pinned(dsn):
            stage.ring.warm(who, dsn, workers)
            rest(workers)
            watch, waits = Watch(stage.ring, "stress", workers), Waits(stage)
            producer = stage.ring.start(who, dsn, "steady", n=count, rate=plan.pace)

            def look(ran: int) -> None:
                waits.read()
                late.look(ran)

            try:
                run = watch.follow(count, plan.seconds + AFTER, look, every=EVERY, running_in=0)
            finally:
                producer.kill()
            waits.read()
            worst = late.worst()
            end(stage.ring, who, dsn, workers, began)
        yield {**run.figures(), **tenths(run), **waits.figures(), "late_s": worst, "kept_up": run.rate / plan.pace}


class Waits:
    """Seconds from the spawn to the start of each job: the tally holds the newest ones only."""

    def __init__(self, stage: Stage) -> None:
        self._tallies = stage.ring.tallies
        self._known = self._tallies.waits(0)[0]
        self._all: list[float] = []

    def read(self) -> None:
        """Take over what has come."""
        self._known, fresh = self._tallies.waits(self._known)
        self._all += fresh

    def figures(self) -> Figures:
        """Of the first and of the last tenth."""
        size = max(len(self._all) // 10, 2)
        parts = {"first": self._all[:size], "last": self._all[-size:]}
        found: Figures = {}
        for name, part in parts.items():
            cuts = statistics.quantiles(part, n=100, method="inclusive")
            found[f"{name}_p50_ms"], found[f"{name}_p99_ms"] = cuts[49] * 1e3, cuts[98] * 1e3
        return found
