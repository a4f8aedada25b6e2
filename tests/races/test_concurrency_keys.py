"""Many jobs over many concurrency keys, in processes that are killed: judged by what the jobs wrote themselves."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
from engine.helpers import WorkerProcess, count, query, until
from engine.ledger import Ledger
from races.keys_app import make

from piecework import JobFunction, Jobs

APP = Path(__file__).with_name("keys_app.py")
ACCOUNTS, BUSY_ACCOUNTS = 500, 40
LEASE = 2.0

Start = Callable[..., WorkerProcess]


class Fleet:
    """Worker processes, and the notes of their ends in the ledger."""

    def __init__(self, ledger: Ledger, start: Callable[[], WorkerProcess], size: int) -> None:
        self._ledger = ledger
        self._start = start
        self.workers = [start() for _ in range(size)]
        self.killed = 0

    def kill_one(self) -> None:
        worker = random.choice(self.workers)
        self.workers.remove(worker)
        worker.kill()
        self._ledger.note(f"killed {worker.pid}")
        self.killed += 1
        self.workers.append(self._start())


@pytest.fixture
def start(dsn: str, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Start]:
    started: list[WorkerProcess] = []

    def start(**options: object) -> WorkerProcess:
        log = tmp_path / f"worker-{len(started)}.log"
        started.append(
            WorkerProcess(dsn, ledger.path, log, app=APP, lease=LEASE, concurrency=50, grace=0.3, **options)
        )
        return started[-1]

    yield start  # type: ignore[misc]
    for worker in started:
        worker.kill()
    print(*(worker.log[-1500:] for worker in started), sep="\n---\n")


async def spawn(
    jobs: Jobs, one: JobFunction, three: JobFunction, total: int, size: int = ACCOUNTS
) -> dict[str, tuple[int, int]]:
    """Spawn, the accounts in turns; returns key and limit of each job, in the order in which they were spawned."""
    spawned: dict[str, tuple[int, int]] = {}
    accounts = list(range(size))
    while len(spawned) < total:
        random.shuffle(accounts)
        specs = [(three if n % 5 == 0 else one).spec(n) for n in accounts[: total - len(spawned)]]
        for handle, n in zip(await jobs.spawn_all(specs), accounts, strict=False):
            spawned[str(handle.id)] = n, 3 if n % 5 == 0 else 1
    return spawned


def breaches(ledger: Ledger, spawned: dict[str, tuple[int, int]]) -> list[str]:
    """Where more jobs of a key ran at once than its limit; runs of a killed process ended with it."""
    running: defaultdict[int, dict[str, str]] = defaultdict(dict)
    found: list[str] = []
    for line in ledger.path.read_text().splitlines():
        if line.startswith("note: killed "):
            pid = line.split()[-1]
            for held in running.values():
                for job in [job for job, owner in held.items() if owner == pid]:
                    del held[job]
        elif not line.startswith("note: "):
            job, claim_no, pid, what = line.split()
            key, limit = spawned[job]
            if what == "begins":
                running[key][job] = pid
                if len(running[key]) > limit:
                    found.append(f"key {key}, limit {limit}: {running[key]} with claim {claim_no} of {job}")
            else:
                running[key].pop(job, None)
    return found


def inversions(dsn: str, ledger: Ledger, spawned: dict[str, tuple[int, int]]) -> list[str]:
    """Where the first run of a job began before that of an older sibling. What was lost with its worker, or handed back
    by it, has been due anew: those are left out."""
    handed_back = {str(id) for [id] in query(
        dsn, "SELECT DISTINCT job_id FROM piecework.attempts WHERE move IN ('rescue', 'release')")}  # fmt: skip
    order = {job: place for place, job in enumerate(spawned)}
    latest: dict[int, int] = {}
    seen: set[str] = set()
    found: list[str] = []
    for run in ledger.runs():
        if run.job in seen or run.job in handed_back:
            continue
        seen.add(run.job)
        key, limit = spawned[run.job]
        if limit == 1:  # with more than one place, who begins first is up to the event loop
            if order[run.job] < latest.get(key, -1):
                found.append(f"key {key}: {run.job}")
            latest[key] = max(latest.get(key, -1), order[run.job])
    return found


async def judged(
    dsn: str, ledger: Ledger, start: Start, total: int, kills: int, processes: int, *, quick: bool = False
) -> None:
    seed = random.randrange(10**6)
    random.seed(seed)
    began = time.monotonic()
    jobs, one, three = make(dsn, ledger)
    async with jobs:
        fleet = Fleet(ledger, partial(start, quick=quick), processes)
        spawned = await spawn(jobs, one, three, total, BUSY_ACCOUNTS if quick else ACCOUNTS)
        for kill in range(kills):
            goal = total * (kill + 1) // (kills + 2)
            await until(lambda goal=goal: count(dsn, "finished_jobs") >= goal, within=400)
            fleet.kill_one()
        await until(lambda: count(dsn, "jobs") == 0, within=400)
    # Its sweep follows with the next beat.
    await until(lambda: count(dsn, "concurrency_keys") == 0, within=60)
    ends = query(dsn, "SELECT status, count(*) FROM piecework.finished_jobs GROUP BY 1")
    seconds = time.monotonic() - began
    print(f"seed {seed}: {total} jobs, {len(ledger.runs())} runs, {fleet.killed} kills, {seconds:.0f} s, ends {ends}")
    assert breaches(ledger, spawned) == []
    assert inversions(dsn, ledger, spawned) == []
    assert ledger.undisturbed_overlaps() == []
    assert {str(id) for [id] in query(dsn, "SELECT id FROM piecework.finished_jobs")} == set(spawned)
    assert count(dsn, "finished_jobs") == len(spawned)
    assert ends == [("completed", total)]


@pytest.mark.timeout(500)
async def test_twenty_thousand_jobs_over_five_hundred_keys_in_four_processes(
    dsn: str, ledger: Ledger, start: Start
) -> None:
    await judged(dsn, ledger, start, total=20_000, kills=6, processes=4)


@pytest.mark.timeout(500)
async def test_chains_of_short_jobs_in_four_processes(dsn: str, ledger: Ledger, start: Start) -> None:
    await judged(dsn, ledger, start, total=20_000, kills=6, processes=4, quick=True)
    together = query(
        dsn, "SELECT max(count) FROM (SELECT count(*) FROM piecework.attempts a JOIN piecework.finished_jobs f "
        "ON f.id = a.job_id WHERE a.move = 'rescue' AND f.concurrency_limit IS NULL "
        "GROUP BY a.ended_at, f.concurrency_key) AS lost")  # fmt: skip
    assert int(str(together[0][0])) > 1, "a worker was killed in the middle of a chain"


async def test_the_judge_finds_a_breach_and_an_inversion(dsn: str, ledger: Ledger) -> None:
    jobs, one, three = make(dsn, ledger)
    async with jobs:
        spawned = await spawn(jobs, one, three, ACCOUNTS * 2)
    [first, second] = [job for job, (key, _) in spawned.items() if key == 7]
    ledger.path.write_text(f"{second} 1 10 begins\n{first} 1 11 begins\n{first} 1 11 ends\n{second} 1 10 ends\n")
    assert len(breaches(ledger, spawned)) == 1
    assert inversions(dsn, ledger, spawned) == [f"key 7: {first}"]
    ledger.path.write_text(f"{first} 1 10 begins\nnote: killed 10\n{second} 1 11 begins\n{second} 1 11 ends\n")
    assert breaches(ledger, spawned) == inversions(dsn, ledger, spawned) == []
