"""The leaves of the history: one per day in UTC, made ahead, one maker at a time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from support.scene import Scene

pytestmark = pytest.mark.postgres(18, 15)

PARENTS = ["attempts", "finished_jobs"]


def days(scene: Scene) -> list[datetime]:
    """The days that have a leaf after a migration made now."""
    today = scene.clock().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return [today + timedelta(days=n) for n in range(-1, 8)]


def expected(scene: Scene) -> list[str]:
    return sorted(f"{parent}_{day:%Y%m%d}" for parent in PARENTS for day in days(scene))


def bounds(scene: Scene) -> dict[str, str]:
    scene.sql.execute("SET timezone = 'UTC'; SET datestyle = 'ISO'")
    return {
        str(row["relname"]): str(row["bound"])
        for row in scene.rows(
            "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_class c "
            "WHERE c.relispartition AND c.relkind = 'r' AND c.relnamespace = current_schema::regnamespace"
        )
    }


async def test_a_migration_makes_the_leaves_of_yesterday_to_a_week_ahead(own_scene: Scene) -> None:
    assert own_scene.leaves() == expected(own_scene)


async def test_only_missing_leaves_are_made(own_scene: Scene) -> None:
    [first, *_, last] = own_scene.leaves()
    own_scene.sql.execute(f"DROP TABLE {first}; DROP TABLE {last}")
    assert own_scene.value("SELECT add_partitions_1(7)") == 2
    assert own_scene.leaves() == expected(own_scene)
    assert own_scene.value("SELECT add_partitions_1(7)") == 0


async def test_while_none_is_missing_nothing_is_locked(scene: Scene) -> None:
    holder = scene.session()
    holder.execute("LOCK TABLE finished_jobs IN SHARE UPDATE EXCLUSIVE MODE")
    session = scene.session(lock_timeout="1")
    assert session.execute("SELECT add_partitions_1(7)").fetchone() == (0,)


@pytest.mark.postgres(18)
@pytest.mark.parametrize(
    ("zone", "style"),
    [("Pacific/Kiritimati", "SQL,\\ DMY"), ("America/Los_Angeles", "German"), ("Asia/Kathmandu", "Postgres,\\ MDY")],
)
async def test_a_leaf_is_a_day_in_utc_whatever_the_session_shows(own_scene: Scene, zone: str, style: str) -> None:
    for leaf in own_scene.leaves():
        own_scene.sql.execute(f"DROP TABLE {leaf}")
    session = own_scene.session(timezone=zone, datestyle=style)
    assert session.execute("SELECT add_partitions_1(7)").fetchone() == (18,)
    session.commit()
    day = "%Y-%m-%d 00:00:00+00"
    assert bounds(own_scene) == {
        f"{parent}_{start:%Y%m%d}": f"FOR VALUES FROM ('{start:{day}}') TO ('{start + timedelta(days=1):{day}}')"
        for parent in PARENTS
        for start in days(own_scene)
    }


async def test_of_two_makers_the_second_finds_the_leaves_made(own_scene: Scene) -> None:
    for leaf in own_scene.leaves():
        own_scene.sql.execute(f"DROP TABLE {leaf}")
    first, second = own_scene.session(), own_scene.session()
    assert first.execute("SELECT add_partitions_1(7)").fetchone() == (18,)
    waiting = asyncio.create_task(asyncio.to_thread(second.execute, "SELECT add_partitions_1(7)"))
    await own_scene.until_blocked()
    first.commit()
    assert (await waiting).fetchone() == (0,)
    assert own_scene.leaves() == expected(own_scene)


@pytest.mark.postgres(18)
async def test_when_the_first_of_two_makers_fails_the_second_makes_the_leaves(own_scene: Scene) -> None:
    for leaf in own_scene.leaves():
        own_scene.sql.execute(f"DROP TABLE {leaf}")
    first, second = own_scene.session(), own_scene.session()
    first.execute("SELECT add_partitions_1(7)")
    waiting = asyncio.create_task(asyncio.to_thread(second.execute, "SELECT add_partitions_1(7)"))
    await own_scene.until_blocked()
    first.rollback()
    assert (await waiting).fetchone() == (18,)
    second.commit()
    assert own_scene.leaves() == expected(own_scene)


@pytest.mark.postgres(18)
async def test_a_leaf_has_the_indexes_checks_and_storage_of_its_parent(own_scene: Scene) -> None:
    shape = (
        "SELECT (SELECT array_agg(a.attstorage ORDER BY a.attname) FROM pg_attribute a "
        "WHERE a.attrelid = c.oid AND a.attnum > 0) AS storage, "
        "(SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid) AS indexes, "
        "(SELECT count(*) FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c') AS checks "
        "FROM pg_class c WHERE c.oid = %s::regclass"
    )
    for leaf in own_scene.leaves():
        assert own_scene.rows(shape, leaf) == own_scene.rows(shape, leaf.rpartition("_")[0])


async def test_the_history_does_not_try_to_compress_a_config_anew(scene: Scene) -> None:
    [row] = scene.rows(
        "SELECT attstorage FROM pg_attribute WHERE attrelid = 'finished_jobs'::regclass AND attname = 'config'"
    )
    assert row["attstorage"] in ("e", b"e")


async def test_the_history_has_no_default_leaf(scene: Scene) -> None:
    assert "DEFAULT" not in bounds(scene).values()
