"""How a stress shape is timed: a worker meets a filled table, and it is looked at how the executions come along."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import psycopg

from bench.peers.contestants import Contestant
from bench.peers.measure import Ring
from bench.peers.process import MeasureError, Process
from bench.server import Reading
from bench.shapes import Figures
from piecework.testing.history import Terms, check

OURS = "piecework"
LOOK, SAMPLE, READ = 0.002, 0.02, 0.5  # seconds
START = 30.0  # seconds until the first execution
END = 60.0  # seconds for a worker to end in good order
RUNNING_IN = 0.25
"""Part of a run before it counts: the first claim has happened, connections and statements are there."""
ONE_BURST = 0.9
"""Where so large a part has run when it is first looked, all of the run counts."""
NEAR = 0.05
"""Part of a run that lies at least between two readings of which a tenth's cost is made."""
CALM, CALM_WITHIN = 0.03, 20.0
"""A worker is at rest when it used at most so many seconds of CPU in half a second."""


class Mark(NamedTuple):
    """How things stand at a moment of a run."""

    clock: float
    count: int
    """Executions of the run."""
    counters: Reading
    worker_cpu: float


class Run(NamedTuple):
    """What one run of a shape showed."""

    first: Mark
    last: Mark
    samples: Sequence[tuple[float, int]]
    """Clock and executions since the run began."""
    readings: Sequence[tuple[int, float]]
    """Executions, and seconds of CPU of the server."""
    cut: bool
    """Whether time was up before all had run."""

    @property
    def rate(self) -> float:
        """Jobs per second."""
        return (self.last.count - self.first.count) / (self.last.clock - self.first.clock)

    def figures(self, prefix: str = "") -> Figures:
        """The rate and what a job cost."""
        count = self.last.count - self.first.count
        cost = self.last.counters.since(self.first.counters)
        return {
            f"{prefix}jobs_per_s": self.rate,
            f"{prefix}server_cpu_us": cost.cpu / count * 1e6,
            f"{prefix}worker_cpu_us": (self.last.worker_cpu - self.first.worker_cpu) / count * 1e6,
            f"{prefix}wal_bytes": cost.wal / count,
            f"{prefix}statements": cost.statements / count,
            f"{prefix}cut": float(self.cut),
        }


class Watch:
    """Follows the executions of a run until there are so many, or time is up."""

    def __init__(self, ring: Ring, database: str, workers: Sequence[Process]) -> None:
        self._ring = ring
        self._database = database
        self._workers = workers
        self._ran = ring.tallies.count()
        self._read_at = float("-inf")
        self._samples: list[tuple[float, int]] = []
        self._readings: list[tuple[int, float]] = []
        self._began = self._mark(0)
        """The last look at which none had run, or the first at which some had."""
        self._run_in: Mark | None = None

    def follow(
        self, count: int, limit: float, look: Callable[[int], None] | None = None, *, every: float = LOOK,
        running_in: float = RUNNING_IN, durable: Callable[[float], None] | None = None,
    ) -> Run:  # fmt: skip
        """Wait for so many executions, or until time is up.

        Args:
            look: is told how many there are.
            durable: waits until the database, too, says that they have ended, at most until this clock.
        """
        start = time.monotonic()
        while (done := self._sample()) < count:
            now = time.monotonic()
            if now - start > limit:
                break
            if not done and now - start > START:
                raise MeasureError(f"no job had run after {START:.0f} s")
            if not done:
                self._began = self._began._replace(clock=now)
            elif not self._began.count:
                self._began = self._mark(done)
            if self._run_in is None and done >= count * running_in:
                self._run_in = self._mark(done)
            if look is not None:
                look(done)
            for worker in self._workers:
                worker.must_live()
            time.sleep(every)
        if durable is not None and done >= count:
            durable(start + limit)
        last = self._mark(done)
        first = self._run_in
        if first is None or first.count > done * ONE_BURST:
            first = self._began._replace(count=0)
        if not done:
            raise MeasureError(f"none of {count} jobs had run when time was up")
        self._readings.append((last.count, last.counters.cpu))
        return Run(first, last, self._samples, self._readings, done < count)

    def _sample(self) -> int:
        now, done = time.monotonic(), self._ring.tallies.count() - self._ran
        if not self._samples or now - self._samples[-1][0] >= SAMPLE:
            self._samples.append((now, done))
        if now - self._read_at >= READ:
            self._read_at = now
            self._readings.append((done, self._ring.server.cpu()))
        return done

    def _mark(self, done: int) -> Mark:
        clock = time.monotonic()
        self._samples.append((clock, done))
        cpu = sum(worker.cpu() for worker in self._workers)
        return Mark(clock, done, self._ring.server.read(self._database), cpu)


@contextmanager
def working(ring: Ring, who: Contestant, dsn: str, processes: int = 1) -> Generator[list[Process]]:
    """Run workers with a tally at nought; they are killed in the end, if they have not ended."""
    ring.tallies.clear()
    with ring.working(who, dsn, processes) as workers:
        yield workers


