"""Two stores, asked alike and shown alike: PostgreSQL, and the database in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from piecework.base.errors import DatabaseError
from piecework.model.cursors import Place
from piecework.model.job import ClaimedJob, NewJob
from piecework.model.lanes import Lane
from piecework.model.settlement import Settlement
from piecework.model.snapshot import JobSnapshot
from piecework.store import claiming, settling, turning
from piecework.store.claiming import Chains
from piecework.store.link import DatabaseHealth, Link
from piecework.store.liveness import Pulse, WorkerRow
from piecework.store.run_writes import Request
from piecework.store.store import Store
from piecework.testing.memory.connection import MemoryServer
from piecework.testing.memory.rows import Values
from support.scene import Scene

NOW = 1000.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BEGIN = datetime(2031, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=18)
State = dict[str, list[tuple[Any, ...]]]


class Side:
    """One store. What it answers is put in an order, where the database leaves that open."""

    store: Store
    link: Link
    pulse: Pulse
    taken: list[ClaimedJob] = []
    """By the last claim."""

    async def begin(self) -> None:
        await turning.set_clock(self.store, BEGIN)

    async def close(self) -> None:
        await self.link.drop()
        self.pulse.close()
        await self.store.close()

    async def turn(self, seconds: float) -> object:
        return await turning.advance_clock(self.store, timedelta(seconds=seconds))

    async def spawn(self, jobs: Sequence[NewJob]) -> object:
        given = [msgspec.structs.replace(job, id=UUID(str(job.id))) for job in jobs]
        return {n: str(id) for n, id in (await self.store.spawn(given)).items()}

    async def register(self, worker: str) -> None:
        self.pulse.register(
            WorkerRow(id=worker, pid=1, host="here", lease=LEASE, stop=LEASE * 0.7, exit=LEASE * 0.9,
                      queues=["default", "q"], job_types=["a", "b"], version="0")
        )  # fmt: skip

    async def claim(
        self, worker: str, lanes: list[tuple[Lane, int]], most: int, after: Place | None = None
    ) -> object:
        self.taken = []
        jobs, counts, _, _ = await claiming.claim(self.link, worker, lanes, most, after)
        self.taken = jobs
        return [_claim(job) for job in jobs], counts

    async def claim_keyed(
        self, worker: str, lanes: list[tuple[Lane, int]], most: int, chains: Chains, beyond: int
    ) -> object:
        self.taken = []
        jobs, again, passed, places, _ = await claiming.claim_keyed(self.link, worker, lanes, most, chains, beyond)
        self.taken = jobs
        return [_claim(job) for job in jobs], again, passed, dict(places)

    async def settle(self, worker: str, settlements: Sequence[Settlement]) -> object:
        answers, lanes = await settling.settle(self.link, worker, settlements, NOW)
        return answers, sorted(lanes)

    async def write(self, request: Request) -> object:
        return await self.store.write(request)

    async def look(self, worker: str, queues: Sequence[str], job_types: Sequence[str]) -> object:
        found = await claiming.look(self.link, worker, queues, job_types)
        return sorted(found.lanes), found.owned

    async def owned(self, worker: str) -> object:
        return sorted((job.id, job.claim_no, job.attempt) for job in await claiming.owned(self.link, worker))

    async def rescue(self, worker: str, beat_no: int, lease: float = LEASE.total_seconds()) -> object:
        rescued = self.pulse.rescue(worker, beat_no, lease)
        return None if rescued is None else sorted(rescued)

    async def beat(self, worker: str) -> object:
        return self.pulse.beat(worker, draining=False, job_types=["a", "b"])

    async def leave(self, worker: str) -> object:
        return self.pulse.leave(worker)

    async def sweep(self) -> object:
        return await self.link.value("sweep_keys")

    async def limit(self, said: str) -> None:
        await self.store.rows("set_limit", said)

    async def cancel(self, ids: Sequence[str]) -> object:
        return await self.store.cancel([UUID(id) for id in ids])

    async def retry(self, ids: Sequence[str]) -> object:
        return await self.store.retry([UUID(id) for id in ids])

    async def idle(self, worker: str) -> None:
        await claiming.declare_idle(self.link, worker, ["default", "q"], ["a", "b"])

    async def busy(self, worker: str) -> None:
        await claiming.declare_busy(self.link, worker)

    async def load(self, ids: Sequence[str]) -> object:
        found = await self.store.load([UUID(id) for id in ids])
        return [None if each is None else _snapshot(each) for each in found]

    async def attempt(self, verb: str, *args: object) -> object:
        """Do something, and return what came of it, also if that is an error."""
        try:
            return await getattr(self, verb)(*args)
        except (DatabaseError, psycopg.Error, claiming.WorkerGone) as error:
            return type(error).__name__

    def state(self) -> State:
        """Everything there is, without what the real clock says."""
        raise NotImplementedError

    def notices(self) -> list[object]:
        """What was told to those who listen since the last time, without the names of whom it wakes."""
        raise NotImplementedError

    def hold(self, id: str) -> None:
        """Somebody's open transaction locks the row of a job."""
        raise NotImplementedError

    def let_go(self) -> None:
        """It ends."""
        raise NotImplementedError


def _told(payloads: Sequence[str]) -> list[object]:
    told: list[object] = []
    for payload in payloads:
        notice = json.loads(payload)
        if isinstance(notice, list):
            notice[3] = len(notice[3])
        told.append(notice)
    return sorted(told, key=repr)


