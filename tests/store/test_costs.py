"""What a plain job costs the database: statements and WAL of its life. Features that are not used cost nothing."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import psycopg

from piecework.model.settlement import completed
from support.private_postgres import PrivatePostgres
from support.scene import NOW, Scene, new_job

JOBS, ROUNDS = 500, 6
FIRST_WORDS = "Create jobs in a transaction", "Claim due jobs for a worker", "Settle claims of a worker."
# As it was before there were keys, concurrency keys, states, progress, batches and completions of the user's own.
WAL_OF_A_SPAWN, WAL_OF_CLAIM_AND_SETTLE = 314, 664
"""Bytes per job: the median of the rounds, with 1 % for where a page happens to be full."""


async def test_a_plain_job_makes_three_statements_and_writes_no_more_wal_than_before_there_were_other_flavours(
    private_postgres: Callable[..., PrivatePostgres],
) -> None:
    server = private_postgres(
        autovacuum="off", full_page_writes="off", log_statement="all", wal_writer_delay="10s", checkpoint_timeout="1h"
    )
    async with Scene.open(server.dsn, migrate=True) as scene:
        worker, spawned, moved = scene.worker(), list[float](), list[float]()
        for _ in range(ROUNDS):
            before = _written(scene)
            await scene.spawn(*[new_job() for _ in range(JOBS)])
            between = _written(scene)
            jobs = await scene.claim(worker, JOBS)
            assert await scene.settle(worker, *[completed(job, NOW, None) for job in jobs]) == ["landed"] * JOBS
            spawned.append((between - before) / JOBS)
            moved.append((_written(scene) - between) / JOBS)
    print(f"WAL per job: spawn {spawned}, claim and settle {moved}")
    assert statistics.median(spawned) <= WAL_OF_A_SPAWN * 1.01
    assert statistics.median(moved) <= WAL_OF_CLAIM_AND_SETTLE * 1.01
    log = server.log.read_text()
    assert [log.count(f": -- {first}") for first in FIRST_WORDS] == [ROUNDS] * 3


def _written(scene: Scene) -> int:
    with psycopg.connect(scene.dsn, autocommit=True) as connection:
        row = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").fetchone()
    assert row is not None
    return int(row[0])
