"""Tables filled for the sake of plans: two sessions on one database, one that fills it, one that is looked at."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import psycopg

from piecework.base.ids import new_id
from piecework.store.statements import Statements

ASKED = 50
STATEMENTS = Statements("piecework")
# The same in all processes: they share a database that is filled once.
WORKERS = {
    name: str(uuid.uuid5(uuid.NAMESPACE_OID, name))
    for name in ("mine", "keyed", "dead", "dead with keys", "other", "gone")
}


def own_ids() -> list[UUID]:
    return [new_id() for _ in range(ASKED)]


@dataclass
class Tables:
    """One database, and two sessions: `sql` changes the tables, `session` is the one whose plans are looked at."""

    sql: psycopg.Connection
    session: psycopg.Connection
    with_keys: bool = False
    """Whether there are jobs with concurrency keys besides."""
    mine: list[UUID] = field(default_factory=own_ids)
    """Jobs that the worker `mine` holds, with claim number 3."""
    ended: list[UUID] = field(default_factory=own_ids)
    """Jobs that it has completed, with claim number 3."""
    waiting: list[UUID] = field(default_factory=own_ids)
    keyed: list[UUID] = field(default_factory=own_ids)
    """Jobs with a concurrency key of their own that the worker `keyed` holds; each has a sibling that is parked."""
    some: slice = field(default_factory=lambda: slice(0, ASKED))
    """Which of them are asked for: others are measured than those on which the plans were made."""

    def fill(self, rows: int) -> None:
        """Due, future, unknown and running jobs, and a history, `rows` of each or more."""
        jobs = "INSERT INTO jobs (id, run_at, queue, job_type, priority, config, worker_id, claim_no) SELECT id, "
        rest = ", '{}', NULL, 0 FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, %s)) AS n RETURNING id"
        self.waiting = self.ids(jobs + "clock_timestamp() - interval '1 h', 'default', 'work', 0" + rest, rows)
        self.ids(jobs + "clock_timestamp() - interval '1 h', 'default', 'unknown', -5" + rest, rows)
        self.ids(jobs + "clock_timestamp() + interval '1 h', 'default', 'work', 0" + rest, 2 * rows)
        running = (
            "INSERT INTO jobs (id, job_type, config, worker_id, claim_no, claimed_at) "
            "SELECT gen_random_uuid(), 'work', '{}', %s, 3, clock_timestamp() FROM generate_series(1, %s) RETURNING id"
        )
        self.mine = self.ids(running, WORKERS["mine"], rows // 4)
        self.ids(running, WORKERS["other"], rows // 2)
        self.ids(running, WORKERS["dead"], ASKED)
        if self.with_keys:
            self._fill_keys(rows)
        self.ended = self.ids(
            "INSERT INTO finished_jobs (id, run_at, created_at, finished_at, worker_id, claim_no, attempt, failures, "
            "crashes, priority, status, queue, job_type, config) SELECT gen_random_uuid(), t, t, t, %s, 3, 1, 0, 0, 0, "
            "'completed', 'default', 'work', '{}' FROM generate_series(1, %s), clock_timestamp() AS t RETURNING id",
            WORKERS["mine"], rows,
        )  # fmt: skip
        self.ids(
            "INSERT INTO attempts (job_id, claim_no, worker_id, attempt, move, ended_at) SELECT gen_random_uuid(), 3, "
            "%s, 1, 'release', clock_timestamp() FROM generate_series(1, %s) RETURNING job_id",
            WORKERS["mine"], rows,
        )  # fmt: skip

    def _fill_keys(self, rows: int) -> None:
        """Jobs with keys: due, each its own; parked behind one; running, siblings parked; due and of one free key."""
        jobs = (
            "INSERT INTO jobs (id, run_at, job_type, config, concurrency_key, parked, worker_id, claim_no) "
            "SELECT gen_random_uuid(), clock_timestamp() - interval '1 h', 'work', '{}', "
        )
        many = " FROM generate_series(1, %s) AS n RETURNING id"
        self.ids(jobs + "gen_random_uuid(), false, NULL, 0" + many, rows)
        self.ids(jobs + "'hot', true, NULL, 0" + many, rows)
        self.ids(jobs + "'hot', false, %s, 3" + many, WORKERS["keyed"], 1)
        chained = jobs.replace("'work'", "'chained'") + "'long', n %% 2 = 0, NULL, 0"
        self.ids(chained + many, rows)
        self.ids(chained.replace("- interval", "+ interval") + many, rows)
        self.keyed = self.ids(jobs + "gen_random_uuid(), false, %s, 3" + many, WORKERS["keyed"], rows // 4)
        self.ids(jobs + "gen_random_uuid(), false, %s, 3" + many, WORKERS["dead with keys"], ASKED)
        self.sql.execute(
            "INSERT INTO concurrency_keys (queue, concurrency_key, running) SELECT queue, concurrency_key, "
            "array_agg(id) FROM jobs WHERE concurrency_key IS NOT NULL AND worker_id IS NOT NULL GROUP BY 1, 2 "
            "ON CONFLICT DO NOTHING"
        )
        self.sql.execute(
            "INSERT INTO jobs (id, run_at, job_type, config, concurrency_key, parked) SELECT gen_random_uuid(), "
            "clock_timestamp() - interval '1 h', 'work', '{}', concurrency_key, true FROM jobs WHERE id = ANY (%s)",
            [self.keyed],
        )

    def place(self, id: UUID) -> list[object]:
        """That of a job in the order of its lane, as a claim takes it."""
        find = "SELECT (date_part('epoch', run_at) * 1000000)::bigint, id FROM jobs WHERE id = %s"
        return [*(self.sql.execute(find, [id]).fetchone() or (0, id))]

    def newest(self, which: str) -> list[object]:
        """The newest job of which this holds."""
        [job] = self.ids(f"SELECT id FROM jobs WHERE {which} ORDER BY id DESC LIMIT 1")
        return [job]

    def ids(self, statement: str, *params: object) -> list[UUID]:
        return [id for (id,) in self.sql.execute(statement, params).fetchall()]


@contextmanager
def filler(dsn: str) -> Iterator[psycopg.Connection]:
    """A session that fills a database: nobody vacuums or analyzes but the test, and the workers of `WORKERS` sleep."""
    with psycopg.connect(dsn, autocommit=True) as sql:
        sql.execute("SET search_path = piecework")
        yield sql


def prepare(sql: psycopg.Connection) -> None:
    """Turn autovacuum off, and register the workers, all of them idle."""
    tables = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'piecework'::regnamespace"
    for (table,) in sql.execute(tables).fetchall():
        sql.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    for id in WORKERS.values():
        sql.execute("INSERT INTO workers (id, pid, host, lease, stop, exit, queues, job_types, version) "
                    "VALUES (%s, 1, 'h', '1 s', '1 s', '1 s', '{}', '{}', '0')", [id])  # fmt: skip
        sleeps = "INSERT INTO idle_workers (worker_id, queues, job_types) VALUES (%s, '{default}', '{work}')"
        sql.execute(sleeps, [id])


def believe(sql: psycopg.Connection, rows: int) -> None:
    """Make the planner think that there are so many rows on each page."""
    sql.execute("ANALYZE jobs, finished_jobs, attempts, concurrency_keys")
    sql.execute(
        "UPDATE pg_class SET reltuples = %s, relpages = 1 WHERE relnamespace = 'piecework'::regnamespace "
        "AND relkind = 'r' AND relname ~ '^(jobs|finished_jobs|attempts|concurrency_keys)'",
        [rows],
    )
