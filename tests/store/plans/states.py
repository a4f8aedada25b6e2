"""The states in which the tables are put: what the planner believes of them, and what vacuum has left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from store.plans.tables import WORKERS, Tables, believe

# Rows that are put into a table and deleted: the table, its columns, their values, and which rows they are.
_COMING_AND_GOING = [
    ("concurrency_keys", "queue, concurrency_key", "'default', 'gone ' || n", "concurrency_key LIKE 'gone %'"),
    ("progress", "job_id, claim_no", "gen_random_uuid(), 1", "true"),
    ("execution_states", "job_id, saved_by, claim_no, state", "gen_random_uuid(), gen_random_uuid(), 1, '1'", "true"),
    ("cancel_requests", "job_id, claim_no", "gen_random_uuid(), 1", "true"),
    ("idle_workers", "worker_id, queues, job_types", "gen_random_uuid(), '{gone}', '{}'", "queues = '{gone}'"),
]
_PLAIN = "concurrency_key IS NULL"
State = Callable[[Tables], None]
TABLES = "'^(jobs|finished_jobs|attempts|concurrency_keys|progress|execution_states|cancel_requests|idle_workers)'"
OURS = f"relnamespace = 'piecework'::regnamespace AND relname ~ {TABLES}"


def with_statistics_of_another_shape(_: Tables) -> None:
    """As they are made: those of a thousand rows, as many of each lane and of each key; nothing ran."""


def analyzed(t: Tables) -> None:
    t.sql.execute("ANALYZE")


def never_analyzed(t: Tables) -> None:
    _forget(t)
    t.sql.execute(f"UPDATE pg_class SET reltuples = -1, relpages = 0, relallvisible = 0 WHERE {OURS}")


def vacuumed_while_empty(t: Tables) -> None:
    _forget(t)
    t.sql.execute(f"UPDATE pg_class SET reltuples = 0, relpages = 0, relallvisible = 0 WHERE {OURS}")


def believed_empty(t: Tables) -> None:
    believe(t.sql, 0)


def believed_huge(t: Tables) -> None:
    believe(t.sql, 10_000_000)


STATES: list[State] = [
    with_statistics_of_another_shape, analyzed, never_analyzed, vacuumed_while_empty, believed_empty, believed_huge,
]  # fmt: skip


def _forget(t: Tables) -> None:
    t.sql.execute(
        "SET allow_system_table_mods = on; DELETE FROM pg_statistic WHERE starelid IN "
        f"(SELECT oid FROM pg_class WHERE {OURS}); RESET allow_system_table_mods"
    )


@contextmanager
def bloated(t: Tables, dead: int) -> Iterator[None]:
    """So many dead rows that nobody may remove: in front of both lanes and of the parked, of the worker `dead`, and in
    each table whose rows come and go."""
    with psycopg.connect(t.sql.info.dsn) as pinning:
        pinning.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        pinning.execute("SELECT 1")
        for front in (_PLAIN, "concurrency_key LIKE 'work %%' AND NOT parked", "concurrency_key = 'hot' AND parked"):
            t.sql.execute(
                "WITH taken AS (UPDATE jobs SET worker_id = %s WHERE ctid = ANY (ARRAY(SELECT ctid FROM jobs WHERE "
                f"job_type = 'work' AND worker_id IS NULL AND {front} ORDER BY run_at, id LIMIT %s)) RETURNING id) "
                "SELECT count(*) FROM taken",
                [WORKERS["dead"], dead],
            )
        t.sql.execute("DELETE FROM jobs WHERE worker_id = %s AND claim_no = 0", [WORKERS["dead"]])
        for rows in _COMING_AND_GOING:
            table, columns, values, which = rows
            t.sql.execute(f"INSERT INTO {table} ({columns}) SELECT {values} FROM generate_series(1, %s) AS n", [dead])
            t.sql.execute(f"DELETE FROM {table} WHERE {which}")
        t.waiting = t.ids(f"SELECT id FROM jobs WHERE job_type = 'work' AND worker_id IS NULL AND {_PLAIN} "
                          "ORDER BY run_at, id LIMIT %s", len(t.waiting))  # fmt: skip
        yield
