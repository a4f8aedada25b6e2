"""Connections: what a fault is called, what is tried again, and what is heard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from piecework.base.errors import ConfigurationError, DatabaseError, DatabaseUnreachable, MigrationsNeeded
from piecework.base.ids import new_id
from piecework.model.lanes import Lane
from piecework.store.connection import sever
from piecework.store.dsn import complete_dsn, describe
from piecework.store.listening import hints
from piecework.store.store import Store
from piecework.testing import FaultProxy
from support.private_postgres import PrivatePostgres
from support.scene import Scene

pytestmark = pytest.mark.postgres(18)


def test_what_the_dsn_says_wins_over_the_defaults(server: object) -> None:
    given = conninfo_to_dict(complete_dsn("postgresql://u@h/d?connect_timeout=9&application_name=mine"))
    assert (given["connect_timeout"], given["application_name"], given["host"]) == ("9", "mine", "h")
    assert conninfo_to_dict(complete_dsn("host=h"))["tcp_user_timeout"] == "10000"


@pytest.mark.parametrize("dsn", ["postgresql://u@a:1,b:2/d", "host=/a,/b", "hostaddr=10.0.0.1,10.0.0.2"])
def test_of_several_hosts_the_one_that_writes_is_meant_unless_the_dsn_says_otherwise(server: object, dsn: str) -> None:
    given = conninfo_to_dict(complete_dsn(dsn))
    assert (given["target_session_attrs"], given["connect_timeout"]) == ("read-write", "2")
    own = conninfo_to_dict(complete_dsn(make_conninfo(dsn, target_session_attrs="any", connect_timeout=9)))
    assert (own["target_session_attrs"], own["connect_timeout"]) == ("any", "9")
    assert "target_session_attrs" not in conninfo_to_dict(complete_dsn("host=a"))


async def test_the_host_that_writes_is_found_behind_one_that_only_reads_and_one_that_is_gone(
    server: object, private_postgres: Callable[..., PrivatePostgres], tmp_path: Path
) -> None:
    reads, writes = private_postgres(default_transaction_read_only="on"), private_postgres()
    dsn = make_conninfo(writes.dsn, host=f"{tmp_path},{reads.folder},{writes.folder}")
    async with Scene.open(dsn, migrate=True) as scene:
        await scene.spawn_many(1)
        assert scene.worker()  # by the blocking connection of the heartbeat
        assert (await scene.link.connection()).info.host == str(writes.folder)


@pytest.mark.parametrize("dsn", ["mysql://u@h/d", "host=h x=1", "postgresql://u:secret@h/d?x=1", "just text"])
def test_a_dsn_that_libpq_does_not_accept_is_refused_without_showing_it(server: object, dsn: str) -> None:
    with pytest.raises(ConfigurationError, match="libpq connection string") as caught:
        complete_dsn(dsn)
    assert "secret" not in str(caught.value)


def test_a_dsn_is_described_without_its_password(server: object) -> None:
    assert describe("postgresql://u:secret@h:5433/d") == "h:5433 database 'd'"


async def test_a_server_that_is_not_there_is_unreachable_and_revived_once_per_try(scene: Scene, tmp_path: Path) -> None:
    revived: list[int] = []
    store = Store(f"postgresql://u:secret@/d?host={tmp_path}", revive=lambda: revived.append(1))
    with pytest.raises(DatabaseUnreachable, match="no connection to PostgreSQL at") as caught:
        await store.open(migrate=False)
    assert "secret" not in str(caught.value)
    assert revived == [1]


@pytest.mark.parametrize("change", [{"dbname": "no_such_database"}, {"user": "no_such_role"}])
async def test_a_login_that_is_refused_says_what_to_check(scene: Scene, change: dict[str, str]) -> None:
    with pytest.raises(DatabaseError, match=r"refuses the login.*Check user, password and database") as caught:
        await Store(make_conninfo(scene.dsn, **change)).open(migrate=False)
    assert not isinstance(caught.value, DatabaseUnreachable)


async def test_a_lock_that_is_not_granted_is_not_taken_for_a_lost_connection(scene: Scene) -> None:
    scene.session().execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
    async with Scene.open(make_conninfo(scene.dsn, options="-c lock_timeout=1")) as hasty:
        with pytest.raises(DatabaseError, match=r"cannot do it now.*55P03") as caught:
            await hasty.spawn_many(1)
        assert not isinstance(caught.value, DatabaseUnreachable)
        connection = await hasty.link.connection()
        with pytest.raises(DatabaseError):
            await hasty.link.value("owned_jobs", str(new_id()))
        assert await hasty.link.connection() is connection


async def test_a_schema_that_is_dropped_under_an_open_store_says_what_to_run(own_scene: Scene) -> None:
    await own_scene.spawn_many(1)
    own_scene.sql.execute("DROP SCHEMA piecework CASCADE")
    with pytest.raises(MigrationsNeeded, match="`piecework migrate`"):
        await own_scene.spawn_many(1)


async def test_a_call_on_connections_that_all_died_is_made_again(scene: Scene) -> None:
    async with FaultProxy(scene.dsn) as proxy, scene.store_at(proxy.dsn) as store:
        assert await asyncio.gather(*[store.load([]) for _ in range(8)]) == [[]] * 8
        proxy.cut()
        assert await asyncio.gather(*[store.load([]) for _ in range(8)]) == [[]] * 8


async def test_a_link_that_broke_opens_another_connection_and_the_loss_is_logged_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "piecework.worker")
    other = scene.another_link()
    for link in (scene.link, other):
        await link.value("owned_jobs", str(new_id()))
    scene.sql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid()"
    )
    for link in (scene.link, other):
        with pytest.raises(DatabaseUnreachable):
            await link.value("owned_jobs", str(new_id()))
    for link in (scene.link, other):
        assert await link.value("owned_jobs", str(new_id())) is None
    [lost, back] = [record.getMessage() for record in caplog.records]
    assert lost.startswith("the database is lost")
    assert "is back" in back
    await other.drop()


async def test_hints_are_the_lanes_and_what_is_no_lane_is_passed_over(scene: Scene) -> None:
    listening = asyncio.Event()
    heard = hints(scene.link, listening.set, 10.0)
    first = asyncio.create_task(anext(heard))
    await listening.wait()
    for payload in ("", "nonsense", '["a"]', '["a", "b", "c"]', '["ü", "work", -3]', '["default", "work", 0, ["id"]]'):
        scene.sql.execute("SELECT pg_notify(%s, %s)", [scene.statements.channel, payload])
    assert await first == (Lane("ü", "work", -3), [])
    assert await anext(heard) == (Lane("default", "work", 0), ["id"])
    scene.sql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%%' AND pid <> pg_backend_pid()"
    )
    with pytest.raises(DatabaseUnreachable):
        await anext(heard)


async def test_a_worker_session_sees_the_settings_it_was_pinned_to(scene: Scene) -> None:
    connection = await scene.link.connection()
    shown = {
        name: (await (await connection.execute(f"SHOW {name}")).fetchone() or ("",))[0]
        for name in ("default_transaction_isolation", "default_transaction_read_only", "timezone", "client_encoding")
    }
    assert shown == {
        "default_transaction_isolation": "read committed", "default_transaction_read_only": "off", "timezone": "UTC",
        "client_encoding": "UTF8",
    }  # fmt: skip


async def test_a_statement_that_waits_for_a_lock_ends_when_its_client_is_gone(scene: Scene) -> None:
    scene.session().execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
    connection = await scene.link.connection()
    pid = connection.info.backend_pid
    waiting = asyncio.create_task(scene.link.value("owned_jobs", str(new_id())))
    await scene.until_blocked()
    sever(connection)
    with pytest.raises(DatabaseUnreachable):
        await waiting
    while scene.value("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)", pid):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
