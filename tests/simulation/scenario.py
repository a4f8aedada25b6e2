"""What happens in one run: workers, jobs that are given to them, and what goes wrong. All of it follows from a seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import msgspec
import psycopg
from greenlet import GreenletExit

from piecework import (
    BatchOutcomes,
    CurrentBatch,
    CurrentJob,
    Fail,
    Jobs,
    Reschedule,
    RetrySettings,
    WorkerSettings,
)
from piecework.base.errors import DatabaseError
from piecework.engine.worker import Worker
from piecework.jobs import service_of
from piecework.model.job import NewJob
from piecework.store.store import Store
from piecework.testing.memory.rows import Transaction
from piecework.testing.memory.statements import STATEMENTS
from piecework.work.service import Service
from simulation.judge import Judge
from simulation.network import Server, SimWire, Weather, own_transaction
from simulation.world import Process, SimThreads, World

DSN = "host=simulated"
N_ATTEMPTS = 4
MAX_CRASHES = 4
_LONGEST = 420.0
_PROBES = 1000
BATCHING = 0xBA87E

definitions = Jobs(DSN)
_RETRY = RetrySettings(
    n_attempts=N_ATTEMPTS, min_backoff=timedelta(milliseconds=200), max_backoff=timedelta(seconds=2),
    attempt_reset_after_backoff_multiples=0,
)  # fmt: skip
_current: Scenario


@definitions.job(retry=_RETRY)
async def plain(job: CurrentJob, number: int) -> Any:
    return await _current.act(job, number)


@definitions.job(retry=_RETRY, max_concurrent_per_process=1)
async def narrow(job: CurrentJob, number: int) -> Any:
    return await _current.act(job, number)


@definitions.job(retry=_RETRY, timeout=timedelta(seconds=3))
async def hurried(job: CurrentJob, number: int) -> Any:
    return await _current.act(job, number)


@definitions.job(retry=_RETRY)
def blocking(job: CurrentJob, number: int) -> Any:
    return _current.act_in_thread(job, number)


@dataclass
class Numbered:
    number: int


@definitions.batched(max_size=4, retry=_RETRY)
async def batched(batch: CurrentBatch[Numbered]) -> BatchOutcomes[Any]:
    return await _current.act_together(batch)


TYPES = ("plain", "narrow", "hurried", "blocking")


@dataclass
class Run:
    """One call of a job function."""

    id: str
    claim_no: int
    process: Process
    began: float
    ended: float = float("inf")
    how: str = "runs"
    deaf: bool = False
    """It takes no notice of being cancelled."""
    completes: bool = False
    """It ends its job in a transaction of its own."""
    unit: object = None
    """The batch that it runs in."""


@dataclass
class Given:
    """A job that was given to the database."""

    id: str
    number: int
    spec: NewJob
    at: float
    accepted: bool = False
    """Whether the spawn was answered; else it may have landed or not."""
    holder: str | None = None
    """Whose key was in the way."""
    waits_for_others: bool = False
    """There was other work when it was given."""

    @property
    def probe(self) -> bool:
        """Whether it is given where nothing goes wrong any more: it has to start at once."""
        return self.number >= _PROBES


class Host:
    """A machine with a worker: the process, and the worker in it."""

    def __init__(self, scenario: Scenario, name: str) -> None:
        self.scenario = scenario
        self.process = Process(scenario.world, name)
        self.worker: Worker | None = None
        self.store: Store | None = None
        self.stop = False
        self.done = False
        self.failed: BaseException | None = None
        self._leave: asyncio.Event | None = None
        self.process.at_exit = lambda: scenario.start_later(1.0, name + "'")  # its supervisor sees to it
        self.process.start(self._main).add_done_callback(self._ended)

    @property
    def lives(self) -> bool:
        return not self.process.dead and not self.done and not self.stop

    async def _main(self) -> None:
        scenario = self.scenario
        self._leave = asyncio.Event()
        store = self.store = Store(DSN, wire=SimWire(self.process, scenario.server))
        while not self.stop:
            try:
                await store.open(migrate=False)
                service = Service(schema="piecework", max_config_size=10_000)
                service.registry = service_of(definitions).registry
                service.open(store)
                worker = Worker(service, scenario.settings, service.waiters.hint, self.process.surroundings)
                worker._owns_process = True
                worker._executor._threads = SimThreads(self.process, scenario.settings.threads)
                async with worker:
                    self.worker = worker
                    scenario.world.say("worker", self.process.name, worker.worker_id)
                    if not self.stop:
                        await self._leave.wait()
                service.close()
                break
            except DatabaseError as error:
                scenario.world.say("cannot start", self.process.name, str(error)[:80])
                await asyncio.sleep(1.0)
        await store.close()
        self.done = True
        scenario.world.say("left", self.process.name)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None and not self.process.dead:
            self.scenario.world.wrong(f"{self.process.name} ended with {task.exception()!r}")

    def drain(self) -> None:
        """SIGTERM."""
        if self.lives:
            self.scenario.world.say("drains", self.process.name)
            self.stop = True
            if self._leave is not None:
                self.process.loop.call_soon(self._leave.set)


class Scenario:
    """One run of the world."""

    def __init__(self, seed: int, change: Callable[[Scenario], None] = lambda scenario: None) -> None:
        global _current
        _current = self
        random.seed(seed)
        self.world = world = World(seed)
        self.chance = random.Random(seed ^ 0x5EED)
        self.weather = Weather()
        self.server = Server(world, self.weather)
        self.runs: list[Run] = []
        self.given: dict[str, Given] = {}
        self.faults: list[str] = []
        self.hosts: list[Host] = []
        self.fastest = 0.0
        chance = self.chance
        self.settings = WorkerSettings(
            concurrency=chance.choice((1, 2, 3, 5, 10)), prefetch=chance.choice((0, 0, 5, 500)),
            shutdown_grace=timedelta(seconds=chance.choice((1, 5, 30))), max_crashes=MAX_CRASHES,
        )  # fmt: skip
        self.outage = chance.random() < 0.06
        """The server is away for long, and nothing else: whoever is given up for dead then was not."""
        self.short_runs = random.Random(seed ^ 0xC4A1).random() < 0.25
        """Most runs are short: then several jobs of a key are claimed at once."""
        # Of a number that leaves the named seeds as they were.
        self.batching = random.Random(seed ^ BATCHING).random() < 0.15
        """Plain jobs run in batches."""
        self.cutting_off = not self.outage and chance.random() < 0.3
        """Workers lose touch while they run something: this takes long runs, and others that are there to take over."""
        self.calm_at = 55.0 if self.outage else chance.uniform(45, 60) if self.cutting_off else chance.uniform(5, 45)
        self.long_runs = 0.7 if self.cutting_off else chance.choice((0.0, 0.02, 0.1, 0.5))
        self.judge = Judge(self)
        world.at(self.calm_at + 40, self.judge.look)
        self.app = Process(world, "app")
        self.app_store = Store(DSN, wire=SimWire(self.app, self.server))
        self.keys = [f"key-{n}" for n in range(chance.choice((0, 0, 1, 2, 3)))]
        self.limits = {key: chance.choice((1, 1, 1, 2, 3)) for key in self.keys}
        self.uniques = [f"only-{n}" for n in range(chance.choice((0, 0, 0, 1, 2)))]
        self.n_hosts = chance.choice((2, 3) if self.cutting_off or self.outage else (1, 2, 2, 3))
        for n in range(self.n_hosts):
            self.start_later(chance.uniform(0, 2), f"w{n}")
        self._plan_jobs()
        self._plan_faults()
        change(self)

    def start_later(self, after: float, name: str) -> None:
        self.world.at(self.world.now + after, lambda: self.hosts.append(Host(self, name)))

    # What the jobs do

    async def act(self, job: CurrentJob, number: int) -> Any:
        """Do what the plan says of this attempt."""
        process = cast("Any", asyncio.get_running_loop())._process
        run = Run(str(job.id), job.claim_no, process, self.world.now)
        self.runs.append(run)
        self.judge.began(run)
        try:
            value = await self._behave(job, run, number)
            ends = {Reschedule: "reschedules", Fail: "fails"}
            run.how = ends.get(type(value), "returns")
            return value
        except GeneratorExit:
            raise
        except BaseException as error:
            run.how = type(error).__name__
            raise
        finally:
            if not process.dead:
                run.ended = self.world.now
                self.judge.ended(run)

    def act_in_thread(self, job: CurrentJob, number: int) -> Any:
        """Do the same in a thread, which nobody can stop."""
        process = self.world.running
        assert process is not None
        run = Run(str(job.id), job.claim_no, process, self.world.now)
        self.runs.append(run)
        self.judge.began(run)
        chance, calm = self.chance, self.world.now > self.calm_at
        long_ones = (self._long(),) * (4 if self.cutting_off else 1)
        seconds = chance.choice((0.001, 0.05, 1.0)) if calm else chance.choice((0.001, 0.3, 2.0, *long_ones))
        try:
            until = process.monotonic() + seconds
            while process.monotonic() < until and not (job.cancel_requested and chance.random() < 0.7):
                process.pause(min(0.5, until - process.monotonic()))
            if chance.random() < 0.2:
                raise ValueError("as planned")
            run.how = "returns"
            return None
        except GreenletExit:
            raise
        except BaseException as error:
            run.how = type(error).__name__
            raise
        finally:
            if not process.dead:
                run.ended = self.world.now
                self.judge.ended(run)

    async def act_together(self, batch: CurrentBatch[Numbered]) -> BatchOutcomes[Any]:
        """Do the same for several jobs at once, each with an end of its own."""
        process, chance = cast("Any", asyncio.get_running_loop())._process, self.chance
        calm = self.world.now > self.calm_at
        runs = [Run(str(item.id), item.claim_no, process, self.world.now, unit=batch) for item in batch.items]
        for run in runs:
            self.runs.append(run)
            self.judge.began(run)
        long_run = not calm and chance.random() < self.long_runs
        seconds = self._long() if long_run else chance.choice((0.0, 0.001, 0.05, 0.3, 1.0))
        try:
            if not calm and chance.random() < 0.05:
                for run in runs:
                    run.deaf = True
                await self._deaf(seconds)
            await asyncio.sleep(seconds)
            if chance.random() < 0.1:
                raise ValueError("as planned, for all of them")
            outcomes = [
                chance.choice((None, None, None, Reschedule.after(timedelta(seconds=0.5)), Fail("as planned"),
                               ValueError("as planned")))
                for _ in runs
            ]  # fmt: skip
            ends = {Reschedule: "reschedules", Fail: "fails", ValueError: "ValueError"}
            for run, outcome in zip(runs, outcomes, strict=True):
                run.how = ends.get(type(outcome), "returns")
            return BatchOutcomes(zip((item.id for item in batch.items), outcomes, strict=True))
        except GeneratorExit:
            raise
        except BaseException as error:
            for run in runs:
                run.how = type(error).__name__
            raise
        finally:
            if not process.dead:
                for run in runs:
                    run.ended = self.world.now
                    self.judge.ended(run)

    def _long(self) -> float:
        return self.chance.uniform(20, 50) if self.cutting_off else self.chance.uniform(3, 20)

    async def _behave(self, job: CurrentJob, run: Run, number: int) -> Any:
        chance = self.chance
        if number >= _PROBES:
            return await asyncio.sleep(0.01)
        kind = chance.random()
        seconds = chance.choice((0.0, 0.001, 0.01, 0.05, 0.3, 1.0, 4.0))
        calm = self.world.now > self.calm_at
        if calm:
            seconds = min(seconds, 1.0)
        elif self.short_runs and kind > 0.24:
            seconds = 0.0 if kind < 0.6 else 0.002
        elif self.outage:
            kind, seconds = 0.5, chance.uniform(10, 40)
        elif chance.random() < self.long_runs:
            seconds = chance.uniform(20, 50) if self.cutting_off else chance.uniform(5, 40)
        if kind < 0.04 and not calm:
            run.deaf = True
            await self._deaf(seconds)
        elif kind < 0.06 and not calm:
            run.process.sleep(min(seconds, 25))
        elif kind < 0.12:
            await self._write(job, number)
        elif kind < 0.24:
            await self._complete(job, run, seconds)
            return None
        if seconds:
            await asyncio.sleep(seconds)
        else:
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
        if kind > 0.93 and not calm:
            return Reschedule.after(timedelta(seconds=chance.choice((0, 0.01, 0.5, 3))))
        if kind > 0.91:
            return Fail("as planned")
        if kind > 0.75:
            raise ValueError("as planned")
        return None

    async def _deaf(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                pass

    async def _complete(self, job: CurrentJob, run: Run, seconds: float) -> None:
        """End the job in a transaction, together with an effect of its own."""
        again = Reschedule.after(timedelta(seconds=0.5)) if self.chance.random() < 0.2 else None
        async with job.completing(again, begin=lambda: own_transaction(run.process, self.server)) as conn:
            run.completes = True
            await conn.effect(run.id, run.claim_no, run.process.name)
            await asyncio.sleep(min(seconds, self.chance.choice((0.0, 0.1, 5.0))))
            if self.chance.random() < 0.1:
                raise ValueError("as planned, in the transaction")

    async def _write(self, job: CurrentJob, number: int) -> None:
        await job.save_state({"number": number})
        await asyncio.sleep(0.01)
        await job.progress(0.5, "half")

    # Giving jobs

    def _plan_jobs(self) -> None:
        chance, world = self.chance, self.world
        left = chance.choice((4, 8, 12, 20, 30))
        number = 0
        at = 0.0
        while left > 0:
            size = min(left, chance.choice((1, 1, 2, 5)))
            batch = [self._new_job(number + n) for n in range(size)]
            number += size
            left -= size
            at = chance.uniform(0, self.calm_at) if chance.random() < 0.5 else at + chance.uniform(0, 0.1)
            if chance.random() < 0.1:
                self._spawn_open(at, batch)
            else:
                world.at(at, lambda batch=batch: self.app.start(lambda: self.spawn(batch)))
        for n in range(2):
            probe = self._new_job(_PROBES + n, probe=True)
            world.at(self.calm_at + 70 + 4 * n, lambda probe=probe: self.app.start(lambda: self.spawn([probe])))
            # When this one is begun, somebody may be about to fall asleep who does not see it.
            begin = self.calm_at + 70 + 4 * n + chance.uniform(0.5, 1.3)
            self._spawn_open(begin, [self._new_job(_PROBES + 10 + n, probe=True)], chance.uniform(0.3, 1.5))
        if self.keys:
            line = [self._new_job(_PROBES + 20 + n, probe=True, key=self.keys[0]) for n in range(3)]
            world.at(self.calm_at + 80, lambda: self.app.start(lambda: self.spawn(line)))

    def _new_job(self, number: int, *, probe: bool = False, key: str | None = None) -> NewJob:
        chance = self.chance
        types = ("plain", "plain", "narrow", "blocking") if self.cutting_off else TYPES
        job_type = "plain" if probe else chance.choice(types)
        if self.batching and job_type == "plain" and not probe:
            job_type = "batched"
        if key is None and self.keys and not probe and chance.random() < 0.6:
            key = chance.choice(self.keys)
        unique = chance.choice(self.uniques) if self.uniques and not probe and chance.random() < 0.5 else None
        return NewJob(
            id=self.world.new_id(), job_type=job_type, config=msgspec.Raw(b'{"number":%d}' % number),
            priority=chance.choice((0, 0, 0, 1, -1)), key=unique, concurrency_key=key,
            delay=chance.choice((None, None, 0, 500_000, 5_000_000)) if not probe else None,
            concurrency_limit=None if key is None else self.limits[key],
        )  # fmt: skip

    def _give(self, batch: list[NewJob]) -> list[Given]:
        given = [Given(str(job.id), msgspec.json.decode(job.config)["number"], job, self.world.now) for job in batch]
        busy = any(str(id) in self.given and not self.given[str(id)].probe for id in self.server.database.jobs.rows)
        for each in given:
            each.waits_for_others = busy
        self.given.update((each.id, each) for each in given)
        self.world.say("spawns", *(f"{g.number}:{g.id[-4:]}:{g.spec.job_type}" for g in given))
        return given

    async def spawn(self, batch: list[NewJob]) -> None:
        """Give jobs to the database, as an application does."""
        given = self._give(batch)
        try:
            if self.app_store._connections is None:
                await self.app_store.open(migrate=False)
            held = await self.app_store.spawn(batch)
        except DatabaseError as error:
            self.world.say("spawn failed", str(error)[:100])
            return
        for position, each in enumerate(given):
            each.accepted, each.at = True, self.world.now
            each.holder = str(held[position]) if position in held else None
            self.world.say("spawned", each.number, each.holder)

    def _spawn_open(self, at: float, batch: list[NewJob], open_for: float | None = None) -> None:
        """Spawn in a transaction that stays open for a while."""
        plain = [msgspec.structs.replace(job, key=None) for job in batch]
        open_for = self.chance.choice((0.05, 0.5, 2.0, 10.0)) if open_for is None else open_for

        def begin() -> None:
            given = self._give(plain)
            txn = self.server.database.begin()
            self.through(STATEMENTS["spawn"](self.server.database, txn, msgspec.json.encode(plain).decode()))

            def end() -> None:
                self.server.database.commit(txn)
                self.world.say("committed", *(each.number for each in given))
                for each in given:
                    each.accepted, each.at = True, self.world.now

            self.world.at(self.world.now + open_for, end)

        self.world.at(at, begin)

    def through(self, steps: Generator[Any, None, Any]) -> Any:
        """Run a statement that waits for nobody."""
        try:
            while (wait := next(steps)) is None:
                pass
        except StopIteration as end:
            return end.value
        steps.close()
        raise psycopg.errors.LockNotAvailable(f"{wait} is in the way")

    # What goes wrong

    def _plan_faults(self) -> None:
        chance = self.chance
        self.world.at(self.calm_at, self._calm)
        if self.outage:
            down = chance.uniform(15, 40)
            self.world.at(chance.uniform(7, 14), lambda: self._strike("crash", lambda: self.server.crash(down)))
            return
        kinds: list[tuple[str, Callable[[], None]]] = [
            ("kill", self._kill), ("freeze", self._freeze), ("crash", self._crash), ("cut", self._cut),
            ("drain", self._drain), ("step", self._step_clock), ("cancel", self._cancel), ("retry", self._retry),
            ("hold", self._hold), ("raise limit", self._raise_limit), ("partition", self._partition),
            ("partition", self._partition),
        ]  # fmt: skip
        if self.cutting_off:
            for _ in range(chance.choice((1, 1, 2))):
                name, call = chance.choice((("partition", self._partition), ("freeze", self._freeze)))
                self.world.at(chance.uniform(1, 10), lambda name=name, call=call: self._strike(name, call))
        for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 5))):
            name, call = chance.choice(kinds)
            self.world.at(chance.uniform(0.5, self.calm_at), lambda name=name, call=call: self._strike(name, call))
        for _ in range(chance.choice((0, 1, 1, 2, 3))):
            kind = chance.choice(
                ("request_lost", "reply_lost", "backend_killed", "silent", "slow", "notice_lost", "refused")
            )
            likely = chance.choice((0.002, 0.02, 0.1, 0.3))
            begin = chance.uniform(0, self.calm_at * 0.8)
            end = min(begin + chance.choice((1.0, 5.0, 20.0)), self.calm_at)
            self.world.at(begin, lambda kind=kind, likely=likely: self._turn(kind, likely))
            self.world.at(end, lambda kind=kind: self._turn(kind, 0.0))
        self.weather.until = self.calm_at
        self.weather.slow_by = chance.choice((0.05, 1.0, 10.0, 40.0))
        if chance.random() < 0.2:
            self.world.at(chance.uniform(0, self.calm_at / 2), lambda: self._turn("pinned", 1.0))
            end = self.calm_at + chance.choice((-2.0, 45.0))
            self.world.at(end, lambda: self._turn("pinned", 0.0))

    def _turn(self, kind: str, likely: float) -> None:
        if likely:
            self.faults.append(kind)
        self.world.say("weather", kind, likely)
        setattr(self.weather, kind, likely)

    def _strike(self, name: str, call: Callable[[], None]) -> None:
        self.faults.append(name)
        self.world.say("fault", name)
        call()

    def _calm(self) -> None:
        self.world.say("calm")
        self.weather.calm()
        # What was spawned while the clock was ahead is due when it is there again.
        self.server.database.skew = self.fastest
        self.server.down_until = min(self.server.down_until, self.world.now)
        for host in self.hosts:
            host.process.frozen_until = min(host.process.frozen_until, self.world.now)
            host.process.thaw()
            host.process.cut_off_until = min(host.process.cut_off_until, self.world.now + 1.0)
        if not any(host.lives for host in self.hosts):
            self.start_later(0.5, f"w{len(self.hosts)}")

    def _one(self) -> Host | None:
        living = [host for host in self.hosts if host.lives]
        busy = [host for host in living if host.worker is not None and host.worker._executor.held]
        if busy and self.chance.random() < 0.7:
            living = busy
        return self.chance.choice(living) if living else None

    def _kill(self) -> None:
        if (host := self._one()) is not None:
            host.process.kill()
            if self.chance.random() < 0.7:
                self.start_later(self.chance.uniform(0.1, 20), f"w{len(self.hosts)}")

    def _freeze(self) -> None:
        if (host := self._one()) is not None:
            lengths = (15.0, 25.0, 40.0) if self.cutting_off else (0.2, 3.0, 11.0, 14.0, 17.0, 25.0)
            host.process.freeze(self.chance.choice(lengths))

    def _partition(self) -> None:
        if (host := self._one()) is not None:
            lengths = (20.0, 30.0, 40.0) if self.cutting_off else (1.0, 5.0, 13.0, 20.0, 30.0)
            host.process.partition(self.chance.choice(lengths))

    def _crash(self) -> None:
        self.server.crash(self.chance.choice((0.05, 1.0, 8.0, 20.0, 35.0)))

    def _cut(self) -> None:
        for session in list(self.server.sessions):
            if self.chance.random() < 0.5:
                session.die()

    def _drain(self) -> None:
        if (host := self._one()) is not None:
            host.drain()
            self.start_later(self.chance.uniform(0, 5), f"w{len(self.hosts)}")

    def _step_clock(self) -> None:
        self.server.database.skew += self.chance.choice((-3600.0, -5.0, 5.0, 3600.0))
        self.fastest = max(self.fastest, self.server.database.skew)

    def _some(self) -> list[str]:
        ids = list(self.given)
        return self.chance.sample(ids, min(len(ids), self.chance.choice((1, 1, 3))))

    def _cancel(self) -> None:
        if ids := self._some():
            self.world.say("cancels", *(self.given[id].number for id in ids))
            self.app.start(lambda: self._ask("cancel", ids))

    def _retry(self) -> None:
        if ids := self._some():
            self.world.say("retries", *(self.given[id].number for id in ids))
            self.app.start(lambda: self._ask("retry", ids))

    async def _ask(self, verb: str, ids: list[str]) -> None:
        try:
            if self.app_store._connections is None:
                await self.app_store.open(migrate=False)
            answers = await getattr(self.app_store, verb)([UUID(id) for id in ids])
            self.world.say(verb, *answers)
        except (DatabaseError, psycopg.Error) as error:
            self.world.say(verb, "failed", str(error)[:100])

    def _hold(self) -> None:
        """Somebody's open transaction has locked rows."""
        database = self.server.database
        txn = database.begin()
        for id in self._some():
            row = database.jobs.rows.get(id)
            if row is not None and not row.in_the_way(txn, "update"):
                self.through(txn.lock(row, "update", skip=True))
        self.world.at(
            self.world.now + self.chance.choice((0.1, 2.0, 10.0)), lambda: self._let_go(txn)
        )  # fmt: skip

    def _let_go(self, txn: Transaction) -> None:
        self.server.database.abort(txn)

    def _raise_limit(self) -> None:
        if self.keys:
            key = self.chance.choice(self.keys)
            most = self.chance.choice((1, 2, 4))
            self.limits[key] = max(self.limits[key], most)
            said = msgspec.json.encode({"name": key, "max_running": most}).decode()
            txn = self.server.database.begin()
            try:
                self.through(STATEMENTS["set_limit"](self.server.database, txn, said))
            except psycopg.Error:
                self.server.database.abort(txn)
            else:
                self.server.database.commit(txn)

    # The whole

    def run(self) -> list[str]:
        """Let it all happen, and return what was wrong."""
        world = self.world
        world.run(self.calm_at + 90)
        longest = world.now + _LONGEST
        while world.now < longest:
            world.run(longest, self.judge.all_ended)
            world.run(min(world.now + 5, longest))  # the answers to the last settles are on their way
            if self.judge.all_ended():
                break
        self.judge.at_rest()
        for host in self.hosts:
            host.drain()
        world.run(world.now + 100, lambda: all(host.done or host.process.dead for host in self.hosts))
        self.judge.at_the_end()
        return world.problems

    def close(self) -> None:
        """Let nothing of it be left."""
        self.world.close()
