"""Both stores do the same: whatever is asked of them, in whatever order, they answer alike and are left alike."""

from __future__ import annotations

import random
from datetime import timedelta
from uuid import UUID

import msgspec
import pytest

from conformance.sides import BEGIN, EPOCH, MemorySide, PostgresSide
from piecework.model.completion import Reschedule
from piecework.model.cursors import FIRST_ID, Place
from piecework.model.job import ClaimedJob, NewJob
from piecework.model.lanes import Lane
from piecework.model.retry import RetrySettings
from piecework.model.settlement import Settlement, cancelled, completed, failed, released, rescheduled
from piecework.store import run_writes
from piecework.store.claiming import NO_CHAINS, Chains

QUEUES, TYPES, KEYS = ("default", "q"), ("a", "b"), ("k", "l", "m:1")
STEPS = 70


class Walk:
    """A random walk over both stores."""

    def __init__(self, seed: int, postgres: PostgresSide, memory: MemorySide) -> None:
        self.chance = random.Random(seed)
        self.sides = postgres, memory
        self.ids: list[str] = []
        self.workers: dict[str, int] = {}
        self.claims: list[tuple[str, ClaimedJob]] = []
        self.crashed: set[str] = set()
        self.done: list[str] = []

    def new_id(self) -> str:
        return str(UUID(int=(7 << 76) | (2 << 62) | (len(self.ids) << 90) | self.chance.getrandbits(50)))

    async def ask(self, verb: str, *args: object) -> object:
        """Ask both, and compare what they answer, tell, and have become."""
        postgres, memory = self.sides
        self.done.append(f"{verb}{args}")
        ours, theirs = await memory.attempt(verb, *args), await postgres.attempt(verb, *args)
        story = "\n".join(self.done[-12:])
        assert ours == theirs, f"{story}\nin memory: {ours}\nPostgreSQL: {theirs}"
        if verb not in ("look", "owned"):
            assert memory.notices() == postgres.notices(), story
            if len(self.done) % 3 == 0:
                self.compare()
        return theirs

    def compare(self) -> None:
        """See that both are left alike."""
        postgres, memory = self.sides
        story = "\n".join(self.done[-12:])
        kept, wanted = memory.state(), postgres.state()
        for table, rows in wanted.items():
            assert kept[table] == rows, f"{story}\n{table} in memory: {kept[table]}\nPostgreSQL: {rows}"

    async def step(self) -> None:
        verbs = {
            self.spawn: 5, self.claim: 5, self.claim_keyed: 5, self.settle: 6, self.turn: 3, self.rescue: 1,
            self.cancel: 2, self.retry: 1, self.beat: 1, self.sweep: 1, self.limit: 1, self.look: 1, self.sleep: 1,
            self.save: 2, self.report: 1, self.hold: 1, self.let_go: 2, self.leave: 1, self.load: 1,
        }  # fmt: skip
        await self.chance.choices(list(verbs), list(verbs.values()))[0]()

    def some(self, of: list[str], most: int = 3) -> list[str]:
        return self.chance.sample(of, min(len(of), self.chance.randint(1, most)))

    async def spawn(self) -> None:
        chance = self.chance
        batch: list[NewJob] = []
        for _ in range(chance.choice((1, 1, 2, 4))):
            id = self.new_id()
            self.ids.append(id)
            key = chance.choice((None, None, *KEYS))
            moment = (BEGIN - EPOCH) // timedelta(microseconds=1) + chance.randint(-3, 30) * 1_000_000
            batch.append(NewJob(
                id=id, job_type=chance.choice(TYPES), config=msgspec.Raw(b'{"n":1}'), queue=chance.choice(QUEUES),
                priority=chance.choice((0, 0, 1)), run_at=chance.choice((None, moment)),
                key=chance.choice((None, None, None, "u1", "u2")), concurrency_key=key,
                concurrency_limit=None if key is None else chance.choice((None, 1, 2)),
            ))  # fmt: skip
        await self.ask("spawn", batch)

    async def worker(self) -> str:
        if not self.workers or (len(self.workers) < 4 and self.chance.random() < 0.2):
            worker = self.new_id()
            self.workers[worker] = 0
            await self.ask("register", worker)
        return self.chance.choice(list(self.workers))

    def lanes(self, *, keyed: bool) -> list[tuple[Lane, int]]:
        lanes = [Lane(queue, name, priority, keyed) for queue in QUEUES for name in TYPES for priority in (0, 1)]
        asked = self.chance.sample(lanes, self.chance.randint(1, len(lanes)))
        return [(lane, self.chance.randint(1, 3)) for lane in asked]

    async def claim(self) -> None:
        worker = await self.worker()
        lanes, after = self.lanes(keyed=False), None
        if self.chance.random() < 0.2:
            moment = (BEGIN - EPOCH) // timedelta(microseconds=1) + self.chance.randint(-3, 20) * 1_000_000
            lanes, after = lanes[:1], Place(moment, self.chance.choice(self.ids) if self.ids else FIRST_ID)
        await self.ask("claim", worker, lanes, self.chance.randint(1, 6), after)
        self.claims += [(worker, job) for job in self.sides[0].taken]

    async def claim_keyed(self) -> None:
        worker = await self.worker()
        lanes, most, beyond = self.lanes(keyed=True), self.chance.randint(1, 6), self.chance.choice((0, 0, 2))
        chains = self.chance.choice((NO_CHAINS, Chains({"a": 3}, 2), Chains({"a": 4, "b": 2}, 10)))
        await self.ask("claim_keyed", worker, lanes, most, chains, beyond)
        self.claims += [(worker, job) for job in self.sides[0].taken]

    def end(self, job: ClaimedJob) -> Settlement:
        chance = self.chance
        started = 998.0
        return chance.choice((
            lambda: completed(job, started, chance.choice((None, msgspec.Raw(b'{"r": [1]}')))),
            lambda: completed(job, started, None),
            lambda: released(job, chance.choice((None, timedelta(seconds=3)))),
            lambda: rescheduled(job, started, Reschedule.after(timedelta(seconds=chance.randint(0, 9)))),
            lambda: cancelled(job, chance.choice((None, started))),
            lambda: failed(job, RetrySettings(n_attempts=3), (), started, timedelta(seconds=2), ValueError("no"), 0.5),
        ))()  # fmt: skip

    async def settle(self) -> None:
        if not self.claims:
            return
        worker, first = self.chance.choice(self.claims)
        keyed = first.concurrency_key is not None
        mine = [job for owner, job in self.claims if owner == worker]
        of_worker = [job for job in mine if (job.concurrency_key is not None) is keyed]
        jobs = self.chance.sample(of_worker, self.chance.randint(1, len(of_worker)))
        answered = await self.ask("settle", worker, [self.end(job) for job in jobs])
        assert isinstance(answered, tuple)
        over = [job for job, answer in zip(jobs, answered[0], strict=True) if answer != "locked"]
        # Some are settled once more later, as after an answer that was lost.
        self.claims = [c for c in self.claims if c[1] not in over or self.chance.random() < 0.15]

    async def turn(self) -> None:
        await self.ask("turn", self.chance.choice((0.5, 2, 7)))

    async def rescue(self) -> None:
        worker = await self.worker()
        held = [job.id for owner, job in self.claims if owner == worker]
        if self.crashed & set(held):
            return  # what crashed before is due at random
        self.crashed |= set(held)
        rescued = await self.ask("rescue", worker, self.workers[worker])
        if rescued is not None:
            self.workers.pop(worker)

    async def beat(self) -> None:
        worker = await self.worker()
        if await self.ask("beat", worker) is not None:
            self.workers[worker] += 1

    async def leave(self) -> None:
        worker = await self.worker()
        if self.chance.random() < 0.3 and await self.ask("leave", worker):
            self.workers.pop(worker)

    async def cancel(self) -> None:
        if self.ids:
            await self.ask("cancel", self.some(self.ids))

    async def retry(self) -> None:
        if self.ids:
            await self.ask("retry", self.some(self.ids))

    async def sweep(self) -> None:
        await self.ask("sweep")

    async def limit(self) -> None:
        said = {"name": self.chance.choice((*KEYS, "m:*")), "queue": self.chance.choice(("", "q"))}
        said |= self.chance.choice(({"max_running": 2}, {"max_running": None}, {"paused": True}, {"paused": False}))
        await self.ask("limit", msgspec.json.encode(said).decode())

    async def look(self) -> None:
        worker = await self.worker()
        await self.ask("look", worker, QUEUES[: self.chance.randint(1, 2)], TYPES[: self.chance.randint(1, 2)])
        await self.ask("owned", worker)

    async def sleep(self) -> None:
        worker = await self.worker()
        await self.ask("idle" if self.chance.random() < 0.6 else "busy", worker)

    async def save(self) -> None:
        if self.claims:
            worker, job = self.chance.choice(self.claims)
            state = msgspec.Raw(b'{"at":%d}' % len(self.done))
            inherits = self.chance.random() < 0.5
            await self.ask("write", run_writes.saved_state(worker, job, state, inherits=inherits))

    async def report(self) -> None:
        if self.claims:
            worker, job = self.chance.choice(self.claims)
            await self.ask("write", self.chance.choice((
                run_writes.reported_progress(worker, job, 0.5, "half"),
                run_writes.reported_result(worker, job, msgspec.Raw(b"7")),
                run_writes.reported_result(worker, job, None),
            )))  # fmt: skip

    async def load(self) -> None:
        if self.ids:
            await self.ask("load", self.some(self.ids))

    async def hold(self) -> None:
        """Lock rows: what skips them is compared, and nothing here waits for them."""
        if self.ids:
            for id in self.some(self.ids):
                for side in self.sides:
                    side.hold(id)
            for verb in (self.claim, self.claim_keyed, self.settle, self.settle, self.look, self.sweep):
                await verb()
            if self.chance.random() < 0.3:
                await self.rescue()
            for side in self.sides:
                side.let_go()

    async def let_go(self) -> None:
        await self.look()


@pytest.mark.parametrize("seed", range(16))
async def test_both_stores_answer_alike_and_are_left_alike(
    seed: int, postgres: PostgresSide, memory: MemorySide
) -> None:
    walk = Walk(seed, postgres, memory)
    for side in walk.sides:
        await side.begin()
    for _ in range(STEPS):
        await walk.step()
    walk.compare()
