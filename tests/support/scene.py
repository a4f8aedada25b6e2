"""The store as a test drives it: the same calls as the engine's, and an onlooker's connection that sees the tables."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
import psycopg
from psycopg.rows import dict_row

from piecework.base.ids import new_id
from piecework.model.job import ClaimedJob, NewJob
from piecework.model.lanes import Lane
from piecework.model.settlement import Settlement
from piecework.store import claiming, settling
from piecework.store.link import DatabaseHealth, Link
from piecework.store.liveness import Pulse, WorkerRow
from piecework.store.store import Store

LANE = Lane("default", "work", 0)
KEYED_LANE = Lane("default", "work", 0, keyed=True)
NOW = 1000.0
"""What the loop's clock shows at every settle."""
DEADLINE = 20.0

Row = dict[str, object]
Dump = dict[str, list[Row]]


def new_job(**fields: object) -> NewJob:
    """A job of the type `work` with an empty config, unless said otherwise."""
    values: dict[str, object] = {"id": new_id(), "job_type": "work", "config": msgspec.Raw(b"{}"), **fields}
    with contextlib.suppress(ValueError):
        values["id"] = UUID(str(values["id"]))
    return NewJob(**values)  # type: ignore[arg-type]


class Scene:
    """One schema: an open store, a worker's connections, and `sql`, a connection in autocommit mode to look."""

    def __init__(self, dsn: str, schema: str = "piecework") -> None:
        self.dsn = dsn
        self.store = Store(dsn, schema=schema)
        self.statements = self.store.statements
        self.health = DatabaseHealth(dsn)
        self.link = Link(self.store.dsn, self.statements, self.health)
        self.pulse = Pulse(self.store.dsn, self.statements)
        self.sql = psycopg.connect(dsn, autocommit=True, row_factory=dict_row)
        self.sql.execute(psycopg.sql.SQL("SET search_path = {}").format(psycopg.sql.Identifier(schema)))
        self.freed: list[Lane] = []
        """Into which jobs came back with the last settle."""
        self._sessions: list[psycopg.Connection] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str, schema: str = "piecework", *, migrate: bool = False) -> AsyncIterator[Scene]:
        scene = cls(dsn, schema)
        try:
            await scene.store.open(migrate=migrate)
            yield scene
        finally:
            for session in scene._sessions:
                session.close()
            await scene.link.drop()
            await scene.store.close()
            scene.pulse.close()
            scene.sql.close()

    @asynccontextmanager
    async def store_at(self, dsn: str) -> AsyncIterator[Store]:
        """Another open store of this schema."""
        store = Store(dsn, schema=self.store.schema)
        try:
            await store.open(migrate=False)
            yield store
        finally:
            await store.close()

    def session(self, **settings: str) -> psycopg.Connection:
        """Somebody's connection, on which the first statement begins a transaction. `$1` is a parameter."""
        session = psycopg.connect(self.dsn, cursor_factory=psycopg.RawCursor, options=_options(settings))
        self._sessions.append(session)
        session.execute(f"SET search_path = {_quoted(self.statements.schema)}")
        session.commit()
        return session

    def another_link(self) -> Link:
        """A further connection of a worker."""
        return Link(self.store.dsn, self.statements, self.health)

    # what the engine does

    async def spawn(self, *jobs: NewJob) -> list[str]:
        await self.store.spawn(jobs)
        return [str(job.id) for job in jobs]

    async def spawn_many(self, count: int, **fields: object) -> list[str]:
        return await self.spawn(*[new_job(**fields) for _ in range(count)])

    def worker(self, *, lease: float = 18.0) -> str:
        """Register a worker and return its id."""
        id = str(new_id())
        seconds = timedelta(seconds=lease)
        self.pulse.register(
            WorkerRow(
                id=id, pid=os.getpid(), host="here", lease=seconds, stop=seconds * 0.7, exit=seconds * 0.9,
                queues=["default"], job_types=["work"], version="0",
            )
        )  # fmt: skip
        return id

    async def claim(
        self, worker: str, most: int = 100, *lanes: tuple[Lane, int], link: Link | None = None
    ) -> list[ClaimedJob]:
        return (await claiming.claim(link or self.link, worker, lanes or [(LANE, most)], most)).jobs

    async def claim_keyed(
        self, worker: str, most: int = 100, *lanes: tuple[Lane, int], link: Link | None = None
    ) -> claiming.Keyed:
        return await claiming.claim_keyed(link or self.link, worker, lanes or [(KEYED_LANE, most)], most)

    async def look(
        self, queues: Sequence[str] = ("default",), job_types: Sequence[str] = ("work",)
    ) -> dict[Lane, float]:
        """The lanes that a look finds, with the seconds until their first job is due."""
        return (await claiming.look(self.link, str(new_id()), queues, job_types)).lanes

    async def sleeper(
        self, worker: str = "", *, queues: Sequence[str] = ("default",), job_types: Sequence[str] = ("work",)
    ) -> str:
        """Declare a worker idle, a new one unless said otherwise, and return its id."""
        worker = worker or self.worker()
        await claiming.declare_idle(self.link, worker, queues, job_types)
        return worker

    async def settle(self, worker: str, *settlements: Settlement, link: Link | None = None) -> list[settling.Answer]:
        answers, self.freed = await settling.settle(link or self.link, worker, settlements, NOW)
        return answers

    async def running(self, count: int = 1, **fields: object) -> tuple[str, list[ClaimedJob]]:
        """Spawn jobs and have a new worker claim them."""
        worker = self.worker()
        ids = await self.spawn_many(count, **fields)
        jobs = await self.claim(worker, count)
        assert sorted(job.id for job in jobs) == sorted(ids)
        return worker, jobs

    # what an onlooker sees

    def clear(self) -> None:
        """Leave the schema as a migration leaves it."""
        self.sql.execute(
            "DELETE FROM jobs; DELETE FROM finished_jobs; DELETE FROM attempts; DELETE FROM workers; "
            "DELETE FROM idle_workers; DELETE FROM cancel_requests; DELETE FROM concurrency_keys; DELETE FROM limits; "
            "DELETE FROM execution_states; DELETE FROM progress; DELETE FROM guards; DELETE FROM clock; "
            "UPDATE duties SET ran_by = NULL, "
            "next_at = clock_timestamp() + CASE WHEN name = 'horizon' THEN every ELSE interval '0' END"
        )

    def clock(self) -> datetime:
        return self.value("SELECT clock_timestamp()")  # type: ignore[return-value]

    def value(self, query: str, *params: object) -> object:
        row = self.sql.execute(query, params).fetchone()  # type: ignore[arg-type]
        assert row is not None
        return next(iter(row.values()))

    def rows(self, query: str, *params: object) -> list[Row]:
        return self.sql.execute(query, params).fetchall()  # type: ignore[arg-type]

    def job(self, id: str) -> Row:
        [row] = self.rows("SELECT * FROM jobs WHERE id = %s", id)
        return row

    def finished(self, id: str) -> Row:
        [row] = self.rows("SELECT * FROM finished_jobs WHERE id = %s", id)
        return row

    def attempts(self, id: str) -> list[Row]:
        return self.rows("SELECT * FROM attempts WHERE job_id = %s ORDER BY claim_no, ended_at", id)

    def leaves(self) -> list[str]:
        """The partitions of the history, by name."""
        found = self.rows(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = ANY (ARRAY['finished_jobs', 'attempts']::regclass[]) ORDER BY c.relname"
        )
        return [str(row["relname"]) for row in found]

    def dump(self) -> Dump:
        """Every row of every table that says where jobs are, to be compared whole."""
        keys = {"jobs": "id", "finished_jobs": "id, claim_no", "attempts": "job_id, claim_no, ended_at"}
        return {
            table: self.rows(f"SELECT t.*, t.xmin::text AS xmin FROM {table} t ORDER BY {key}")
            for table, key in keys.items()
        }

    async def until_blocked(self, count: int = 1) -> None:
        """Return when so many sessions of this database wait for a lock that another session holds."""
        deadline = time.monotonic() + DEADLINE
        while self.blocked() < count:
            assert time.monotonic() < deadline, f"{self.blocked()} sessions wait, not {count}"
            await asyncio.sleep(0.002)

    def blocked(self) -> int:
        return self.value(  # type: ignore[return-value]
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND cardinality(pg_blocking_pids(pid)) > 0"
        )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _options(settings: dict[str, str]) -> str:
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def uuids(jobs: Sequence[ClaimedJob]) -> list[UUID]:
    return [UUID(job.id) for job in jobs]
