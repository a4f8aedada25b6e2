"""What a job costs the database: statements and WAL of its life. Features that are not used cost nothing."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec
import psycopg
from msgspec import structs

from piecework.model.completion import Reschedule
from piecework.model.job import ClaimedJob
from piecework.model.retry import RetrySettings
from piecework.model.settlement import Settlement, completed, failed, released, rescheduled
from piecework.store.run_writes import saved_state
from support.private_postgres import PrivatePostgres
from support.scene import KEYED_LANE, LANE, NOW, Scene, new_job

JOBS, ROUNDS = 500, 6
FIRST_WORDS = "Create jobs in a transaction", "Claim due jobs for a worker", "Settle claims of a worker."
# As it was before there were keys, concurrency keys, states, progress, batches and completions of the user's own.
WAL_OF_A_SPAWN, WAL_OF_CLAIM_AND_SETTLE = 314, 664
"""Bytes per job: the median of the rounds, with 1 % for where a page happens to be full."""


NO_WAIT = timedelta(0)


def completes(job: ClaimedJob) -> Settlement:
    return completed(job, NOW, None)


def fails(job: ClaimedJob) -> Settlement:
    return structs.replace(failed(job, RetrySettings(), (), NOW, NO_WAIT, ValueError("no"), 0.0), delay=NO_WAIT)


@dataclass(frozen=True)
class Flavour:
    """Jobs of one kind, how the claims of them end, and what that may cost."""

    name: str
    spawn: int
    """Bytes of WAL for the spawn of a job."""
    move: int
    """Bytes of WAL for its claim, what it writes, and its settle."""
    ends: Callable[[ClaimedJob], Settlement] = completes
    fields: dict[str, str] = field(default_factory=dict)
    """Of the job, with a number put in."""
    saves: bool = False
    """Whether each run saves a state, in a statement of its own."""


FLAVOURS = [
    Flavour("with a key", 460, 876, fields={"key": "a key {}"}),
    Flavour("with a concurrency key", 478, 1332, fields={"concurrency_key": "a key {}"}),
    Flavour("that is retried", 314, 976, fails),
    Flavour("that is rescheduled", 314, 921, lambda job: rescheduled(job, NOW, Reschedule(NO_WAIT))),
    Flavour("that is handed back", 314, 911, released),
    Flavour("that saves a state", 314, 1207, saves=True),
]


async def test_each_flavour_of_job_makes_as_many_statements_and_as_much_wal_as_it_is_known_to(
    private_postgres: Callable[..., PrivatePostgres],
) -> None:
    server = private_postgres(
        autovacuum="off", full_page_writes="off", log_statement="all", wal_writer_delay="10s", checkpoint_timeout="1h"
    )
    costs: dict[str, tuple[float, ...]] = {}
    async with Scene.open(server.dsn, migrate=True) as scene:
        for flavour in FLAVOURS:
            rounds = [await one_round(scene, flavour, server, n) for n in range(3)]
            costs[flavour.name] = tuple(map(statistics.median, zip(*rounds, strict=True)))
    print(f"WAL per job of spawn, and of claim and settle; statements: {costs}")
    over = {
        flavour.name: cost
        for flavour in FLAVOURS
        if (cost := costs[flavour.name])[0] > flavour.spawn * 1.03
        or cost[1] > flavour.move * 1.03
        or cost[2] > 3 + flavour.saves * JOBS
    }
    assert over == {}


async def one_round(scene: Scene, flavour: Flavour, server: PrivatePostgres, n: int) -> tuple[float, float, int]:
    """Spawn, claim and settle as many jobs, and return the WAL per job of both and the statements of all of it."""
    worker, log = scene.worker(), server.log
    lane = KEYED_LANE if "concurrency_key" in flavour.fields else LANE
    before, said = _written(scene), log.read_text().count(": -- ")
    await scene.spawn(
        *[new_job(**{name: text.format(n * JOBS + m) for name, text in flavour.fields.items()}) for m in range(JOBS)]
    )
    between = _written(scene)
    jobs = (await scene.claim_keyed(worker, JOBS)).jobs if lane.keyed else await scene.claim(worker, JOBS)
    assert len(jobs) == JOBS
    if flavour.saves:
        for job in jobs:
            await scene.store.write(saved_state(worker, job, msgspec.Raw(b"[1, 2, 3]"), inherits=False))
    ends = [flavour.ends(job) for job in jobs]
    assert await scene.settle(worker, *ends) == ["landed"] * JOBS
    after, statements = _written(scene), log.read_text().count(": -- ") - said
    if ends[0].move != "complete":  # the next round finds none of them
        jobs = await scene.claim(worker, JOBS)
        assert await scene.settle(worker, *[completes(job) for job in jobs]) == ["landed"] * JOBS
    return (between - before) / JOBS, (after - between) / JOBS, statements


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
