"""How a spawn behaves in a transaction of the caller's."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import asyncpg
import pg8000.dbapi
import pg8000.legacy
import psycopg
import psycopg2
import pytest
import sqlalchemy
from joining import django_project
from joining.app import App, open_app
from joining.flavours import FLAVOURS, Flavour, engine_settings, pg8000_place, where
from psycopg.rows import dict_row
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from piecework import InvalidOptions, JobAlreadyExists, JobNotFound, NoTransaction, TransactionError, new_id

SOON = timedelta(seconds=60)


def flavour(name: str) -> Flavour:
    return next(each for each in FLAVOURS if each.name == name)


# with jobs that run


async def test_a_worker_runs_what_was_committed_and_nothing_else(app: App) -> None:
    async with app.jobs, app.jobs.worker(), await psycopg.AsyncConnection.connect(app.dsn) as conn:
        undone = await app.greet.options(conn=conn, queue="default").spawn("Grace")
        await conn.rollback()
        handle = await app.greet.options(conn=conn, queue="default").spawn("Ada")
        more = await app.jobs.spawn_all([app.greet.options(queue="default").spec("Mary")], conn=conn)
        assert await app.jobs.find(handle.id) is None
        await conn.commit()
        assert await handle.result(timeout=SOON) == "Hello Ada"
        assert await more.results(timeout=SOON) == ["Hello Mary"]
        assert await app.jobs.find(undone.id) is None


async def test_a_cancellation_in_a_transaction_stops_what_runs_with_the_commit(app: App) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    @app.jobs.job
    async def hang() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with app.jobs, app.jobs.worker(), await psycopg.AsyncConnection.connect(app.dsn) as conn:
        handle = await hang.spawn()
        await started.wait()
        assert await handle.cancel(conn=conn)
        assert not stopped.is_set()
        await conn.commit()
        assert (await handle.wait(timeout=SOON)).status == "cancelled"
        assert stopped.is_set()
        assert await app.jobs.handles([handle.id]).cancel(conn=conn) == [False]
        with pytest.raises(JobNotFound):
            await app.jobs.handle(new_id()).cancel(conn=conn)


async def test_a_sibling_of_a_job_that_is_cancelled_in_a_transaction_runs_soon(app: App) -> None:
    """Concurrency keys are left alone by the transaction, for which others would wait: the sweep hands them on."""
    @app.jobs.job(concurrency_key="one")
    async def work(number: int) -> int:
        return number

    async with app.jobs, await psycopg.AsyncConnection.connect(app.dsn) as conn:
        first, second = await work.spawn(1), await work.spawn(2)
        assert await first.cancel(conn=conn)
        async with app.jobs.worker():
            assert await second.result(timeout=SOON) == 2
        await conn.commit()
        assert (await first.load()).status == "cancelled"


# in the transaction


def test_a_savepoint_undoes_a_spawn_and_the_rest_stays(app: App) -> None:
    with psycopg.connect(app.dsn) as conn:
        kept = app.greet.options(conn=conn).spawn_sync("Ada")
        with conn.transaction():
            app.greet.options(conn=conn).spawn_sync("Grace")
            raise psycopg.Rollback
        conn.commit()
    assert app.stored() == {kept.id: "Ada"}


def test_after_an_error_in_a_savepoint_the_transaction_goes_on(app: App) -> None:
    twice = app.greet.options(id=new_id())
    engine = sqlalchemy.create_engine(**engine_settings("psycopg2", app.dsn, autocommit=False))
    with Session(engine) as session:
        kept = twice.options(conn=session).spawn_sync("Ada")
        with pytest.raises(JobAlreadyExists), session.begin_nested():
            twice.options(conn=session).spawn_sync("Grace")
        session.commit()
    with django_project.database(where(app.dsn)), django_project.atomic():
        with pytest.raises(JobAlreadyExists), django_project.atomic():
            twice.options(conn=django_project.proxy()).spawn_sync("Mary")
        also = app.greet.options(conn=django_project.proxy()).spawn_sync("Mary")
    assert app.stored() == {kept.id: "Ada", also.id: "Mary"}


async def test_after_an_error_in_a_savepoint_asyncpg_goes_on(app: App) -> None:
    twice = app.greet.options(id=new_id())
    conn = await asyncpg.connect(**where(app.dsn))
    async with conn.transaction():
        kept = await twice.options(conn=conn).spawn("Ada")
        with pytest.raises(JobAlreadyExists):
            async with conn.transaction():
                await twice.options(conn=conn).spawn("Grace")
    await conn.close()
    assert app.stored() == {kept.id: "Ada"}


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_jobs_without_a_chosen_id_are_spawned_in_any_isolation_level(app: App, level: str) -> None:
    with psycopg.connect(app.dsn) as conn:
        conn.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        handle = app.greet.options(conn=conn).spawn_sync("Ada")
        conn.commit()
    assert app.stored() == {handle.id: "Ada"}


def test_two_open_transactions_do_not_wait_for_each_other(app: App) -> None:
    with psycopg.connect(app.dsn) as one, psycopg.connect(app.dsn) as two:
        two.execute("SET lock_timeout = '5s'")
        app.greet.options(conn=one).spawn_sync("Ada")
        app.greet.options(conn=two).spawn_sync("Grace")
        two.commit()
        assert list(app.stored().values()) == ["Grace"]
        one.commit()
    assert sorted(app.stored().values()) == ["Ada", "Grace"]


def test_the_live_holder_of_a_key_is_answered(app: App) -> None:
    keyed = app.greet.options(key="once")
    with psycopg.connect(app.dsn) as conn:
        first = keyed.options(conn=conn).spawn_sync("Ada")
        second = keyed.options(conn=conn).spawn_sync("Grace")
        both = app.jobs.spawn_all_sync([app.greet.spec("Mary"), keyed.spec("Grace")], conn=conn)
        assert conn.execute("SHOW lock_timeout").fetchone() == ("0",)
        conn.commit()
    assert (first.created, second.created, second.id) == (True, False, first.id)
    assert both[1].id == first.id
    assert app.stored() == {first.id: "Ada", both[0].id: "Mary"}


def test_what_is_wrong_with_the_call_is_told_before_the_transaction_is_touched(app: App) -> None:
    with psycopg.connect(app.dsn) as conn:
        with pytest.raises(TypeError, match="name"):
            app.greet.options(conn=conn).spawn_sync(7)  # type: ignore[arg-type]
        with pytest.raises(InvalidOptions, match="got no specs"):
            app.jobs.spawn_all_sync([], conn=conn)
        assert conn.info.transaction_status == 0


# on the caller's own objects


def test_what_a_cursor_has_fetched_is_left_alone(app: App) -> None:
    with psycopg.connect(app.dsn, row_factory=dict_row) as conn, conn.cursor() as cursor:
        cursor.execute("SELECT generate_series(1, 3) AS n")
        assert cursor.fetchone() == {"n": 1}
        app.greet.options(conn=cursor).spawn_sync("Ada")
        assert cursor.fetchall() == [{"n": 2}, {"n": 3}]
    conn2 = psycopg2.connect(app.dsn)
    with conn2.cursor() as cursor2:
        cursor2.execute("SELECT generate_series(1, 3)")
        app.greet.options(conn=cursor2).spawn_sync("Grace")
        assert cursor2.fetchall() == [(1,), (2,), (3,)]
    conn2.close()


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


def test_a_session_is_not_flushed_by_a_spawn_and_commits_both(dsn: str) -> None:
    engine = sqlalchemy.create_engine(**engine_settings("psycopg", dsn, autocommit=False))
    Base.metadata.create_all(engine)
    with open_app(dsn) as app, Session(engine) as session:
        session.add(order := Order(id=7))
        handle = app.greet.options(conn=session).spawn_sync("Ada")
        assert order in session.new
        session.commit()
        assert app.stored() == {handle.id: "Ada"}
        assert session.get_one(Order, 7) is order
        session.expunge(order)
        session.add(Order(id=7))
        app.greet.options(conn=session).spawn_sync("Grace")
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            session.commit()
        with pytest.raises(TransactionError, match="rolled back"):
            app.greet.options(conn=session).spawn_sync("Mary")
        session.rollback()
        assert app.stored() == {handle.id: "Ada"}


@pytest.mark.parametrize("style", ["qmark", "numeric", "named", "format", "pyformat"])
@pytest.mark.parametrize("driver", [pg8000.dbapi, pg8000.legacy], ids=["dbapi", "legacy"])
def test_any_paramstyle_of_pg8000_will_do(app: App, style: str, driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pg8000.dbapi, "paramstyle", style)
    monkeypatch.setattr(pg8000, "paramstyle", style)
    conn = driver.connect(**pg8000_place(app.dsn))
    handle = app.greet.options(conn=conn).spawn_sync("50% :a ?")
    conn.commit()
    conn.close()
    assert app.stored() == {handle.id: "50% :a ?"}


class Tracing:
    """What tracers wrap connections in: it says that it is of their class, and passes everything on."""

    def __init__(self, wrapped: object) -> None:
        object.__setattr__(self, "wrapped", wrapped)

    @property
    def __class__(self) -> Any:
        return type(object.__getattribute__(self, "wrapped"))

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "wrapped"), name)

    def __call__(self) -> Any:
        return object.__getattribute__(self, "wrapped")()


@pytest.mark.parametrize(
    "name", ["psycopg", "psycopg2", "pg8000", "sqlalchemy-psycopg", "session-psycopg", "scoped-session",
             "psycopg-async", "asyncpg", "async-session-asyncpg", "django-wrapper"]
)  # fmt: skip
def test_a_transparent_proxy_is_taken_for_what_is_behind_it(app: App, name: str) -> None:
    with flavour(name).open(app.dsn) as session:
        session.conn = Tracing(session.conn)
        handle = session.spawn(app.greet, "Ada")
        session.commit()
    assert app.stored() == {handle.id: "Ada"}


def test_a_proxy_that_stands_for_nothing_is_refused(app: App) -> None:
    class Outside:
        @property
        def __class__(self) -> Any:
            raise RuntimeError("outside of a request")

    with pytest.raises(TypeError, match="is no connection"):
        app.greet.options(conn=Outside()).spawn_sync("Ada")


def test_djangos_connection_is_that_of_the_calling_thread(app: App) -> None:
    refused: list[Exception] = []

    def elsewhere() -> None:
        try:
            app.greet.options(conn=django_project.proxy()).spawn_sync("Grace")
        except NoTransaction as error:
            refused.append(error)
        django_project.wrapper().close()

    with django_project.database(where(app.dsn)), django_project.atomic():
        handle = app.greet.options(conn=django_project.proxy()).spawn_sync("Ada")
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(30)
    assert len(refused) == 1
    assert app.stored() == {handle.id: "Ada"}


async def test_djangos_connection_is_not_for_the_event_loop(app: App) -> None:
    with pytest.raises(TypeError, match=r"django.* is a blocking connection"):
        await app.greet.options(conn=django_project.proxy()).spawn("Ada")
