"""Both stores, driven by hypothesis: whatever is done, in whatever order, they answer alike and are left alike."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import msgspec
from conformance.sides import BEGIN, EPOCH, MemorySide, PostgresSide
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from piecework.model.completion import Fail, Reschedule
from piecework.model.job import ClaimedJob, NewJob
from piecework.model.lanes import Lane
from piecework.model.retry import RetrySettings
from piecework.model.settlement import (
    Settlement,
    cancelled,
    completed,
    failed,
    failed_by_reason,
    released,
    rescheduled,
)
from piecework.store import run_writes
from piecework.store.claiming import NO_CHAINS, Chains
from piecework.testing.history import Terms, check

STARTED = 998.0
NO_PAUSE = RetrySettings(n_attempts=3, min_backoff=timedelta(0), max_backoff=timedelta(0))
CHAINS = (NO_CHAINS, Chains({"a": 3}, 2), Chains({"a": 4, "b": 2}, 10))
LANES = [Lane(queue, name, priority) for queue in ("default", "q") for name in ("a", "b") for priority in (0, 1)]

lanes = st.lists(st.sampled_from(LANES), min_size=1, max_size=8, unique=True)
counts = st.integers(1, 3)
places = st.integers(0, 7)
"""Which one of those there are, counted round."""
several = st.lists(places, min_size=1, max_size=3)
new_jobs = st.fixed_dictionaries(
    {"job_type": st.sampled_from("ab")},
    optional={
        "queue": st.just("q"), "priority": st.just(1), "key": st.sampled_from(("u", "v")),
        "concurrency_key": st.sampled_from(("k", "l")), "concurrency_limit": st.sampled_from((1, 2)),
        "due": st.integers(-3, 20), "older": st.booleans(),
    },
)  # fmt: skip


def _reason(job: ClaimedJob) -> Settlement:
    return failed_by_reason(job, STARTED, Fail("no"))


ENDS = {
    "completed": lambda job: completed(job, STARTED, None),
    "with result": lambda job: completed(job, STARTED, msgspec.Raw(b'{"r":[1]}')),
    "retried": lambda job: failed(job, NO_PAUSE, (), STARTED, timedelta(seconds=2), ValueError("no"), 0.5),
    "unread": lambda job: failed(job, NO_PAUSE, (), None, timedelta(0), ValueError("no"), 0.5),
    "failed": _reason,
    "again": lambda job: rescheduled(job, STARTED, Reschedule.now()),
    "later": lambda job: rescheduled(job, STARTED, Reschedule.after(timedelta(seconds=5))),
    "at": lambda job: rescheduled(job, STARTED, Reschedule.at(BEGIN + timedelta(seconds=9))),
    "cancelled": lambda job: cancelled(job, STARTED),
    "cancelled unrun": lambda job: cancelled(job, None),
    "released": lambda job: released(job),
    "released for long": lambda job: released(job, timedelta(seconds=3)),
}


class BothStores(RuleBasedStateMachine):
    """Jobs, workers and claims are named by their places among those there are, so that a failure shrinks."""

    def __init__(self, runner: asyncio.Runner, postgres: PostgresSide) -> None:
        super().__init__()
        postgres.scene.clear()
        self.run = runner.run
        self.memory = MemorySide()
        self.postgres = postgres
        self.run(self.memory.store.open(migrate=False))
        self.jobs: list[str] = []
        self.workers: dict[str, int] = {}
        self.lost: set[str] = set()
        self.claims: list[tuple[str, ClaimedJob]] = []
        self.retried = False
        for side in (self.memory, postgres):
            self.run(side.begin())
            side.notices()

    def ask(self, verb: str, *args: object) -> object:
        """Ask both; what they answer, and tell those who listen, is the same."""
        ours = self.run(self.memory.attempt(verb, *args))
        theirs = self.run(self.postgres.attempt(verb, *args))
        assert ours == theirs, f"{verb}{args}\nin memory: {ours}\nPostgreSQL: {theirs}"
        assert self.memory.notices() == self.postgres.notices(), f"{verb}{args}"
        return theirs

    @invariant()
    def both_are_left_alike(self) -> None:
        kept = self.memory.state()
        for table, rows in self.postgres.state().items():
            assert kept[table] == rows, f"{table} in memory: {kept[table]}\nPostgreSQL: {rows}"

    def job(self, place: int) -> str:
        return self.jobs[place % len(self.jobs)]

    def worker(self, place: int) -> str:
        return list(self.workers)[place % len(self.workers)]

    def new_id(self, *, older: bool = False) -> str:
        number = len(self.jobs) + len(self.workers) + len(self.lost) + 1
        place = 2**20 - number if older else 2**20 + number
        return str(UUID(int=(place << 90) | (7 << 76) | (2 << 62) | number))

    # what applications do

    @rule(jobs=st.lists(new_jobs, min_size=1, max_size=3))
    def spawn(self, jobs: list[dict[str, object]]) -> None:
        batch: list[NewJob] = []
        for fields in jobs:
            values = dict(fields)
            due, older = values.pop("due", None), bool(values.pop("older", False))
            if "concurrency_key" not in values:
                values.pop("concurrency_limit", None)
            moment = None if due is None else (BEGIN - EPOCH) // timedelta(microseconds=1) + int(str(due)) * 1_000_000
            id = self.new_id(older=older)
            self.jobs.append(id)
            batch.append(NewJob(id=id, config=msgspec.Raw(b"{}"), run_at=moment, **values))  # type: ignore[arg-type]
        self.ask("spawn", batch)

    @precondition(lambda self: self.jobs)
    @rule(which=several)
    def cancel(self, which: list[int]) -> None:
        self.ask("cancel", list({self.job(place): None for place in which}))

    @precondition(lambda self: self.jobs)
    @rule(which=places)
    def retry(self, which: int) -> None:
        self.retried = True
        self.ask("retry", [self.job(which)])

    @precondition(lambda self: self.jobs)
    @rule(which=places)
    def load(self, which: int) -> None:
        self.ask("load", [self.job(which)])

    @rule(name=st.sampled_from(("k", "l", "k*")), queue=st.sampled_from(("", "q")), said=st.sampled_from(
        ({"max_running": 2}, {"max_running": 0}, {"max_running": None}, {"paused": True}, {"paused": False})))
    def limit(self, name: str, queue: str, said: dict[str, object]) -> None:  # fmt: skip
        self.ask("limit", msgspec.json.encode({"name": name, "queue": queue, **said}).decode())

    @rule(seconds=st.sampled_from((0.5, 3, 10)))
    def turn(self, seconds: float) -> None:
        self.ask("turn", seconds)

    # what workers do

    @precondition(lambda self: len(self.workers) < 3)
    @rule()
    def register(self) -> None:
        worker = self.new_id()
        self.workers[worker] = 0
        self.ask("register", worker)

    @precondition(lambda self: self.workers)
    @rule(which=places, lanes=lanes, count=counts, most=st.integers(1, 6))
    def claim(self, which: int, lanes: list[Lane], count: int, most: int) -> None:
        worker = self.worker(which)
        self.ask("claim", worker, [(lane, count) for lane in lanes], most)
        self.claims += [(worker, job) for job in self.postgres.taken]

    @precondition(lambda self: self.workers)
    @rule(which=places, lanes=lanes, count=counts, chains=st.sampled_from(CHAINS))
    def claim_keyed(self, which: int, lanes: list[Lane], count: int, chains: Chains) -> None:
        worker = self.worker(which)
        self.ask("claim_keyed", worker, [(lane._replace(keyed=True), count) for lane in lanes], 4, chains, 0)
        self.claims += [(worker, job) for job in self.postgres.taken]

    @precondition(lambda self: self.claims)
    @rule(which=several, how=st.lists(st.sampled_from(list(ENDS)), min_size=3, max_size=3))
    def settle(self, which: list[int], how: list[str]) -> None:
        """Settle claims, also those that were settled before, and those of workers that were given up for dead."""
        picked = list({place % len(self.claims): None for place in which})
        worker, first = self.claims[picked[0]]
        jobs = [
            job for owner, job in (self.claims[place] for place in picked)
            if owner == worker and (job.concurrency_key is None) is (first.concurrency_key is None)
        ]  # fmt: skip
        distinct = list({job.id: job for job in jobs}.values())
        self.ask("settle", worker, [ENDS[end](job) for end, job in zip(how, distinct, strict=False)])

    @precondition(lambda self: self.claims)
    @rule(which=places, inherits=st.booleans())
    def save(self, which: int, inherits: bool) -> None:
        worker, job = self.claims[which % len(self.claims)]
        state = msgspec.Raw(b'{"at":%d}' % which)
        self.ask("write", run_writes.saved_state(worker, job, state, inherits=inherits))

    @precondition(lambda self: self.claims)
    @rule(which=places, result=st.sampled_from((None, b"7")))
    def report(self, which: int, result: bytes | None) -> None:
        worker, job = self.claims[which % len(self.claims)]
        raw = None if result is None else msgspec.Raw(result)
        self.ask("write", run_writes.reported_progress(worker, job, 0.5, "half"))
        self.ask("write", run_writes.reported_result(worker, job, raw))

    @precondition(lambda self: self.workers)
    @rule(which=places)
    def beat(self, which: int) -> None:
        worker = self.worker(which)
        if self.ask("beat", worker) is not None:
            self.workers[worker] += 1

    @precondition(lambda self: self.workers)
    @rule(which=places)
    def crash(self, which: int) -> None:
        """A worker is given up for dead. What it claimed it goes on to settle."""
        worker = self.worker(which)
        if self.ask("rescue", worker, self.workers[worker], 0.0) is not None:
            del self.workers[worker]
            self.lost.add(worker)

    @precondition(lambda self: self.workers)
    @rule(which=places)
    def leave(self, which: int) -> None:
        worker = self.worker(which)
        if self.ask("leave", worker):
            del self.workers[worker]
            self.lost.add(worker)

    @precondition(lambda self: self.workers)
    @rule(which=places, idle=st.booleans())
    def sleep(self, which: int, idle: bool) -> None:
        self.ask("idle" if idle else "busy", self.worker(which))

    @precondition(lambda self: self.workers)
    @rule(which=places)
    def look(self, which: int) -> None:
        worker = self.worker(which)
        self.ask("look", worker, ["default", "q"], ["a", "b"])
        self.ask("owned", worker)

    @rule()
    def sweep(self) -> None:
        self.ask("sweep")

    @precondition(lambda self: self.jobs)
    @rule(which=several, worker=places)
    def look_past_locked_rows(self, which: list[int], worker: int) -> None:
        """Somebody's transaction holds rows while others claim and settle."""
        for place in which:
            for side in (self.memory, self.postgres):
                side.hold(self.job(place))
        if self.workers:
            self.claim(worker, LANES, 2, 4)
        if self.claims:
            self.settle(which, ["completed", "retried", "released"])
        for side in (self.memory, self.postgres):
            side.let_go()

    def teardown(self) -> None:
        self.run(self.memory.close())
        # The rows say nothing of when an operator changed a limit or brought a job back.
        report = self.run(check(self.postgres.scene.dsn, terms=Terms(live=True, whole=not self.retried)))
        broken = [str(each) for each in report.violations if each.rule not in ("concurrency limit", "order in a key")]
        assert not broken, broken
