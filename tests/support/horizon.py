"""What keeps dead rows from being removed, for real: sessions, prepared transactions, standbys, slots."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
from psycopg import pq

from piecework.base.ids import JobId
from support.scene import DEADLINE, Scene, new_job

SECRET = "SELECT 'a long report' AS what"


async def make_dead_rows(scene: Scene, count: int) -> int:
    """Spawn and cancel so many jobs, and return how many dead rows there are then."""
    before = dead_rows(scene)
    jobs = [new_job() for _ in range(count)]
    async with scene.store_at(scene.dsn) as store:  # a session tells of what it did when it ends
        await store.spawn(jobs)
        await store.cancel([JobId(str(job.id)) for job in jobs])
    deadline = time.monotonic() + DEADLINE
    while dead_rows(scene) < before + count:
        assert time.monotonic() < deadline, f"{dead_rows(scene)} dead rows, not {before + count}"
        await asyncio.sleep(0.02)
    return dead_rows(scene)


def dead_rows(scene: Scene) -> int:
    return int(str(scene.value("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'jobs'::regclass")))


@contextmanager
def a_session(dsn: str, name: str = "forgetful") -> Iterator[int]:
    """A session idle in a transaction with a snapshot; yields its pid."""
    with psycopg.connect(dsn, application_name=name) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute(SECRET.encode())
        yield connection.info.backend_pid


@contextmanager
def a_prepared_transaction(dsn: str, gid: str = "it's left") -> Iterator[None]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        quoted = gid.replace("'", "''")
        connection.execute("BEGIN")
        connection.execute("SELECT pg_current_xact_id()")
        connection.execute(f"PREPARE TRANSACTION '{quoted}'".encode())
        yield
        connection.execute(f"ROLLBACK PREPARED '{quoted}'".encode())


@contextmanager
def a_standby(dsn: str, slot: str | None = None) -> Iterator[int]:
    """What a standby with hot_standby_feedback is to its primary; yields the pid of its sender."""
    conninfo = psycopg.conninfo.make_conninfo(dsn, replication="true", application_name="replica")
    with psycopg.connect(dsn, autocommit=True) as connection:
        [(lsn, xid)] = connection.execute("SELECT pg_current_wal_flush_lsn(), pg_current_xact_id()::text").fetchall()
    sender = pq.PGconn.connect(conninfo.encode())
    with closing(_Closing(sender)):
        by = f"SLOT {slot} " if slot else ""
        answer = sender.exec_(f"START_REPLICATION {by}PHYSICAL {lsn}".encode())
        assert answer.status == pq.ExecStatus.COPY_BOTH, answer.error_message
        # "Hot standby feedback": xmin and catalog_xmin with their epochs; no catalog_xmin.
        sender.put_copy_data(struct.pack("!cqIIII", b"h", 0, int(xid), 0, 0, 0))
        sender.flush()
        yield sender.backend_pid


class _Closing:
    def __init__(self, connection: pq.PGconn) -> None:
        self.close = connection.finish


async def until_pinned(scene: Scene, query: str) -> None:
    """Wait until the server has taken note of a standby's feedback."""
    deadline = time.monotonic() + DEADLINE
    while scene.value(query) is None:
        assert time.monotonic() < deadline, query
        await asyncio.sleep(0.02)
