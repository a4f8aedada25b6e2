"""spawn: a plain insert, all jobs or none."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest

from piecework.base.errors import InvalidConfig, JobAlreadyExists
from piecework.base.ids import new_id
from piecework.model.settlement import completed
from piecework.testing import FaultProxy
from support.scene import NOW, Scene, new_job

pytestmark = pytest.mark.postgres(18, 15)


async def test_a_job_without_options_is_due_at_once_in_the_default_queue(scene: Scene) -> None:
    before = scene.clock()
    [id] = await scene.spawn(new_job(config=msgspec.Raw(b'{"to": "ada", "n": [1, 2.50]}')))
    after = scene.clock()
    row = scene.job(id)
    run_at, created_at = row.pop("run_at"), row.pop("created_at")
    assert before <= run_at <= after  # type: ignore[operator]
    assert before <= created_at <= after  # type: ignore[operator]
    assert row == {
        "id": UUID(id), "job_type": "work", "config": {"to": "ada", "n": [1, 2.5]}, "queue": "default", "priority": 0,
        "claimed_at": None, "worker_id": None, "claim_no": 0, "attempt": 1, "failures": 0, "crashes": 0,
        "parked": False, "concurrency_key": None, "concurrency_limit": None, "key": None, "timeout": None, "tags": None,
        "metadata": None, "trace_context": None,
    }  # fmt: skip


async def test_run_at_is_stored_to_the_microsecond(scene: Scene) -> None:
    moment = datetime(2031, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)
    [id] = await scene.spawn(new_job(run_at=(moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)))
    assert scene.job(id)["run_at"] == moment


async def test_run_at_may_be_past(scene: Scene) -> None:
    [id] = await scene.spawn(new_job(run_at=-1))
    assert scene.job(id)["run_at"] == datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


async def test_a_delay_counts_from_the_insert_by_the_databases_clock(scene: Scene) -> None:
    before = scene.clock()
    [id] = await scene.spawn(new_job(delay=90_000_001))
    after = scene.clock()
    delay = timedelta(seconds=90, microseconds=1)
    assert before + delay <= scene.job(id)["run_at"] <= after + delay  # type: ignore[operator]


async def test_a_job_is_due_from_its_insert_not_from_the_start_of_the_callers_transaction(scene: Scene) -> None:
    session = scene.session()
    session.execute("SELECT 1")
    spawned_after = scene.clock()
    job = new_job()
    session.execute(scene.statements.sql("spawn"), [msgspec.json.encode([job]).decode()])
    session.commit()
    assert scene.job(job.id)["run_at"] >= spawned_after  # type: ignore[operator]


async def test_queue_priority_and_tags_are_stored(scene: Scene) -> None:
    [id] = await scene.spawn(new_job(queue="reports", priority=-7, tags=["a", "ü, {x}", '"q"']))
    row = scene.job(id)
    assert (row["queue"], row["priority"], row["tags"]) == ("reports", -7, ["a", "ü, {x}", '"q"'])


async def test_jobs_of_many_types_and_queues_are_spawned_in_one_call(scene: Scene) -> None:
    jobs = [new_job(job_type=f"t{n % 3}", queue=f"q{n % 2}", priority=n) for n in range(50)]
    await scene.spawn(*jobs)
    stored = scene.rows("SELECT id::text, job_type, queue, priority FROM jobs ORDER BY id")
    assert stored == [{"id": str(j.id), "job_type": j.job_type, "queue": j.queue, "priority": j.priority} for j in jobs]


# a job's id that the caller chose


async def test_a_chosen_id_is_the_jobs_id_whatever_its_version(scene: Scene) -> None:
    id = str(uuid4())
    await scene.spawn(new_job(id=id, chosen=True))
    assert scene.job(id)["id"] == UUID(id)


@pytest.mark.parametrize("chosen", [True, False])
async def test_an_id_of_a_live_job_is_refused_and_nothing_is_spawned(scene: Scene, chosen: bool) -> None:
    [id] = await scene.spawn_many(1)
    before = scene.dump()
    with pytest.raises(JobAlreadyExists, match=id):
        await scene.spawn(new_job(), new_job(id=id, chosen=chosen), new_job())
    assert scene.dump() == before


async def test_a_chosen_id_of_a_finished_job_is_refused_and_nothing_is_spawned(scene: Scene) -> None:
    worker, [job] = await scene.running()
    await scene.settle(worker, completed(job, NOW, None))
    before = scene.dump()
    with pytest.raises(JobAlreadyExists, match=job.id):
        await scene.spawn(new_job(), new_job(id=job.id, chosen=True))
    assert scene.dump() == before


async def test_an_id_chosen_twice_in_one_call_is_refused(scene: Scene) -> None:
    id = str(new_id())
    with pytest.raises(JobAlreadyExists, match=id):
        await scene.spawn(new_job(id=id, chosen=True), new_job(id=id, chosen=True))
    assert scene.dump()["jobs"] == []


async def test_a_chosen_id_that_races_the_settle_of_its_job_does_not_run_it_again(scene: Scene) -> None:
    worker, [job] = await scene.running()
    settle = scene.session()
    settle.execute(scene.statements.sql("settle"), [worker, [UUID(job.id)], [job.claim_no], ["complete"], [0], None])
    spawn = asyncio.create_task(scene.store.spawn([new_job(id=job.id, chosen=True)]))
    await scene.until_blocked()
    settle.commit()
    with pytest.raises(JobAlreadyExists, match=job.id):
        await spawn
    assert scene.dump()["jobs"] == []


async def test_a_chosen_id_that_races_a_cancelled_settle_meets_the_live_job(scene: Scene) -> None:
    worker, [job] = await scene.running()
    settle = scene.session()
    settle.execute(scene.statements.sql("settle"), [worker, [UUID(job.id)], [job.claim_no], ["complete"], [0], None])
    spawn = asyncio.create_task(scene.store.spawn([new_job(id=job.id, chosen=True)]))
    await scene.until_blocked()
    settle.rollback()
    with pytest.raises(JobAlreadyExists, match=job.id):
        await spawn
    assert scene.job(job.id)["claim_no"] == 1


@pytest.mark.parametrize("text", ['[{"id": "%s", "job_type": "work", "config": {}, "chosen": true}]',
                                  '[{"id":"%s","chosen"\n:\ttrue,"job_type":"work","config":{}}]'])  # fmt: skip
async def test_a_chosen_id_is_looked_up_however_the_json_is_written(scene: Scene, text: str) -> None:
    worker, [job] = await scene.running()
    await scene.settle(worker, completed(job, NOW, None))
    with pytest.raises(psycopg.errors.UniqueViolation):
        scene.session().execute("SELECT spawn_1($1)", [text % job.id])


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_a_chosen_id_is_refused_above_read_committed(scene: Scene, level: str) -> None:
    session = scene.session(default_transaction_isolation=level.replace(" ", "\\ "))
    jobs = msgspec.json.encode([new_job(chosen=True)]).decode()
    with pytest.raises(psycopg.errors.FeatureNotSupported, match=f"READ COMMITTED.*{level}"):
        session.execute("SELECT spawn_1($1)", [jobs])


async def test_a_plain_job_may_be_spawned_above_read_committed_whatever_its_config_says(scene: Scene) -> None:
    session = scene.session(default_transaction_isolation="serializable")
    job = new_job(config=msgspec.Raw(b'{"chosen":true}'))
    session.execute("SELECT spawn_1($1)", [msgspec.json.encode([job]).decode()])
    session.commit()
    assert scene.job(job.id)["config"] == {"chosen": True}


# what PostgreSQL refuses


@pytest.mark.parametrize(
    "fields",
    [
        {"config": msgspec.Raw(b'{"text": "a\\u0000b"}')},
        {"job_type": "a\0b"},
        {"queue": "a\0b"},
        {"tags": ["a\0b"]},
        {"config": msgspec.Raw(b'{"half": "\\ud800"}')},
        {"config": msgspec.Raw(b"{")},
        {"config": msgspec.Raw(b'{"n": 1e400000}')},
        {"config": msgspec.Raw(b"[" * 100_000 + b"]" * 100_000)},
        {"priority": 40_000},
        {"run_at": 2**63},
        {"id": "no uuid"},
    ],
    ids=lambda fields: "-".join(f"{k}={str(v)[:20]!r}" for k, v in fields.items()).replace("\0", "NUL"),
)
async def test_a_value_that_postgresql_refuses_is_the_jobs_fault_and_nothing_is_spawned(
    scene: Scene, fields: dict[str, object]
) -> None:
    with pytest.raises(InvalidConfig, match="Nothing was spawned"):
        await scene.spawn(new_job(), new_job(**fields))
    assert scene.dump()["jobs"] == []


# a lost connection


@pytest.mark.parametrize("chosen", [True, False])
async def test_a_spawn_whose_answer_was_lost_lands_once(scene: Scene, chosen: bool) -> None:
    async with FaultProxy(scene.dsn) as proxy, scene.store_at(proxy.dsn) as store:
        jobs = [new_job(chosen=chosen, config=msgspec.Raw(b'{"n": 1.0}')) for _ in range(3)]
        lost = proxy.trap("answer", b"")
        await store.spawn(jobs)
        assert lost.hits == 1
    assert [str(row["id"]) for row in scene.dump()["jobs"]] == [str(job.id) for job in jobs]


async def test_a_spawn_on_a_connection_that_died_lands(scene: Scene) -> None:
    async with FaultProxy(scene.dsn) as proxy, scene.store_at(proxy.dsn) as store:
        proxy.cut()
        job = new_job()
        await store.spawn([job])
    assert scene.job(job.id)["claim_no"] == 0


async def test_a_chosen_id_of_another_job_is_refused_also_when_the_first_sending_was_lost(scene: Scene) -> None:
    [id] = await scene.spawn(new_job(config=msgspec.Raw(b'{"n": 1}')))
    async with FaultProxy(scene.dsn) as proxy, scene.store_at(proxy.dsn) as store:
        lost = proxy.trap("answer", b"")
        with pytest.raises(JobAlreadyExists, match=id):
            await store.spawn([new_job(id=id, chosen=True, config=msgspec.Raw(b'{"n": 2}'))])
        assert lost.hits == 1
    assert scene.job(id)["config"] == {"n": 1}
