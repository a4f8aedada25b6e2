"""Duties: housekeeping that no leader hands out. Whoever finds one due and in nobody's hands does it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from support.scene import Scene

pytestmark = pytest.mark.postgres(18)


async def test_a_duty_that_is_due_is_taken_once_and_is_due_again_later(scene: Scene) -> None:
    worker, other = scene.worker(), scene.worker()
    before = scene.clock()
    assert scene.pulse.do_duties(worker) == ["partitions"]
    assert scene.pulse.do_duties(other) == []
    [duty] = scene.rows("SELECT next_at, every, ran_by FROM duties WHERE name = 'partitions'")
    assert str(duty["ran_by"]) == worker
    assert duty["every"] == timedelta(hours=1)
    assert duty["next_at"] >= before + timedelta(hours=1)  # type: ignore[operator]


async def test_a_duty_that_another_worker_has_in_hand_is_left_to_it(scene: Scene) -> None:
    taker = scene.session()
    taker.execute(scene.statements.sql("take_duty"), [scene.worker()])
    assert scene.pulse.do_duties(scene.worker()) == []
    taker.rollback()
    assert scene.pulse.do_duties(scene.worker()) == ["partitions"]


async def test_of_many_takers_one_gets_the_duty(scene: Scene) -> None:
    links = [scene.another_link() for _ in range(8)]
    taken = await asyncio.gather(*[link.value("take_duty", scene.worker()) for link in links])
    for link in links:
        await link.drop()
    assert sorted(map(str, taken)) == ["None"] * 7 + ["partitions"]


async def test_a_duty_that_is_due_soonest_comes_first(own_scene: Scene) -> None:
    own_scene.clear()  # the database may be older than a minute
    worker = own_scene.worker()
    own_scene.sql.execute(
        "INSERT INTO duties (name, every, next_at) SELECT n, '1 hour', clock_timestamp() - d FROM (VALUES "
        "('older', interval '2 h'), ('oldest', interval '3 h'), ('not yet', interval '-1 h')) AS v (n, d)"
    )
    assert own_scene.pulse.do_duties(worker) == ["oldest", "older", "partitions"]


async def test_the_partitions_duty_makes_the_leaves(own_scene: Scene) -> None:
    leaves = own_scene.leaves()
    own_scene.sql.execute(f"DROP TABLE {leaves[-1]}")
    own_scene.pulse.do_duties(own_scene.worker())
    assert own_scene.leaves() == leaves
