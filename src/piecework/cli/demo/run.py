"""The course of the demo: spawn, watch, kill, wait, and gather what happened."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import click
import msgspec

from piecework.base.ids import JobId
from piecework.base.threads import in_thread
from piecework.cli.demo import ledger, variables, work
from piecework.cli.demo.check import Evidence, JobRow
from piecework.cli.demo.display import Display, Progress
from piecework.cli.demo.measure import Measure, measure
from piecework.cli.demo.processes import DemoWorker, start_worker
from piecework.cli.demo.tree import Planned
from piecework.model.snapshot import JobSnapshot, JobStatus
from piecework.store.overview import JobFilter, count_attempts, count_jobs, list_jobs, list_workers
from piecework.store.store import Store

_CHUNK = 500
_LOOK_EVERY = 0.1
_RATE_OVER = 2.0
_STALLED_AFTER = 30.0
_LASTS = 8.0
"""Two workers would take so many seconds for the whole tree, had none of them to die."""
_LONGEST_PACE = 0.4

_decode_measure = msgspec.json.Decoder(Measure).decode


@dataclass(frozen=True, slots=True)
class Pace:
    """How many jobs a worker runs at once, and how many seconds each takes at least.

    Paced so that a kill in the middle hits running jobs, of a small tree as of a large one.
    """

    concurrency: int
    seconds: float

    @classmethod
    def of(cls, files: int) -> Pace:
        """Return the pace for a tree of so many files."""
        concurrency = max(1, min(files // 8, max(20, min(files // 1000, 100))))
        return cls(concurrency, min(_LASTS * 2 * concurrency / files, _LONGEST_PACE))


@dataclass
class Course:
    """One run of the demo on an open store of its own schema, with the demo's `Jobs` open."""

    store: Store
    root: Path
    planned: Sequence[Planned]
    folder: Path
    """For the ledger and the logs of the workers."""
    lease: timedelta
    display: Display
    spawned: dict[JobId, Planned] = field(default_factory=dict[JobId, Planned])
    _workers: list[DemoWorker] = field(default_factory=list[DemoWorker])
    _killed: DemoWorker | None = None
    _finished: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])
    _rescue_seen: bool = False

    async def run(self) -> Evidence:
        """Run every job, lose a worker halfway, and return what there is to judge by.

        Raises:
            click.ClickException: a worker ended by itself, or nothing moved for half a minute.
        """
        pace = Pace.of(len(self.planned))
        surroundings = {variables.LEDGER: str(self._ledger)}
        spawning = asyncio.create_task(self._spawn(pace.seconds), name="demo-spawner")
        try:
            for number in (1, 2):
                self._workers.append(
                    await start_worker(number, self.folder / f"worker-{number}.log", concurrency=pace.concurrency,
                                       lease=self.lease, surroundings=surroundings)
                )  # fmt: skip
            await self._watch(spawning, pace)
        finally:
            spawning.cancel()
            await asyncio.gather(*(worker.stop() for worker in self._workers))
        self.display.say("All jobs have ended, the workers are stopped. Counting the tree again …")
        return await self._evidence()

    @property
    def _ledger(self) -> Path:
        return self.folder / "ledger.txt"

    async def _spawn(self, pace: float) -> None:
        """Spawn one job per file, in chunks, each in one round trip."""
        for start in range(0, len(self.planned), _CHUNK):
            chunk = self.planned[start : start + _CHUNK]
            jobs = [work.count_large_file if each.large else work.count_file for each in chunk]
            specs = [
                job.spec(str(self.root / each.path), each.failures, pace) for job, each in zip(jobs, chunk, strict=True)
            ]
            handles = await work.jobs.spawn_all(specs)
            self.spawned.update(zip((handle.id for handle in handles), chunk, strict=True))

    async def _watch(self, spawning: asyncio.Task[None], pace: Pace) -> None:
        """Show what happens until every job ended, and kill a worker halfway."""
        began = moved = time.monotonic()
        before: object = None
        while True:
            if spawning.done():
                spawning.result()
            for worker in self._workers:
                worker.must_live()
            now = time.monotonic()
            progress = await self._progress(now - began)
            self.display.show(progress)
            ended = sum(progress.counts[status] for status in ("completed", "errored", "cancelled"))
            if spawning.done() and ended == len(self.planned):
                return
            if progress.counts != before:
                before, moved = progress.counts, now
            elif now - moved > _STALLED_AFTER:
                raise click.ClickException(f"no job moved for {_STALLED_AFTER:.0f} seconds: {dict(progress.counts)}")
            if self._killed is None and spawning.done() and ended >= len(self.planned) // 2:
                await self._kill_one(max(1, pace.concurrency // 2))
            await asyncio.sleep(_LOOK_EVERY)

    async def _progress(self, elapsed: float) -> Progress:
        counts: dict[JobStatus, int] = dict.fromkeys(("pending", "running", "completed", "errored", "cancelled"), 0)
        for each in await count_jobs(self.store):
            counts[each.status] += each.count
        attempts = await count_attempts(self.store)
        rescued = attempts.get("rescue", 0)
        self._notice_rescue(rescued)
        running = await self._running()
        self._finished.append((elapsed, counts["completed"]))
        while elapsed - self._finished[0][0] > _RATE_OVER:
            self._finished.popleft()
        (since, then), now = self._finished[0], counts["completed"]
        return Progress(
            elapsed=elapsed, planned=len(self.planned), counts=counts,
            rate=(now - then) / (elapsed - since) if elapsed > since else 0.0,
            retries=attempts.get("retry", 0), rescued=rescued,
            workers={worker.name: self._state(worker, running) for worker in self._workers},
        )  # fmt: skip

    async def _running(self) -> dict[int, int]:
        """Return how many jobs each worker holds, by its pid."""
        return {worker.pid: worker.running for worker in await list_workers(self.store)}

    def _state(self, worker: DemoWorker, running: dict[int, int]) -> str:
        if worker.killed_at is not None:
            held = running.get(worker.pid, 0)
            return f"killed; {held} jobs still in its name" if held else "killed; its jobs were rescued"
        return f"runs {running[worker.pid]} jobs" if worker.pid in running else "starts"

    async def _kill_one(self, wanted: int) -> None:
        """Kill the worker that holds most jobs, while it holds some."""
        running = await self._running()
        victim = max(self._workers, key=lambda worker: running.get(worker.pid, 0))
        if len(running) < len(self._workers) or running.get(victim.pid, 0) < wanted:
            return
        # Frozen first, so that what it holds now it holds when it dies.
        await victim.freeze()
        held = (await self._running()).get(victim.pid, 0)
        if not held:
            victim.thaw()
            return
        await victim.kill()
        self._killed = victim
        self.display.say(f"{victim.name} was killed by SIGKILL with {held} jobs in its hands; nobody is told")

    def _notice_rescue(self, rescued: int) -> None:
        victim = self._killed
        if rescued and victim is not None and victim.killed_at is not None and not self._rescue_seen:
            self._rescue_seen = True
            seconds = (time.monotonic_ns() - victim.killed_at) / 1e9
            other = next(worker for worker in self._workers if worker is not victim)
            self.display.say(f"{other.name} has taken {rescued} jobs back, {seconds:.1f} s after the kill")

    async def _evidence(self) -> Evidence:
        snapshots = await list_jobs(self.store, JobFilter(), len(self.planned) + 1000)
        recount = await in_thread("demo-recount", self._recount)
        try:
            runs = ledger.read(self._ledger)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
        killed = self._killed
        return Evidence(
            spawned=self.spawned, rows=[_row(snapshot) for snapshot in snapshots], runs=runs, recount=recount,
            killed_pid=None if killed is None else killed.pid,
            killed_at=0 if killed is None or killed.killed_at is None else killed.killed_at,
        )  # fmt: skip

    def _recount(self) -> dict[str, Measure]:
        counted: dict[str, Measure] = {}
        for each in self.planned:
            try:
                counted[each.path] = measure(self.root / each.path)
            except OSError:
                continue  # The check names it.
        return counted


def _row(job: JobSnapshot) -> JobRow:
    result = None if job.result is None else _decode_measure(job.result)
    return JobRow(job.id, job.status, job.claim_no, job.failures, result)
