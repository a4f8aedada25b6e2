"""One shape of tables in two sizes, made once per session.

Nearly all pending jobs are in one lane, nearly all that wait behind a concurrency key wait behind one. What a call asks
for has one size in both: what it does may not depend on the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psycopg
from store.plans.tables import ASKED, WORKERS, Tables, filler, prepare

from support.databases import Server

SMALL, HUGE = 10_000, {18: 1_000_000, 15: 200_000}
"""Pending jobs. With them grow what is parked, what runs, the keys in use and the history."""
HELD = 2 * ASKED

# Ids that rise with time, as those of real jobs do: the first digits are a number.
_ID = "overlay(gen_random_uuid()::text PLACING lpad(to_hex({}), 8, '0') FROM 1)::uuid"
_JOBS = f"""
    INSERT INTO jobs (id, run_at, queue, job_type, priority, config, concurrency_key, parked, worker_id, claim_no,
                      claimed_at)
    SELECT {_ID.format("%(from)s + n")}, clock_timestamp() + %(due)s::interval, 'default', %(job_type)s, 0, '{{}}',
           CASE %(key)s WHEN '' THEN NULL WHEN 'own' THEN %(job_type)s || ' ' || n ELSE %(key)s END, %(parked)s,
           %(worker)s, %(claim_no)s, CASE WHEN %(worker)s::uuid IS NOT NULL THEN clock_timestamp() END
    FROM generate_series(1, %(count)s) AS n
"""


@contextmanager
def tables_of(server: Server, backlog: int) -> Iterator[Tables]:
    """A database of this size, and sessions on it. Its statistics are those of some rows that came first."""
    with (
        server.filled(f"plans_{backlog}", partial(_fill, backlog)) as dsn,
        filler(dsn) as sql,
        psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.RawCursor) as session,
    ):
        t = Tables(sql, session, with_keys=True)
        find = "SELECT id FROM jobs WHERE worker_id = %s ORDER BY id"
        t.mine, t.keyed = (t.ids(find, WORKERS[name]) for name in ("mine", "keyed"))
        t.ended = t.ids("SELECT id FROM finished_jobs WHERE worker_id = %s ORDER BY id", WORKERS["mine"])
        t.waiting = t.ids(
            "SELECT id FROM jobs WHERE job_type = 'work' AND worker_id IS NULL AND concurrency_key IS NULL "
            "ORDER BY id LIMIT %s", HELD,
        )  # fmt: skip
        yield t


def _fill(backlog: int, dsn: str) -> None:
    with filler(dsn) as sql:
        prepare(sql)
        for days in range(2, 6):
            for table in ("finished_jobs", "attempts"):
                sql.execute(
                    f"CREATE TABLE {table}_old{days} PARTITION OF {table} FOR VALUES FROM "
                    f"(date_trunc('day', now(), 'UTC') - interval '{days} d') TO "
                    f"(date_trunc('day', now(), 'UTC') - interval '{days - 1} d')"
                )
        fill = _Filling(sql)
        for n in range(40):  # as many of each lane and of each key
            fill.jobs(25, job_type=f"t{n}")
            fill.jobs(25, job_type=f"t{n}", key="own")
        fill.history(1000)
        sql.execute("INSERT INTO concurrency_keys SELECT queue, concurrency_key FROM jobs WHERE concurrency_key <> ''")
        sql.execute("ANALYZE")
        fill.jobs(HELD, worker="mine")
        fill.jobs(HELD, worker="keyed", key="own", job_type="keyed")
        fill.jobs(HELD, parked=True, key="own", job_type="keyed")
        fill.jobs(ASKED, worker="dead")
        fill.jobs(ASKED, worker="dead with keys", key="own", job_type="dead")
        fill.history(HELD, worker="mine")
        fill.jobs(1, worker="other", key="hot")
        fill.jobs(backlog * 70 // 100)
        fill.jobs(backlog * 15 // 100, due="1 d")
        fill.jobs(backlog * 10 // 100, key="hot", parked=True)
        fill.jobs(backlog * 2 // 100, key="own")
        fill.jobs(backlog * 2 // 100, worker="other")
        fill.jobs(backlog * 1 // 100, worker="other", key="own", job_type="running")
        fill.history(backlog * 30 // 100)
        sql.execute(
            "INSERT INTO concurrency_keys SELECT queue, concurrency_key, array_agg(id) FROM jobs "
            "WHERE concurrency_key IS NOT NULL AND worker_id IS NOT NULL GROUP BY 1, 2"
        )


class _Filling:
    """Puts rows into a database, one after the other."""

    def __init__(self, sql: psycopg.Connection) -> None:
        self._sql = sql
        self._made = 0

    def jobs(
        self, count: int, *, job_type: str = "work", due: str = "-1 h", key: str = "", parked: bool = False,
        worker: str | None = None,
    ) -> None:  # fmt: skip
        """Jobs of one kind. `key`: that of all of them, or "own": each has one of its own."""
        self._sql.execute(
            _JOBS,
            {
                "from": self._made, "due": due, "job_type": job_type, "key": key, "parked": parked, "count": count,
                "worker": WORKERS[worker] if worker else None, "claim_no": 3 if worker else 0,
            },
        )  # fmt: skip
        self._made += count

    def history(self, count: int, *, worker: str = "other") -> None:
        """Jobs that ended, over six days, a tenth of them after a retry."""
        self._sql.execute(
            f"""
            WITH ended AS (
                INSERT INTO finished_jobs (
                    id, run_at, created_at, finished_at, worker_id, claim_no, attempt, failures, crashes, priority,
                    status, queue, job_type, config)
                SELECT {_ID.format("%(from)s + n")}, t, t, t - n %% 6 * interval '1 d', %(worker)s, 3, 1, 0, 0, 0,
                       CASE n %% 50 WHEN 0 THEN 'errored' ELSE 'completed' END, 'default', 'work', '{{}}'
                FROM generate_series(1, %(count)s) AS n, clock_timestamp() AS t
                RETURNING id, worker_id, finished_at)
            INSERT INTO attempts (job_id, claim_no, worker_id, attempt, move, ended_at)
            SELECT e.id, 1, e.worker_id, 1, 'retry', e.finished_at FROM ended e
            WHERE get_byte(uuid_send(e.id), 15) < 26
            """,
            {"from": self._made, "worker": WORKERS[worker], "count": count},
        )
        self._made += count
