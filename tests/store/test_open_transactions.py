"""A transaction that somebody left open delays nobody. What waits for a lock here fails at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import msgspec
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from piecework.model.settlement import Settlement, completed, released
from support.scene import NOW, Scene, new_job, uuids

pytestmark = pytest.mark.postgres(18, 15)


@asynccontextmanager
async def hasty_on(scene: Scene) -> AsyncIterator[Scene]:
    """The same schema, through connections that wait for no lock."""
    async with Scene.open(make_conninfo(scene.dsn, options="-c lock_timeout=1")) as hasty:
        yield hasty


def spawned(scene: Scene, user: psycopg.Connection) -> None:
    jobs = [new_job(), new_job(chosen=True)]
    user.execute(scene.statements.sql("spawn"), [msgspec.json.encode(jobs).decode()])


def looked(scene: Scene, user: psycopg.Connection) -> None:
    user.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    for table in ("jobs", "finished_jobs", "attempts", "workers", "idle_workers", "duties", "migrations"):
        user.execute(f"SELECT * FROM {table}")


def held_a_running_job(scene: Scene, user: psycopg.Connection) -> None:
    [[id]] = user.execute("SELECT id FROM jobs WHERE worker_id IS NOT NULL LIMIT 1").fetchall()
    user.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", [id])


def held_a_waiting_job(scene: Scene, user: psycopg.Connection) -> None:
    [[id]] = user.execute("SELECT id FROM jobs WHERE worker_id IS NULL LIMIT 1").fetchall()
    user.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", [id])


def completed_a_job(scene: Scene, user: psycopg.Connection) -> None:
    [[id, worker]] = user.execute("SELECT id, worker_id FROM jobs WHERE worker_id IS NOT NULL LIMIT 1").fetchall()
    user.execute(scene.statements.sql("settle"), [worker, [id], [1], ["complete"], [0], None])


def retried_a_job(scene: Scene, user: psycopg.Connection) -> None:
    [[id, worker]] = user.execute("SELECT id, worker_id FROM jobs WHERE worker_id IS NOT NULL LIMIT 1").fetchall()
    details = '[{"attempt": 2, "failures": 1, "crashes": 0}]'
    user.execute(scene.statements.sql("settle"), [worker, [id], [1], ["retry"], [0], details])


def cancelled_and_brought_back(scene: Scene, user: psycopg.Connection) -> None:
    [[id]] = user.execute("SELECT id FROM jobs WHERE worker_id IS NULL LIMIT 1").fetchall()
    user.execute(scene.statements.sql("cancel_jobs"), [[id]])
    [[id]] = user.execute("SELECT id FROM finished_jobs WHERE status = 'completed' LIMIT 1").fetchall()
    user.execute(scene.statements.sql("retry_jobs"), [[id], "-infinity"])


@pytest.mark.parametrize(
    "leave_open",
    [spawned, looked, held_a_running_job, held_a_waiting_job, completed_a_job, retried_a_job,
     cancelled_and_brought_back],
    ids=lambda leave_open: leave_open.__name__,
)  # fmt: skip
async def test_an_open_transaction_delays_nobody(scene: Scene, leave_open: Callable[..., None]) -> None:
    worker, jobs = await scene.running(6)
    await scene.settle(worker, completed(jobs[5], NOW, None))
    waiting = await scene.spawn_many(4, delay=0)
    user = scene.session()
    leave_open(scene, user)
    async with hasty_on(scene) as hasty:
        [id] = await hasty.spawn(new_job(delay=0))
        await hasty.spawn(new_job(chosen=True, delay=3_600_000_000))
        assert await hasty.look() != {}
        other = hasty.worker()
        claimed = await hasty.claim(other)
        assert {id, *waiting} >= {job.id for job in claimed}
        assert len(claimed) >= 4
        ends = [completed(jobs[0], NOW, None), Settlement(jobs[1], "retry", NOW, attempt=2),
                Settlement(jobs[2], "fail", NOW, attempt=1), released(jobs[3])]  # fmt: skip
        assert (await hasty.settle(worker, *ends)).count("landed") >= 3
        assert await hasty.settle(other, completed(claimed[-1], NOW, None)) == ["landed"]
        assert hasty.pulse.beat(worker, draining=False, job_types=[]) is not None
        assert len(hasty.pulse.rescue(worker, 1, 1.0) or []) >= 1
        assert "partitions" in hasty.pulse.do_duties(other)
        assert all(await hasty.store.load(uuids(jobs)))
        late = [UUID(id) for id in await hasty.spawn_many(2)]
        assert await hasty.store.cancel(late) == ["cancelled"] * 2
        assert await hasty.store.retry(late) == ["retried"] * 2


async def test_an_open_transaction_that_used_the_history_does_not_delay_the_settle_that_finds_no_leaf(
    own_scene: Scene,
) -> None:
    worker, jobs = await own_scene.running(2)
    today = own_scene.clock().strftime("%Y%m%d")
    own_scene.sql.execute(f"DROP TABLE finished_jobs_{today}; DROP TABLE attempts_{today}")
    user = own_scene.session()
    looked(own_scene, user)
    user.execute(
        "INSERT INTO finished_jobs SELECT id, run_at, created_at, NULL, clock_timestamp() + interval '1 day', NULL, 1, "
        "1, 0, 0, 0, NULL, 'completed', queue, job_type FROM jobs WHERE id = $1",
        [UUID(jobs[0].id)],
    )
    async with hasty_on(own_scene) as hasty:
        ends = completed(jobs[0], NOW, None), Settlement(jobs[1], "retry", NOW, attempt=2)
        assert await hasty.settle(worker, *ends) == ["landed", "landed"]
    assert len(own_scene.leaves()) == 18
