"""The public SQL function `spawn`: for psql, triggers and other languages."""

from __future__ import annotations

from uuid import UUID

import psycopg
import pytest

from support.scene import Scene

pytestmark = pytest.mark.postgres(18, 15)

Rows = list[tuple[object, ...]]


def spawn(session: psycopg.Connection, jobs: str) -> Rows:
    return session.execute("SELECT id, created FROM spawn($1)", [jobs]).fetchall()


async def test_a_job_type_is_enough_and_the_id_is_time_ordered(scene: Scene) -> None:
    session = scene.session()
    [(first, created)] = spawn(session, '{"job_type": "work"}')
    [(second, _)] = spawn(session, '{"job_type": "work"}')
    session.commit()
    assert created
    assert isinstance(first, UUID)
    assert isinstance(second, UUID)
    assert first.version == second.version == 7
    assert first.int >> 80 <= second.int >> 80
    assert scene.job(str(first))["config"] == {}
    assert [job.id for job in await scene.claim(scene.worker(), 1)] == [str(min(first, second))]


async def test_several_jobs_are_answered_in_their_order(scene: Scene) -> None:
    session = scene.session()
    chosen = "01890000-0000-7000-8000-00000000000a"
    found = spawn(session, f"""[
        {{"job_type": "work", "config": {{"a": null}}, "queue": "mail", "priority": 3, "tags": ["x"],
          "delay": 60000000}},
        {{"job_type": "work", "id": "{chosen}", "concurrency_key": "k", "concurrency_limit": 2}},
        {{"job_type": "work", "key": "once"}}, {{"job_type": "work", "key": "once"}}]""")
    session.commit()
    assert [created for _, created in found] == [True, True, True, False]
    assert found[3][0] == found[2][0]
    assert found[1][0] == UUID(chosen)
    first, second = scene.job(str(found[0][0])), scene.job(chosen)
    assert (first["config"], first["queue"], first["priority"], first["tags"]) == ({"a": None}, "mail", 3, ["x"])
    assert (second["concurrency_key"], second["concurrency_limit"]) == ("k", 2)


async def test_what_is_rolled_back_was_never_there(scene: Scene) -> None:
    session = scene.session()
    spawn(session, '{"job_type": "work"}')
    session.rollback()
    assert scene.rows("SELECT * FROM jobs") == []


async def test_a_trigger_spawns_with_the_row_that_it_is_for(own_scene: Scene) -> None:
    own_scene.sql.execute("""
        CREATE TABLE orders (number integer);
        CREATE FUNCTION receipt() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM piecework.spawn(json_build_object(
                'job_type', 'work', 'config', json_build_object('order', NEW.number))::text);
            RETURN NEW;
        END $$;
        CREATE TRIGGER receipt AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION receipt();
        INSERT INTO orders VALUES (1), (2)""")
    rows = own_scene.rows("SELECT config FROM jobs ORDER BY config->>'order'")
    assert [row["config"] for row in rows] == [{"order": 1}, {"order": 2}]


@pytest.mark.parametrize("jobs", ['{"config": {}}', '[{"job_type": "work"}, {"job_type": ""}]'])
async def test_a_job_without_a_type_is_refused_and_says_what_to_write(scene: Scene, jobs: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="without a job_type") as raised:
        spawn(scene.session(), jobs)
    assert "send_email" in str(raised.value.diag.message_hint)
    assert scene.rows("SELECT * FROM jobs") == []


async def test_an_id_that_is_taken_is_refused(scene: Scene) -> None:
    [id] = await scene.spawn_many(1)
    with pytest.raises(psycopg.errors.UniqueViolation):
        spawn(scene.session(), f'{{"job_type": "work", "id": "{id}"}}')
