"""Who takes part, in which setting, and how much each is given to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.child import ROOT
from bench.peers.build import HOME, PINS

DRIVERS = Path(__file__).parent / "drivers"


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A queue in one setting. The counts make one measurement take a few seconds on two cores."""

    name: str
    environment: str | None
    """The environment of pins.toml; without one it runs in the project's own."""
    driver: str
    setting: str
    """For the reader: what differs from its defaults."""
    jobs: int
    """Jobs of a drain, and of the steady state at full speed."""
    concurrency: int
    fast: bool = False
    """Whether it also takes part in the steady state at the higher rate."""
    history: str
    """What it keeps of a job that completed."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])

    def sized(self, jobs: int) -> Contestant:
        """The same with another number of jobs."""
        return replace(self, jobs=jobs)

    def command(self) -> list[str]:
        """How its driver is started."""
        if self.environment is None:
            return [sys.executable, str(DRIVERS / self.driver)]
        home = HOME / self.environment
        if "pip" in PINS[self.environment]:
            return [str(home / "env/bin/python"), str(DRIVERS / self.driver)]
        if "npm" in PINS[self.environment]:
            return [str(home / "node_modules/.bin/node"), str(DRIVERS / self.driver)]
        return [str(home / self.driver)]

    def environ(self) -> dict[str, str]:
        """The environment variables of its processes."""
        own = {"PYTHONPATH": str(ROOT)} if self.environment is None else {}
        modules = {"BENCH_MODULES": str(HOME / "node" / "package.json")}
        return {**os.environ, **own, **modules, **self.env}


CONTESTANTS = (
    Contestant(
        name="piecework", environment=None, driver="piecework_driver.py", jobs=50_000, concurrency=1000, fast=True,
        setting="concurrency 1,000", history="all of it, in a second table",
    ),
    Contestant(
        name="bare loop", environment=None, driver="bare_driver.py", jobs=50_000, concurrency=1000, fast=True,
        setting="batches of 500", history="all of it, in a second table",
    ),
    Contestant(
        name="Graphile Worker", environment="node", driver="graphile_driver.mjs", jobs=40_000,
        concurrency=24, fast=True, history="none",
        setting="its performance test's: 24 jobs, local queue 500, batched completion",
        env={"BENCH_LOCAL_QUEUE": "500"},
    ),
    Contestant(
        name="Graphile Worker, queue 2000", environment="node", driver="graphile_driver.mjs", jobs=40_000,
        concurrency=24, fast=True, setting="the same with local queue 2,000", history="none",
        env={"BENCH_LOCAL_QUEUE": "2000"},
    ),
    Contestant(
        name="pg-boss", environment="node", driver="pgboss_driver.mjs", jobs=40_000, concurrency=1000, fast=True,
        setting="batches of 1,000, 4 workers, LISTEN/NOTIFY, burst", history="all of it, in place",
    ),
    Contestant(
        name="PgQueuer", environment="pgqueuer", driver="pgqueuer_driver.py", jobs=30_000, concurrency=500, fast=True,
        setting="batches of 500, asyncpg pool, its autovacuum settings", history="a log row without the payload",
    ),
    Contestant(
        name="Chancy", environment="chancy", driver="chancy_driver.py", jobs=8_000, concurrency=1000,
        setting="concurrency 1,000, asyncio executor, eager polling, updates every 0.1 s",
        history="all of it, in place",
    ),
    Contestant(
        name="River", environment="river", driver="driver", jobs=20_000, concurrency=1000,
        setting="1,000 workers, fetch cooldown 1 ms, COPY", history="all of it, in place",
    ),
    Contestant(
        name="job (Rust)", environment="job", driver="target/release/driver", jobs=3_000, concurrency=200,
        setting="at most 200 jobs, 50 connections", history="events of each job",
        env={"BENCH_VERSION": "0.19.2"},
    ),
    Contestant(
        name="job (Rust), batched", environment="job", driver="target/release/driver", jobs=10_000, concurrency=500,
        setting="batched type, batches of 500, 50 connections", history="events of each job",
        env={"BENCH_BATCHED": "yes", "BENCH_VERSION": "0.19.2"},
    ),
    Contestant(
        name="Oban", environment="oban", driver="oban_driver.py", jobs=4_000, concurrency=100,
        setting="limit 100", history="all of it, in place",
    ),
    Contestant(
        name="Procrastinate", environment="procrastinate", driver="procrastinate_driver.py", jobs=2_000,
        concurrency=50, setting="concurrency 50", history="all of it, in place, and events",
    ),
    Contestant(
        name="Absurd", environment="absurd", driver="absurd_driver.py", jobs=2_000, concurrency=200,
        setting="concurrency 200, polls every 0.25 s", history="all of it, in place",
    ),
    Contestant(
        name="SAQ", environment="saq", driver="saq_driver.py", jobs=2_000, concurrency=50,
        setting="concurrency 50", history="in place, expires",
    ),
    Contestant(
        name="DBOS", environment="dbos", driver="dbos_driver.py", jobs=2_000, concurrency=1000,
        setting="worker concurrency 1,000, polls every 0.05 s", history="all of it, in place",
    ),
)  # fmt: skip
