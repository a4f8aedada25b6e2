"""Workers and spawners in processes of their own on one DSN, what becomes of them, and the verdict on the jobs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from engine.helpers import query

from failover.cluster import Switch
from failover.figures import Figures
from failover.probe import Probe
from piecework.cli.chaos import ledger, variables, work
from piecework.cli.chaos.verdict import DOUBLED, RESUMED_WITHIN
from piecework.cli.database import opened
from piecework.testing.history import Cut, Entry, Fault, Ledger, Report, Terms, check
from piecework.testing.history.records import runs_of
from piecework.work.database import DSN_VARIABLE

SCHEMA = work.SCHEMA
WORKERS, SPAWNERS, RATE = 3, 2, 40
LONGEST = 1.0
"""Jobs run for twice as long at the most."""
BUSY = 200
"""Runs that have begun before something is done, and after it."""
DRAINS_WITHIN = 120.0
LOOK = 0.25
PROMISED = 30.0
OWN_FAILURES = ("bad luck", "unlucky number")
"""By which jobs of the load fail on purpose."""


class Load:
    """The processes, and what is known of them. Made by `under_load`."""

    def __init__(self, dsn: str, folder: Path, lease: float) -> None:
        self._folder = folder
        self.ledger = folder / "runs"
        self._environment = os.environ | {
            DSN_VARIABLE: dsn, variables.SCHEMA: SCHEMA, variables.LEDGER: str(self.ledger),
        }  # fmt: skip
        program = ["piecework", "worker", "piecework.cli.chaos.work:jobs", "--concurrency", "30", "--threads", "10"]
        self.workers = [self._start(f"worker-{n}", *program, "--lease", str(lease)) for n in range(WORKERS)]
        spawner = ["piecework.cli.chaos.spawner", str(RATE)]
        self.spawners = [
            self._start(f"spawner-{n}", *spawner, f"failover {n}", str(LONGEST)) for n in range(SPAWNERS)
        ]

    def _start(self, name: str, *program: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"{name}.log").open("wb") as log:
            command = [sys.executable, "-P", "-m", *program]
            return subprocess.Popen(command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def book(self, offset: float = 0.0) -> ledger.Book:
        return ledger.read(self.ledger, offset)

    def logs(self, of: str) -> str:
        return "\n".join(path.read_text() for path in sorted(self._folder.glob(f"{of}-*.log")))

    def all_live(self) -> bool:
        return all(process.poll() is None for process in [*self.workers, *self.spawners])

    def kill(self) -> None:
        for process in [*self.workers, *self.spawners]:
            process.kill()
            process.wait()

    async def busy(self, since: float = float("-inf")) -> None:
        """Wait until many runs have begun since, in all workers."""
        await eventually(lambda: self._is_busy(since))

    def _is_busy(self, since: float) -> bool:
        assert self.all_live(), f"a process has ended:\n{self.logs('worker')[-3000:]}"
        begun = begins(self.book(), since)
        return len(begun) >= BUSY and len({process for _, process in begun}) == WORKERS

    async def end(self, dsn: str) -> None:
        """Have the spawners end, all jobs end, and then the workers: each in order."""
        for process in self.spawners:
            process.send_signal(signal.SIGTERM)
        codes = [await asyncio.to_thread(process.wait, DRAINS_WITHIN) for process in self.spawners]
        assert codes == [0] * SPAWNERS
        await eventually(lambda: query(dsn, f"SELECT FROM {SCHEMA}.jobs LIMIT 1") == [])
        assert all(process.poll() is None for process in self.workers)
        for process in self.workers:
            process.send_signal(signal.SIGTERM)
        codes = [await asyncio.to_thread(process.wait, DRAINS_WITHIN) for process in self.workers]
        assert codes == [0] * WORKERS


async def eventually(what: Callable[[], bool]) -> None:
    """Wait for a condition, and leave the machine to what is measured meanwhile."""
    deadline = time.monotonic() + DRAINS_WITHIN
    while not what():
        assert time.monotonic() < deadline, f"not within {DRAINS_WITHIN} s: {what}"
        await asyncio.sleep(LOOK)


def begins(book: ledger.Book, since: float) -> list[tuple[float, str]]:
    """When and where runs began of jobs whose spawn was answered since: jobs that were claimed before say nothing."""
    return sorted(
        (entry.at, entry.process)
        for job, entries in book.entries.items()
        if book.accepted.get(job, float("-inf")) >= since
        for entry in entries
        if entry.event == "began"
    )


class Trial:
    """A load, through one or more changes of primaries, and what came of it."""

    def __init__(self, load: Load, probe: Probe, ways: Sequence[str]) -> None:
        self.load = load
        self._probe = probe
        self._ways = ways
        self._switches: list[Switch] = []
        self._faults: list[Fault] = []
        self._measured: list[tuple[float, float, float]] = []
        self._ids = self._worker_ids(0)
        self.terms = Terms()
        self._entries: dict[str, list[Entry]] = {}

    def spawn_naps(self, number: int, seconds: float) -> None:
        """Spawn jobs that run for so long, from SQL."""
        job = {"job_type": work.nap.job_type, "config": {"seconds": seconds}}
        query(self._ways[0], f"SELECT FROM {SCHEMA}.spawn(%s)", json.dumps([job] * number))

    async def napping(self, number: int, seconds: float) -> None:
        """Wait until so many of those are in the hands of workers."""
        held = f"jobs WHERE (config->>'seconds')::float8 = {seconds} AND worker_id IS NOT NULL"
        await eventually(lambda: count_of(self._ways[0], held) >= number)

    def _worker_ids(self, server: int) -> set[object]:
        return {id for [id] in query(self._ways[server], f"SELECT id FROM {SCHEMA}.workers")}

    async def through(self, switch: Switch) -> None:
        """See that work goes on after a change of primaries, with the same workers, and how soon."""
        accepts = await self._probe.first_write(switch.new, switch.began)
        await self.load.busy(accepts)
        begun = begins(self.load.book(), accepts)
        first = {process: at for at, process in reversed(begun)}
        self._switches.append(switch)
        self._faults.append(Fault("the primary is lost", switch.began, accepts))
        self._measured.append((
            accepts - self._probe.last_write(switch.old), begun[0][0] - accepts, max(first.values()) - accepts,
        ))  # fmt: skip
        assert max(first.values()) - accepts <= RESUMED_WITHIN, self._measured
        assert self.load.all_live()
        assert self._worker_ids(switch.new) == self._ids, "a worker was given up for dead"

    async def verdict(self, *cases: str) -> tuple[Report, list[Figures]]:
        """Let all jobs end and judge them; the figures are of each change of primaries, under these names."""
        last = self._ways[self._switches[-1].new]
        await self.load.end(last)
        self.terms, self._entries = self._known(last)
        report = await self._judged(self.terms)
        self._no_attempt_is_spent_but_by_jobs_whose_transaction_broke(last)
        figures = [self._figures(case, at, report, last) for at, case in enumerate(cases)]
        for each in figures:
            each.enter()
        return report, figures

    async def _judged(self, terms: Terms) -> Report:
        return await check(self._ways[self._switches[-1].new], schema=SCHEMA, terms=terms, entries=self._entries)

    async def judged_without_mercy(self) -> Report:
        """As if nothing might be forgotten."""
        return await self._judged(replace(self.terms, forgotten=()))

    def cut_short(self, after: float) -> int:
        """How many runs went on for so long, and did not return."""
        runs = [run for entries in self._entries.values() for run in runs_of(entries)]
        return sum(run.ended is not None and not run.well and run.ended - run.began > after for run in runs)

    def _known(self, dsn: str) -> tuple[Terms, dict[str, list[Entry]]]:
        [[now]] = query(dsn, "SELECT date_part('epoch', clock_timestamp())")
        offset = float(str(now)) - time.monotonic()
        book = self.load.book(offset)
        cuts: list[Cut] = []  # known: nothing has befallen any process
        forgotten = [(s.forgotten[0] + offset, s.forgotten[1] + offset) for s in self._switches if s.forgotten]
        faults = [Fault(fault.name, fault.began + offset, fault.over + offset) for fault in self._faults]
        terms = Terms(
            accepted=book.accepted, runs_of=work.RUNS, effects_of=work.EFFECTS, cuts=cuts, faults=faults,
            promised=PROMISED, forgotten=forgotten, n_attempts=work.N_ATTEMPTS, max_crashes=0, slack=1.0,
        )  # fmt: skip
        return terms, book.entries

    def _no_attempt_is_spent_but_by_jobs_whose_transaction_broke(self, dsn: str) -> None:
        assert count_of(dsn, "attempts WHERE move = 'rescue'") == 0
        spent = self._spent(dsn)
        assert set(spent) <= work.EFFECTS, spent

    def _spent(self, dsn: str) -> Counter[str]:
        """Attempts that failed for reasons that are not the job's own, by job type."""
        rows = query(
            dsn,
            f"SELECT f.job_type, count(*) FROM {SCHEMA}.attempts a JOIN {SCHEMA}.finished_jobs f ON f.id = a.job_id "
            "WHERE a.move IN ('retry', 'fail') AND coalesce(a.error->>'message', '') <> ALL (%s) GROUP BY 1",
            list(OWN_FAILURES),
        )
        return Counter({str(job_type): int(str(number)) for job_type, number in rows})

    def _figures(self, case: str, at: int, report: Report, dsn: str) -> Figures:
        [[version]] = query(dsn, "SHOW server_version")
        without, first, all_workers = self._measured[at]
        last = at == len(self._switches) - 1
        # What is counted in the end is told with the last change.
        return Figures(
            case=case, server=str(version).split()[0], without_writes=without, first_job=first, all_workers=all_workers,
            lost=(len(report.forgotten) + report.counts["lost"] + report.counts["not ended"]) if last else None,
            repeated=len(report.repeated) if last else None,
            doubled=sum(report.counts[rule] for rule in DOUBLED) if last else None,
            refused=self.load.logs("worker").count("changed nothing") if last else None,
            spent=self._spent(dsn).total() if last else None,
        )  # fmt: skip


def count_of(dsn: str, what: str) -> int:
    return int(str(query(dsn, f"SELECT count(*) FROM {SCHEMA}.{what}")[0][0]))


@asynccontextmanager
async def under_load(
    dsn: str, ways: Sequence[str], folder: Path, lease: float = 18.0
) -> AsyncIterator[Trial]:
    """Start all on a DSN, and wait until all are busy. `ways` lead to each server alone, the primary first."""
    async with opened(ways[0], SCHEMA, migrate=True):
        pass
    await Ledger(SCHEMA).create(ways[0])
    load = Load(dsn, folder, lease)
    try:
        with Probe(ways, ways[0]) as probe:
            await load.busy()
            yield Trial(load, probe, ways)
    finally:
        load.kill()
        print(f"the workers said:\n{load.logs('worker')[-4000:]}\nthe spawners:\n{load.logs('spawner')[-1500:]}")
