"""Hints: who is told that a job may be due. They are sent while somebody sleeps, to as many as it takes."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from piecework.model.lanes import Lane
from piecework.model.settlement import Move, Settlement, released
from piecework.store import claiming
from support.scene import NOW, Scene, new_job

pytestmark = pytest.mark.postgres(18, 15)


class Ear:
    """What a connection that listens hears."""

    def __init__(self, scene: Scene) -> None:
        self._sql = scene.sql
        self._channel = scene.statements.channel
        self._sql.execute(f"LISTEN {self._channel}")

    def heard(self) -> list[tuple[str, str, int, list[str]]]:
        """Queue, job type, priority and targets of what was sent until now."""
        self._sql.execute(f"NOTIFY {self._channel}, 'now'")
        heard: list[tuple[str, str, int, list[str]]] = []
        for notice in self._sql.notifies(timeout=10):
            if notice.payload == "now":
                return heard
            queue, job_type, priority, *targets = msgspec.json.decode(notice.payload)
            heard.append((queue, job_type, priority, targets[0] if targets else []))
        raise AssertionError(f"the last notice did not come: {heard}")


async def looked_beyond(scene: Scene, horizon: int) -> dict[Lane, float]:
    """The lanes of the first look that clears the horizon; transactions of other tests are waited for."""
    async with asyncio.timeout(60):
        while (look := await claiming.look(scene.link, scene.worker(), ["default"], ["work"])).xmin < horizon:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return look.lanes


@pytest.fixture
def ear(scene: Scene) -> Ear:
    return Ear(scene)


async def test_a_spawn_sends_nothing_while_no_worker_is_idle(scene: Scene, ear: Ear) -> None:
    sleeper = await scene.sleeper()
    await scene.link.value("declare_busy", sleeper)
    await scene.spawn_many(3)
    assert ear.heard() == []


async def test_a_spawn_sends_one_notice_per_lane_that_names_a_sleeper(scene: Scene, ear: Ear) -> None:
    sleeper = await scene.sleeper(queues=["q0", "q1"])
    await scene.spawn(*[new_job(queue=f"q{n % 2}", priority=n % 2) for n in range(10)])
    assert sorted(ear.heard()) == [("q0", "work", 0, [sleeper]), ("q1", "work", 1, [sleeper])]


async def test_a_spawn_sends_nothing_while_nobody_who_sleeps_knows_the_queue_and_the_job_type(
    scene: Scene, ear: Ear
) -> None:
    await scene.sleeper(queues=["another"])
    await scene.sleeper(job_types=["another"])
    knows = await scene.sleeper(queues=["default", "mine"], job_types=["another", "work"])
    await scene.spawn(new_job(job_type="unknown"), new_job(queue="unknown"))
    assert ear.heard() == []
    await scene.spawn(new_job())
    assert ear.heard() == [("default", "work", 0, [knows])]


@pytest.mark.parametrize("count, targets", [(1, 1), (100, 1), (101, 2), (250, 3), (2000, 5)])
async def test_a_spawn_names_a_sleeper_per_hundred_jobs(scene: Scene, ear: Ear, count: int, targets: int) -> None:
    sleepers = {await scene.sleeper() for _ in range(5)}
    await scene.spawn_many(count)
    [(*lane, named)] = ear.heard()
    assert lane == ["default", "work", 0]
    assert len(named) == len(set(named)) == targets
    assert set(named) <= sleepers


async def test_sleepers_are_named_by_turns(scene: Scene, ear: Ear) -> None:
    sleepers = {await scene.sleeper() for _ in range(3)}
    for _ in range(60):
        await scene.spawn_many(1)
    assert {named for *_, [named] in ear.heard()} == sleepers


async def test_a_bulk_of_jobs_names_no_more_sleepers_than_a_notice_can_hold(scene: Scene, ear: Ear) -> None:
    for _ in range(150):
        await scene.sleeper()
    await scene.spawn_many(20_000, queue="default", job_type="work")
    [(*_, named)] = ear.heard()
    assert len(named) == 100


async def test_a_spawn_above_read_committed_tells_everybody(scene: Scene, ear: Ear) -> None:
    """Its snapshot may be older than the declaration."""
    session = scene.session(default_transaction_isolation="serializable")
    session.execute("SELECT count(*) FROM jobs")
    await scene.sleeper()
    session.execute("SELECT spawn_1($1)", [msgspec.json.encode([new_job(), new_job()]).decode()])
    session.commit()
    assert ear.heard() == [("default", "work", 0, [])]


async def test_jobs_that_go_on_are_hinted_at_while_a_worker_is_idle(scene: Scene, ear: Ear) -> None:
    worker, jobs = await scene.running(6)
    await scene.settle(worker, released(jobs[0]))
    assert ear.heard() == []
    await scene.sleeper()
    later = [Settlement(job, "retry", NOW, attempt=2, delay=timedelta(hours=1)) for job in jobs[1:4]]
    await scene.settle(worker, *later, *map(released, jobs[4:]))
    assert ear.heard() == [("default", "work", 0, [])]


@pytest.mark.parametrize("move", ["retry", "reschedule", "release"])
@pytest.mark.parametrize("before", ["jobs IN EXCLUSIVE MODE", "jobs IN SHARE MODE", "attempts IN SHARE MODE"])
async def test_a_settle_that_a_declaration_overtakes_sends_a_hint_or_is_waited_for(
    scene: Scene, ear: Ear, move: Move, before: str
) -> None:
    """Wherever it is when the declaration is made: before it locks the row, before it writes it, before it is done."""
    worker, [job] = await scene.running()
    stranger, link = scene.session(), scene.another_link()
    stranger.execute(f"LOCK TABLE {before}")
    settling = asyncio.create_task(scene.settle(worker, Settlement(job, move, None, attempt=1), link=link))
    await scene.until_blocked()
    sleeper = scene.worker()
    horizon = await claiming.declare_idle(scene.link, sleeper, ["default"], ["work"])
    look = await claiming.look(scene.link, sleeper, ["default"], ["work"])
    stranger.rollback()
    assert await settling == ["landed"]
    await link.drop()
    assert ear.heard() or look.xmin < horizon


async def test_a_spawn_that_a_declaration_overtakes_before_its_insert_sends_a_hint(scene: Scene, ear: Ear) -> None:
    stranger = scene.session()
    stranger.execute("LOCK TABLE jobs IN SHARE MODE")
    spawning = asyncio.create_task(scene.spawn_many(1))
    await scene.until_blocked()
    sleeper = await scene.sleeper()
    stranger.rollback()
    await spawning
    assert ear.heard() == [("default", "work", 0, [sleeper])]


@pytest.mark.parametrize("savepoint", [False, True])
async def test_a_spawn_that_a_declaration_overtakes_after_its_insert_is_waited_for(
    scene: Scene, ear: Ear, savepoint: bool
) -> None:
    user = scene.session()
    user.execute("SELECT FROM jobs")
    if savepoint:
        user.execute("SAVEPOINT a")
    user.execute("SELECT spawn_1($1)", [msgspec.json.encode([new_job()]).decode()])
    if savepoint:
        user.execute("RELEASE a")
    sleeper = scene.worker()
    horizon = await claiming.declare_idle(scene.link, sleeper, ["default"], ["work"])
    look = await claiming.look(scene.link, sleeper, ["default"], ["work"])
    assert (look.xmin < horizon, look.lanes) == (True, {})
    user.commit()
    assert len(await looked_beyond(scene, horizon)) == 1
    assert ear.heard() == [], "so nothing but its looks can tell it"


async def test_the_horizon_lies_beyond_open_transactions_that_a_snapshots_xmax_is_not_beyond(
    scene: Scene, ear: Ear
) -> None:
    """xmax follows the last transaction that has ended, of any database: the spawn, begun after that, is not before it
    where nothing else runs."""
    older, user = scene.session(), scene.session()
    older.execute("SELECT pg_current_xact_id()")
    sleeper = scene.worker()
    older.execute(scene.statements.sql("declare_idle"), [sleeper, ["default"], ["work"]])
    user.execute("SELECT spawn_1($1)", [msgspec.json.encode([new_job()]).decode()])
    older.commit()
    horizon = int(str(await scene.link.value("take_horizon")))
    assert (await claiming.look(scene.link, sleeper, ["default"], ["work"])).xmin < horizon
    user.commit()
    assert len(await looked_beyond(scene, horizon)) == 1
    assert ear.heard() == []