_COLUMNS = {
    "jobs": "id run_at worker_id claim_no attempt failures crashes priority parked queue job_type key concurrency_key "
            "concurrency_limit",
    "concurrency_keys": "queue concurrency_key running",
    "finished_jobs": "id status claim_no attempt failures crashes worker_id result error",
    "attempts": "job_id claim_no worker_id attempt move next_run_at error",
    "cancel_requests": "job_id claim_no",
    "workers": "id beat_no given_up_at draining",
    "idle_workers": "worker_id queues job_types",
    "execution_states": "job_id job_type key saved_by claim_no state",
    "progress": "job_id claim_no done note result",
    "limits": "queue name max_running paused",
}  # fmt: skip


def _plain(name: str, value: Any) -> Any:
    if name == "given_up_at":
        return value is not None
    if isinstance(value, datetime):
        return round((value - EPOCH) / timedelta(microseconds=1))
    if name == "running":
        return sorted(map(str, value))
    if name in ("result", "error", "state") and value is not None:
        found = json.loads(value) if isinstance(value, bytes | str) else value
        return None if isinstance(found, dict) and found.get("type") == "worker lost" else found
    return value if value is None or isinstance(value, bool | int | float | list) else str(value)


def _claim(job: ClaimedJob) -> tuple[object, ...]:
    told = (job.config, job.trace_context, job.state, job.inherited_state)
    return (
        job.id, job.claim_no, job.job_type, job.queue, job.priority, job.run_at, job.attempt, job.failures, job.crashes,
        job.concurrency_key, *(json.loads(bytes(each)) for each in told),
    )  # fmt: skip


def _snapshot(found: JobSnapshot) -> tuple[object, ...]:
    stored = (found.config, found.result, found.state)
    config, result, state = (None if each is None else json.loads(bytes(each)) for each in stored)
    return (
        found.id, found.job_type, found.status, found.queue, found.priority, found.attempt, found.failures,
        found.crashes, found.claim_no, found.worker_id, found.run_at, found.key, found.concurrency_key, found.parked,
        config, result, state, found.started_at is None, found.finished_at is None,
        None if found.error is None else found.error.type,
        None if found.progress is None else (found.progress.done, found.progress.note),
    )  # fmt: skip


class PostgresSide(Side):
    """On PostgreSQL."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.store, self.link, self.pulse = scene.store, scene.link, scene.pulse
        self._ear = psycopg.connect(scene.dsn, autocommit=True)
        self._ear.execute(f"LISTEN {scene.statements.channel}")
        self._holder: psycopg.Connection | None = None

    async def close(self) -> None:
        self.let_go()
        self._ear.close()

    def state(self) -> State:
        state: State = {}
        for table, columns in _COLUMNS.items():
            names = columns.split()
            rows = self.scene.rows(f"SELECT {', '.join(names)} FROM {table}")
            state[table] = sorted((tuple(_plain(name, row[name]) for name in names) for row in rows), key=repr)
        return state

    def notices(self) -> list[object]:
        self._ear.execute("SELECT 1")
        return _told([notice.payload for notice in self._ear.notifies(timeout=0)])

    def hold(self, id: str) -> None:
        if self._holder is None:
            self._holder = self.scene.session()
        self._holder.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE SKIP LOCKED", [id])

    def let_go(self) -> None:
        if self._holder is not None:
            self._holder.rollback()


class MemorySide(Side):
    """In memory."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.store = Store("host=nowhere", wire=self.server)
        self.link = Link("host=nowhere", self.store.statements, DatabaseHealth("host=nowhere"), wire=self.server)
        self.pulse = Pulse("host=nowhere", self.store.statements, wire=self.server)
        self._heard: list[str] = []
        self.server.database.listeners.append(self._heard.append)
        self._holder: Any = None

    def state(self) -> State:
        database = self.server.database
        tables = {
            "jobs": database.jobs, "concurrency_keys": database.keys, "finished_jobs": database.finished,
            "attempts": database.attempts, "cancel_requests": database.cancels, "workers": database.workers,
            "idle_workers": database.idle, "progress": database.progress, "limits": database.limits,
            "execution_states": database.states,
        }  # fmt: skip
        state: State = {}
        for table, columns in _COLUMNS.items():
            rows = [(row.key, row.committed) for row in tables[table].rows.values() if row.committed is not None]
            state[table] = sorted((self._row(columns.split(), key, values) for key, values in rows), key=repr)
        return state

    def _row(self, names: list[str], key: Any, values: Values) -> tuple[Any, ...]:
        if "saved_by" in names:
            kind = {"job_id": key[1]} if key[0] == "job" else {"job_type": key[1], "key": key[2]}
            values = {"job_id": None, "job_type": None, "key": None, **values, **kind}
        elif "note" in names:
            values = {**values, "job_id": key}
        return tuple(_plain(name, values[name]) for name in names)

    def notices(self) -> list[object]:
        heard, self._heard[:] = list(self._heard), []
        return _told(heard)

    def hold(self, id: str) -> None:
        database = self.server.database
        if self._holder is None:
            self._holder = database.begin()
        row = database.jobs.rows.get(id)
        if row is not None:
            for _ in self._holder.lock(row, "update", skip=True):
                raise AssertionError("nobody waits")

    def let_go(self) -> None:
        if self._holder is not None:
            self.server.database.abort(self._holder)
            self._holder = None
