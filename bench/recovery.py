"""How long work stands still after a fault, with the default settings: a worker is killed, PostgreSQL crashes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import NotRequired, TypedDict

import psycopg

from bench.peers.measure import Ring
from bench.peers.process import MeasureError
from bench.place import machine
from bench.report import aligned, spread
from bench.server import Server
from bench.shapes import Figures
from bench.stress.contestants import CONTESTED
from bench.stress.measure import OURS
from bench.stress.tables import fill

LIMIT = 120.0  # seconds
LOOK = 0.01
UP, UNDER_WAY = 6.0, 1.0  # seconds that workers have to come up, and to begin with the jobs
FINISHED = b"SELECT count(*) FROM piecework.finished_jobs"
KILLED, CRASHED = "killed", "crashed"
SHOWN = {
    KILLED: "one of two workers is killed with SIGKILL: all its jobs have run again, s",
    CRASHED: "PostgreSQL crashes: from its first write on until a job has ended, s",
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured. The default takes about two minutes."""

    rounds: int = 2
    jobs: int = 10_000
    pause: float = 0.05
    """Seconds that a job takes."""
    concurrency: int = 100


class Result(TypedDict):
    """All that a run found out, as it is kept in the JSON file."""

    machine: dict[str, object]
    plan: dict[str, object]
    figures: dict[str, list[Figures]]
    failures: list[str]
    run: NotRequired[str]


class Recovery:
    """The figures so far."""

    def __init__(self, server: Server, plan: Plan, keep: Callable[[Result], None] = lambda _: None) -> None:
        """`keep` is called with all that is known after each measurement."""
        self.result: Result = {"machine": machine(server), "plan": asdict(plan), "figures": {}, "failures": []}
        self._plan = plan
        self._keep = keep
        ours = next(who for who in CONTESTED if who.name == OURS)
        env = {**ours.env, "BENCH_PAUSE": str(plan.pause)}
        self._who = replace(ours, env=env, concurrency=plan.concurrency)
        self._ring = Ring(server)

    def measure(self) -> Result:
        """Go through all rounds."""
        try:
            self._ring.enter(self._who)
            for turn in range(self._plan.rounds):
                self._add(KILLED, self._killed, turn)
                self._add(CRASHED, self._crashed, turn)
        finally:
            self._ring.close()
        return self.result

    def _add(self, name: str, measure: Callable[[], Figures], turn: int) -> None:
        figures: Figures = {}
        try:
            figures = measure()
        except Exception as error:  # whatever it is, the others go on
            said = f"{name}, round {turn + 1}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            self.result["failures"].append(said)
            print(f"  FAILED: {said}", flush=True)
        else:
            print(f"  {name:10} {figures}", flush=True)
        self.result["figures"].setdefault(name, []).append(figures)
        self._keep(self.result)

    def _killed(self) -> Figures:
        ring, who, count = self._ring, self._who, self._plan.jobs
        with ring.database(who) as dsn, ring.working(who, dsn, 2) as workers:
            time.sleep(UP)
            fill(OURS, dsn, count)
            self._under_way()
            with psycopg.connect(dsn, autocommit=True) as conn:
                workers[0].kill()
                killed = time.monotonic()
                held = _number(conn, b"SELECT count(*) FROM piecework.jobs WHERE worker_id IS NOT NULL")
                ended, _ = ring.wait_for_nothing_left(who, conn, killed + LIMIT)
            _check(dsn, count)
        return {"seconds": ended - killed, "held": float(held)}

    def _crashed(self) -> Figures:
        ring, who, count = self._ring, self._who, self._plan.jobs
        with ring.database(who) as dsn, ring.working(who, dsn, 2):
            time.sleep(UP)
            fill(OURS, dsn, count)
            self._under_way()
            writable = ring.server.crash()
            with psycopg.connect(dsn, autocommit=True) as conn:
                before, until = _number(conn, FINISHED), time.monotonic() + LIMIT
                while _number(conn, FINISHED) == before:
                    if time.monotonic() > until:
                        raise MeasureError(f"no job had ended {LIMIT:.0f} s after PostgreSQL accepted writes")
                    time.sleep(LOOK)
                resumed = time.monotonic()
                ring.wait_for_nothing_left(who, conn, until)
            _check(dsn, count)
        return {"seconds": resumed - writable}

    def _under_way(self) -> None:
        until = time.monotonic() + LIMIT
        while not self._ring.tallies.count():
            if time.monotonic() > until:
                raise MeasureError(f"no job had begun after {LIMIT:.0f} s")
            time.sleep(LOOK)
        time.sleep(UNDER_WAY)


def _check(dsn: str, count: int) -> None:
    """Nothing lost, nothing doubled."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        found = conn.execute(
            b"SELECT count(*), count(DISTINCT id) FROM piecework.finished_jobs WHERE status = 'completed'"
        ).fetchone()
    if found != (count, count):
        rows, different = found or (0, 0)
        raise MeasureError(f"{count} jobs were spawned, the history has {rows} rows of {different} different ones")


def _number(conn: psycopg.Connection, query: bytes) -> int:
    row = conn.execute(query).fetchone()
    assert row is not None
    return int(str(row[0]))


def seconds(result: Result, name: str) -> list[float]:
    """How long it took, round by round."""
    return [value for figures in result["figures"].get(name, ()) if (value := figures.get("seconds")) is not None]


def render(result: Result) -> str:
    """The table."""
    plan = result["plan"]
    lines = [(text, spread(found, ".1f")) for name, text in SHOWN.items() if (found := seconds(result, name))]
    parts = [
        f"{plan['jobs']:,} jobs of {float(str(plan['pause'])) * 1000:.0f} ms, two workers with the default settings "
        f"and concurrency {plan['concurrency']}; afterwards the history has each job once.",
        aligned(("", "medians, with the lowest and the highest"), lines),
    ]
    return "\n\n".join([*parts, *(f"- Failed: {said}" for said in result["failures"])])