def drain(
    ring: Ring, who: Contestant, dsn: str, database: str, count: int, limit: float,
    look: Callable[[int], None] | None = None, *, all: bool = False,
) -> Run:  # fmt: skip
    """Let a worker run so many of the jobs that are there. If it is all of them, they must have ended durably.

    A checkpoint comes first: so every run writes whole pages to the log, whether its table is new or has been there.
    """
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("CHECKPOINT")
    began = clock_of(dsn)

    def durable(until: float) -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            ring.wait_for_nothing_left(who, conn, until)

    with working(ring, who, dsn) as workers:
        run = Watch(ring, database, workers).follow(count, limit, look, durable=durable if all else None)
        end(ring, who, dsn, workers, began)
    return run


def steady(ring: Ring, who: Contestant, dsn: str, database: str, count: int, processes: int, limit: float) -> Run:
    """A producer at full speed and workers together, from an empty table that was never analyzed."""
    began = clock_of(dsn)
    with working(ring, who, dsn, processes) as workers, contextlib.ExitStack() as stack:
        ring.warm(who, dsn, workers)
        rest(workers)
        watch = Watch(ring, database, workers)
        producer = ring.start(who, dsn, "steady", n=count, rate=0)
        stack.callback(producer.kill)
        run = watch.follow(count, limit)
        producer.kill()
        end(ring, who, dsn, workers, began)
    return run


def rest(workers: Sequence[Process]) -> None:
    """Wait until the workers have come up and have nothing to do."""
    until = time.monotonic() + CALM_WITHIN
    used = [worker.cpu() for worker in workers]
    while time.monotonic() < until:
        time.sleep(READ)
        before, used = used, [worker.cpu() for worker in workers]
        if max(now - then for now, then in zip(used, before, strict=True)) <= CALM:
            return


def clock_of(dsn: str) -> object:
    """The clock of the database."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    return row[0]


def end(ring: Ring, who: Contestant, dsn: str, workers: Sequence[Process], began: object) -> None:
    """End workers of ours in good order, and see that the history has each execution once. The others are believed."""
    if who.name != OURS:
        return
    for worker in workers:
        worker.end(END)
    ran = ring.tallies.count()
    with psycopg.connect(dsn, autocommit=True) as conn:
        found = conn.execute(
            "SELECT count(*), count(DISTINCT id) FROM piecework.finished_jobs "
            "WHERE finished_at >= %s AND status = 'completed' AND job_type NOT IN ('capped', 'hold')", [began],
        ).fetchone()  # fmt: skip
        both = conn.execute("SELECT count(*) FROM piecework.jobs JOIN piecework.finished_jobs USING (id)").fetchone()
    if found != (ran, ran) or both != (0,):
        rows, different = found or (0, 0)
        raise MeasureError(
            f"{ran} jobs ran, the history has {rows} rows of {different} different ones, and {(both or (0,))[0]} "
            "jobs of the history are pending still"
        )


def judge(dsn: str, *, slack: float = 0.1) -> None:
    """See that no rule is broken in the whole history of a database of ours, as far as its rows tell.

    Args:
        slack: seconds between what a transaction wrote and its commit, and between the settle that was sent and the
            server's work on it: by that moment the rows have the begins of runs.
    """
    report = asyncio.run(check(dsn, terms=Terms(slack=slack)))
    if report.violations:
        raise MeasureError(f"the history breaks {report.counts}: {report.violations[0]}")


def tenths(run: Run) -> Figures:
    """The last tenth of a run beside the first: their rates, and what a job cost the server in them."""
    count = run.last.count
    marks = [(_when(run, count * part), count * part) for part in (0.0, 0.1, 0.9, 1.0)]
    rates = [
        (then[1] - now[1]) / (then[0] - now[0]) for now, then in ((marks[0], marks[1]), (marks[2], marks[3]))
    ]  # fmt: skip
    return {
        "factor": rates[1] / rates[0],
        "jobs_per_s": rates[1], "plain_jobs_per_s": rates[0],
        "server_cpu_us": _cost(run, count * 0.9, count), "plain_server_cpu_us": _cost(run, 0, count * 0.1),
    }  # fmt: skip


def _when(run: Run, count: float) -> float:
    """The clock when so many had run, between two samples in proportion; for none, the last sample before the first."""
    before = run.samples[0]
    for sample in run.samples:
        if sample[1] > 0 and sample[1] >= count:
            grown = sample[1] - before[1]
            part = (count - before[1]) / grown if grown else 1.0
            return before[0] + (sample[0] - before[0]) * part
        before = sample
    return run.samples[-1][0]


def _cost(run: Run, first: float, last: float) -> float | None:
    """Microseconds of the server's CPU per job between two counts, from the readings that lie nearest."""
    one, other = (min(run.readings, key=lambda reading: abs(reading[0] - count)) for count in (first, last))
    jobs = other[0] - one[0]
    return (other[1] - one[1]) / jobs * 1e6 if jobs > run.last.count * NEAR else None
