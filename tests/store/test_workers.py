"""workers and idle_workers: who lives, and who sleeps."""

from __future__ import annotations

import os
from datetime import timedelta
from uuid import UUID

import pytest

from piecework.base.ids import new_id
from piecework.store.liveness import Counters, WorkerRow
from piecework.store.overview import Rescues, count_rescues, list_running, list_workers
from support.scene import Scene

pytestmark = pytest.mark.postgres(18)


async def test_a_worker_is_registered_as_it_says(scene: Scene) -> None:
    id = str(new_id())
    before = scene.clock()
    scene.pulse.register(
        WorkerRow(
            id=id, pid=42, host="höst", lease=timedelta(seconds=0.35), stop=timedelta(milliseconds=200),
            exit=timedelta(milliseconds=300), queues=["a", "b,c", '"d"'], job_types=["x"], version="1.2.3",
        )
    )  # fmt: skip
    [row] = scene.rows("SELECT * FROM workers")
    for moment in ("started_at", "beat_at"):
        assert before <= row[moment] <= scene.clock()  # type: ignore[operator]
    del row["started_at"], row["beat_at"]
    assert row == {
        "id": UUID(id), "beat_no": 0, "draining": False, "given_up_at": None, "pid": 42, "host": "höst",
        "lease": timedelta(milliseconds=350), "stop": timedelta(milliseconds=200), "exit": timedelta(milliseconds=300),
        "queues": ["a", "b,c", '"d"'], "job_types": ["x"], "version": "1.2.3", "settings": None,
        "counters": None,
    }  # fmt: skip


async def test_a_beat_counts_and_tells_of_the_worker_and_shows_the_others(scene: Scene) -> None:
    worker, brief, other = scene.worker(), scene.worker(lease=0.35), scene.worker(lease=36_000)
    assert scene.pulse.beat(other, draining=False, job_types=["work"]) is not None
    before = scene.clock()
    beat = scene.pulse.beat(worker, draining=True, job_types=["x", "y"])
    assert beat is not None
    assert beat.others == [(brief, 0, 0.35), (other, 1, 36_000.0)]
    [row] = scene.rows("SELECT * FROM workers WHERE id = %s", worker)
    assert (row["beat_no"], row["draining"], row["job_types"]) == (1, True, ["x", "y"])
    assert row["beat_at"] >= before  # type: ignore[operator]
    scene.pulse.beat(worker, draining=True, job_types=[])
    assert scene.value("SELECT beat_no FROM workers WHERE id = %s", worker) == 2


async def test_a_beat_of_a_worker_that_has_no_row_is_told_so_and_makes_none(scene: Scene) -> None:
    assert scene.pulse.beat(str(new_id()), draining=False, job_types=[]) is None
    assert scene.value("SELECT count(*) FROM workers") == 0


async def test_a_worker_declares_itself_idle_and_busy_as_often_as_it_likes(scene: Scene) -> None:
    worker, other = scene.worker(), scene.worker()
    for _ in range(2):
        await scene.sleeper(worker, queues=["a"], job_types=["x"])
        await scene.sleeper(worker, queues=["a", "b"], job_types=["x", "y"])
        await scene.sleeper(other)
    assert scene.rows("SELECT queues, job_types FROM idle_workers WHERE worker_id = %s", worker) == [
        {"queues": ["a", "b"], "job_types": ["x", "y"]}
    ]
    for _ in range(2):
        await scene.link.value("declare_busy", worker)
    assert scene.rows("SELECT worker_id FROM idle_workers") == [{"worker_id": UUID(other)}]


async def test_workers_are_listed_with_what_they_hold(scene: Scene) -> None:
    first, _ = await scene.running(3)
    second = scene.worker(lease=2.0)
    await scene.sleeper(second)
    listed = await list_workers(scene.store)
    assert [(str(w.id), w.running, w.idle, w.lease.total_seconds()) for w in listed] == [
        (first, 3, False, 18.0), (second, 0, True, 2.0),
    ]  # fmt: skip
    scene.session().execute("SELECT FROM jobs WHERE worker_id = $1 LIMIT 1 FOR UPDATE", [first])
    assert len(scene.pulse.rescue(first, 0, 18.0) or []) == 2
    assert [str(w.id) for w in await list_workers(scene.store)] == [second], "one that was given up is no worker"
    assert all(timedelta(0) <= w.last_beat < timedelta(minutes=1) for w in listed)


async def test_a_beat_writes_what_the_worker_counts_and_leaves_it_where_it_says_nothing(scene: Scene) -> None:
    worker = scene.worker()
    assert [w.counters for w in await list_workers(scene.store)] == [Counters()]
    scene.pulse.beat(worker, draining=False, job_types=[], counters=Counters(lost_settles=2, stops=1))
    scene.pulse.beat(worker, draining=False, job_types=[])
    assert [w.counters for w in await list_workers(scene.store)] == [Counters(lost_settles=2, stops=1)]


async def test_what_runs_is_listed_longest_first(scene: Scene) -> None:
    worker, [newer, older] = await scene.running(2)
    change = "UPDATE jobs SET claimed_at = claimed_at - interval '1 hour', timeout = '5 minutes' WHERE id = %s"
    scene.sql.execute(change, [older.id])
    first, second = await list_running(scene.store, 5)
    assert [str(first.id), str(second.id)] == [older.id, newer.id]
    assert (str(first.worker_id), first.pid, first.timeout) == (worker, os.getpid(), timedelta(minutes=5))
    assert timedelta(hours=1) <= first.lasts < timedelta(hours=2)
    assert second.timeout is None
    assert [str(job.id) for job in await list_running(scene.store, 1)] == [older.id]


async def test_rescues_are_counted_by_how_long_ago_they_were(scene: Scene) -> None:
    worker, _ = await scene.running(3)
    scene.pulse.rescue(worker, 0, 18.0)
    assert await count_rescues(scene.store) == Rescues(last_hour=3, last_day=3)
    [job] = scene.rows("SELECT job_id FROM attempts LIMIT 1")
    change = "UPDATE attempts SET ended_at = ended_at - interval '61 minutes' WHERE job_id = %s"
    scene.sql.execute(change, [job["job_id"]])
    assert await count_rescues(scene.store) == Rescues(last_hour=2, last_day=3)
