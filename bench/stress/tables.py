"""What fills the contestants' tables by SQL: jobs that are due or not yet, and jobs that have ended long ago."""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import psycopg

from bench.system import TEXT

PART = 250_000  # rows of one statement
AT_ONCE = 2
"""Statements at a time."""
LIMIT = 600.0  # seconds for one statement
REPLICA = "-c session_replication_role=replica"
"""Triggers stay out of it: events and notices of jobs that are only there to be in the way."""


class Tables(NamedTuple):
    """The statements of a contestant: `count` rows from `first` on, due `delay` seconds from an hour ago."""

    pending: str
    finished: str | None
    """Of completed jobs, spread over the last day; without one it keeps no history."""


TABLES = {
    "piecework": Tables(
        """
        INSERT INTO piecework.jobs (id, job_type, config, run_at, concurrency_key)
        SELECT uuidv7(), (%(types)s::text[])[1 + g %% cardinality(%(types)s::text[])], %(config)s::jsonb,
               now() - interval '1 hour' + %(delay)s * interval '1 second' + g * interval '1 microsecond',
               'key-' || g %% %(keys)s::integer
        FROM generate_series(%(first)s::integer, %(last)s::integer) AS g""",
        """
        INSERT INTO piecework.finished_jobs (
            id, run_at, created_at, started_at, finished_at, worker_id, claim_no, attempt, failures, crashes, priority,
            status, queue, job_type, config)
        SELECT uuidv7(at - now()), at, at, at, at, '01234567-89ab-7def-8123-456789abcdef', 1, 1, 0, 0, 0,
               'completed', 'default', 'noop', %(config)s::jsonb
        FROM generate_series(%(first)s::integer, %(last)s::integer) AS g
        CROSS JOIN LATERAL (SELECT now() - interval '1 day' * (1 - g / %(total)s::float)) AS ended (at)""",
    ),
    "Graphile Worker": Tables(
        """
        WITH task AS (
            INSERT INTO graphile_worker._private_tasks (identifier) VALUES ('noop')
            ON CONFLICT (identifier) DO UPDATE SET identifier = excluded.identifier RETURNING id)
        INSERT INTO graphile_worker._private_jobs (task_id, payload, run_at)
        SELECT task.id, %(config)s::json,
               now() - interval '1 hour' + %(delay)s * interval '1 second' + g * interval '1 microsecond'
        FROM task, generate_series(%(first)s::integer, %(last)s::integer) AS g""",
        None,
    ),
    "pg-boss": Tables(
        """
        INSERT INTO pgboss.job (name, data, start_after, created_on, policy)
        SELECT 'bench', %(config)s::jsonb, due.at, due.at, 'standard'
        FROM generate_series(%(first)s::integer, %(last)s::integer) AS g
        CROSS JOIN LATERAL (
            SELECT now() - interval '1 hour' + %(delay)s * interval '1 second' + g * interval '1 microsecond'
        ) AS due (at)""",
        """
        INSERT INTO pgboss.job (name, data, state, created_on, start_after, started_on, completed_on, policy)
        SELECT 'bench', %(config)s::jsonb, 'completed', at, at, at, at, 'standard'
        FROM generate_series(%(first)s::integer, %(last)s::integer) AS g
        CROSS JOIN LATERAL (SELECT now() - interval '1 day' * (1 - g / %(total)s::float)) AS ended (at)""",
    ),
    "PgQueuer": Tables(
        """
        INSERT INTO pgqueuer (priority, status, entrypoint, payload, execute_after)
        SELECT 0, 'queued', 'noop', convert_to(%(config)s::text, 'UTF8'),
               now() - interval '1 hour' + %(delay)s * interval '1 second'
        FROM generate_series(%(first)s::integer, %(last)s::integer) AS g""",
        """
        INSERT INTO pgqueuer_log (created, job_id, status, priority, entrypoint, aggregated)
        SELECT now() - interval '1 day' * (1 - g / %(total)s::float), -g, 'successful', 0, 'noop', true
        FROM generate_series(%(first)s::integer, %(last)s::integer) AS g""",
    ),
    "Chancy": Tables(
        """
        INSERT INTO chancy_jobs (
            id, queue, func, kwargs, state, priority, max_attempts, limits, meta, created_at, scheduled_at)
        SELECT gen_random_uuid(), 'bench', 'chancy_task.noop', %(config)s::json, 'pending', 0, 1, '[]',
               '{}', now(), now() - interval '1 hour' + %(delay)s * interval '1 second'
        FROM generate_series(%(first)s::integer, %(last)s::integer) AS g""",
        """
        INSERT INTO chancy_jobs (
            id, queue, func, kwargs, state, priority, attempts, max_attempts, limits, meta, created_at, scheduled_at,
            started_at, completed_at)
        SELECT gen_random_uuid(), 'bench', 'chancy_task.noop', %(config)s::json, 'succeeded', 0, 1, 1, '[]',
               '{}', at, at, at, at
        FROM generate_series(%(first)s::integer, %(last)s::integer) AS g
        CROSS JOIN LATERAL (SELECT now() - interval '1 day' * (1 - g / %(total)s::float)) AS ended (at)""",
    ),
    "Procrastinate": Tables(
        """
        INSERT INTO procrastinate_jobs (queue_name, task_name, priority, args, status, scheduled_at)
        SELECT 'bench', 'noop', 0, %(config)s::jsonb, 'todo',
               nullif(%(delay)s::float, 0) * interval '1 second' - interval '1 hour' + now()
        FROM generate_series(%(first)s::integer, %(last)s::integer) AS g""",
        """
        INSERT INTO procrastinate_jobs (queue_name, task_name, priority, args, status, attempts)
        SELECT 'bench', 'noop', 0, %(config)s::jsonb, 'succeeded', 1
        FROM generate_series(%(first)s::integer, %(last)s::integer) AS g""",
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Filling:
    """How jobs are made; types and keys are piecework's alone."""

    delay: float = 0.0
    """Seconds from an hour ago until they are due."""
    text: str = TEXT
    types: Sequence[str] = ("noop",)
    """Job types, by turns."""
    keys: int | None = None
    """So many concurrency keys, by turns."""


def fill(name: str, dsn: str, count: int, filling: Filling | None = None) -> float:
    """Make jobs of a contestant; return the seconds that it took."""
    filling = filling or Filling()
    given = {
        "delay": filling.delay, "config": _config(filling.text), "types": list(filling.types), "keys": filling.keys
    }  # fmt: skip
    return _insert(dsn, TABLES[name].pending, count, given)


def fill_history(name: str, dsn: str, count: int) -> float:
    """Make jobs that have ended; return the seconds that it took."""
    statement = TABLES[name].finished
    assert statement is not None, f"{name} keeps no history"
    return _insert(dsn, statement, count, {"config": _config(TEXT)})


def vacuum(dsn: str) -> None:
    """Leave the tables vacuumed and analyzed; not the catalogs, which takes longer than all else."""
    tables = "SELECT string_agg(relid::regclass::text, ', ') FROM pg_stat_user_tables"
    with psycopg.connect(dsn, autocommit=True) as conn:
        [(names,)] = conn.execute(tables).fetchall()
        conn.execute(f"VACUUM (ANALYZE, SKIP_DATABASE_STATS) {names}".encode())


def text_of(size: int) -> str:
    """A text that does not compress; with it a stored config takes about `size` bytes."""
    return base64.b64encode(random.Random(size).randbytes(size)).decode()[: size - 28]


def _config(text: str) -> str:
    return json.dumps({"number": 0, "text": text, "sent": None})


def _insert(dsn: str, statement: str, count: int, given: dict[str, object]) -> float:
    start = time.monotonic()

    def part(first: int) -> None:
        bounds = {"first": first, "last": min(first + PART, count) - 1, "total": count}
        with psycopg.connect(dsn, autocommit=True, options=f"{REPLICA} -c statement_timeout={LIMIT:.0f}s") as conn:
            conn.execute(statement.encode(), {**given, **bounds})

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(part, range(0, count, PART)))
    return time.monotonic() - start
