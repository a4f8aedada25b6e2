"""What cannot be joined, and what the database says in a transaction that was joined."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import UUID

import asyncpg
import pg8000.native
import psycopg
import psycopg_pool
import pytest
import sqlalchemy
from joining import django_project
from joining.app import App
from joining.flavours import DRIVERS, FLAVOURS, Flavour, pg8000_place
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext import asyncio as sa_asyncio
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from piecework import (
    DatabaseUnreachable,
    Jobs,
    MigrationsNeeded,
    PermissionDenied,
    TransactionError,
    WrongConnection,
    new_id,
)
from piecework.base.errors import PieceworkError

every_driver = pytest.mark.parametrize("flavour", DRIVERS, ids=lambda flavour: flavour.name)
A, B = UUID(int=1), UUID(int=2)


def flavour(name: str) -> Flavour:
    return next(each for each in FLAVOURS if each.name == name)


def no_pool(cls: Any) -> Any:
    return cls("", open=False)


# what is no connection


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: None, "NoneType is no connection"),
        (lambda: "postgresql://ada:secret@host/db", "builtins.str is no connection that piecework knows"),
        (object, "object is no connection"),
        (dict, "dict is no connection"),
        (django_project.cache_proxy, "is no connection"),
        (lambda: no_pool(psycopg_pool.ConnectionPool), r"write `with pool.connection\(\) as conn:` and give `conn`"),
        (lambda: no_pool(psycopg_pool.AsyncNullConnectionPool), r"write `async with pool.connection\(\)"),
        (lambda: sqlalchemy.create_engine("postgresql+psycopg://"), r"`with engine.begin\(\) as conn:`"),
        (lambda: sa_asyncio.create_async_engine("postgresql+asyncpg://"), r"`async with engine.begin\(\) as conn:`"),
        (sessionmaker, r"`with maker.begin\(\) as session:`"),
        (sa_asyncio.async_sessionmaker, r"`async with maker.begin\(\) as session:`"),
        (lambda: psycopg.connect, "is no connection"),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", ""),
)
async def test_what_is_no_connection_is_refused_with_what_is(app: App, make: Callable[[], object], said: str) -> None:
    conn: Any = make()
    for joined in (app.greet.options(conn=conn), app.greet.options(queue="q").options(conn=conn)):
        with pytest.raises(WrongConnection, match=said) as one:
            joined.spawn_sync("Ada")
        with pytest.raises(WrongConnection, match=said):
            await joined.spawn("Ada")
    assert isinstance(one.value, TypeError)
    assert "secret" not in str(one.value)
    assert " takes a connection or cursor of psycopg" in str(one.value) or "write" in str(one.value)


async def test_a_pool_of_asyncpg_is_no_connection(app: App) -> None:
    async with asyncpg.create_pool(min_size=0) as pool:
        with pytest.raises(WrongConnection, match=r"`async with pool.acquire\(\) as conn, conn.transaction\(\):`"):
            await app.greet.options(conn=pool).spawn("Ada")


def test_the_native_connection_of_pg8000_is_refused(app: App) -> None:
    refused = pytest.raises(WrongConnection, match=r"write `pg8000\.dbapi\.connect")
    with closing(pg8000.native.Connection(**pg8000_place(app.dsn))) as conn, refused:
        app.greet.options(conn=conn).spawn_sync("Ada")


def test_another_database_than_postgresql_is_refused(app: App) -> None:
    refused = pytest.raises(WrongConnection, match="connection is to sqlite: the jobs are in PostgreSQL")
    with sqlalchemy.create_engine("sqlite://").connect() as conn, refused:
        app.greet.options(conn=conn).spawn_sync("Ada")
    with pytest.raises(WrongConnection, match="connection 'lite' is to sqlite: the jobs are in PostgreSQL"):
        app.greet.options(conn=django_project.lite()).spawn_sync("Ada")


def test_a_session_that_does_not_know_its_database_is_refused(app: App) -> None:
    class Base(DeclarativeBase): ...

    class Thing(Base):
        __tablename__ = "thing"
        id: Mapped[int] = mapped_column(primary_key=True)

    engine = sqlalchemy.create_engine("postgresql+psycopg://")
    refused = pytest.raises(TransactionError, match=r"refuses the statement: .*(bound|bind)")
    with Session(binds={Thing: engine}) as session, refused:
        app.greet.options(conn=session).spawn_sync("Ada")


# what cannot go on


@pytest.mark.parametrize(
    "name", ["psycopg", "psycopg-async", "asyncpg", "psycopg2", "sqlalchemy-psycopg", "sqlalchemy-async-asyncpg"]
)
def test_a_closed_connection_is_refused(app: App, name: str) -> None:
    with flavour(name).open(app.dsn) as session:
        session.close()
        with pytest.raises(TransactionError, match=r"closed"):
            session.spawn(app.greet, "Ada")


async def test_a_connection_that_went_back_to_its_pool_is_refused(app: App) -> None:
    place = conninfo_to_dict(app.dsn)
    async with asyncpg.create_pool(
        host=place["host"], port=place["port"], user=place["user"], database=place["dbname"], min_size=1
    ) as pool:
        conn = await pool.acquire()
        await pool.release(conn)
        with pytest.raises(TransactionError, match="released back to the pool"):
            await app.greet.options(conn=conn).spawn("Ada")


@every_driver
def test_an_aborted_transaction_says_so(app: App, flavour: Flavour) -> None:
    with flavour.open(app.dsn) as session:
        with pytest.raises(Exception, match="nothing_of_that_name"):
            session.execute("SELECT nothing_of_that_name")
        with pytest.raises(TransactionError, match="the transaction is aborted: a statement before this one failed"):
            session.spawn(app.greet, "Ada")
        session.rollback()


@every_driver
def test_a_lost_connection_says_so(app: App, flavour: Flavour) -> None:
    with flavour.open(app.dsn) as session:
        session.execute("SET application_name = 'to be lost'")
        app.terminate("to be lost")
        with pytest.raises((DatabaseUnreachable, TransactionError)) as raised:
            session.spawn(app.greet, "Ada")
        assert isinstance(raised.value, DatabaseUnreachable), raised.value
        with pytest.raises(Exception):  # noqa: B017
            session.commit()


@every_driver
def test_a_missing_schema_says_so(app: App, flavour: Flavour) -> None:
    jobs = Jobs(app.dsn, schema="nowhere")

    @jobs.job
    def work() -> None: ...

    with flavour.open(app.dsn) as session:
        with pytest.raises(MigrationsNeeded, match=r'"nowhere".* Run `piecework migrate`') as raised:
            session.spawn(work)
        assert raised.value.__cause__ is not None
        session.rollback()


@every_driver
def test_a_role_without_the_privilege_is_told(app: App, flavour: Flavour) -> None:
    with app.powerless() as role, flavour.open(app.dsn) as session:
        session.execute(f"SET LOCAL ROLE {role}")
        with pytest.raises(PermissionDenied, match="permission denied for schema piecework"):
            session.spawn(app.greet, "Ada")
        session.rollback()


@every_driver
def test_a_read_only_transaction_says_so(app: App, flavour: Flavour) -> None:
    with flavour.open(app.dsn) as session:
        session.execute("SET TRANSACTION READ ONLY")
        with pytest.raises(TransactionError, match="read-only"):
            session.spawn(app.greet, "Ada")
        session.rollback()


@every_driver
def test_a_lock_that_is_not_freed_says_so(app: App, flavour: Flavour) -> None:
    chosen = app.greet.options(id=new_id())
    with psycopg.connect(app.dsn) as other, flavour.open(app.dsn) as session:
        chosen.options(conn=other).spawn_sync("Ada")
        session.execute("SET LOCAL lock_timeout = '50ms'")
        with pytest.raises(TransactionError, match="an open transaction holds what this one needs"):
            session.spawn(chosen, "Grace")
        session.rollback()
        other.rollback()


@every_driver
def test_a_deadlock_says_what_to_do(app: App, flavour: Flavour) -> None:
    """Two transactions take two ids in opposite orders; the database ends one of them."""
    said: list[PieceworkError] = []

    def spawn_a_after_b() -> None:
        with psycopg.connect(app.dsn) as other:
            other.execute("SET deadlock_timeout = '20s'")  # it is the other that looks
            app.greet.options(id=B, conn=other).spawn_sync("Ada")
            taken.set()
            try:
                app.greet.options(id=A, conn=other).spawn_sync("Ada")
            except PieceworkError as error:
                said.append(error)
            other.rollback()

    taken = threading.Event()
    with flavour.open(app.dsn) as session:
        session.execute("SET LOCAL deadlock_timeout = '50ms'")
        session.spawn(app.greet.options(id=A), "Grace")
        thread = threading.Thread(target=spawn_a_after_b)
        thread.start()
        assert taken.wait(30)
        app.wait_until_one_waits()
        with pytest.raises(TransactionError, match=r"deadlock.*roll back and try again"):
            session.spawn(app.greet.options(id=B), "Grace")
        session.rollback()
        thread.join(30)
    assert said == []


@every_driver
def test_a_chosen_id_needs_read_committed(app: App, flavour: Flavour) -> None:
    with flavour.open(app.dsn) as session:
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(TransactionError, match="needs READ COMMITTED, this transaction is repeatable read"):
            session.spawn(app.greet.options(id=new_id()), "Ada")
        session.rollback()


async def test_a_connection_in_the_middle_of_another_statement_is_refused(app: App) -> None:
    """In autocommit mode, where it may be that no transaction is open."""
    async with (
        await psycopg.AsyncConnection.connect(app.dsn, autocommit=True) as conn,
        conn.cursor() as cursor,
        cursor.copy("COPY (SELECT 1) TO STDOUT") as copy,
    ):
        with pytest.raises(TransactionError, match="in the middle of another statement"):
            await app.greet.options(conn=conn).spawn("Ada")
        assert [bytes(row) async for row in copy] == [b"1\n"]


def test_a_statement_that_took_too_long_says_so(app: App) -> None:
    chosen = app.greet.options(id=new_id())
    with psycopg.connect(app.dsn) as other, psycopg.connect(app.dsn) as conn:
        chosen.options(conn=other).spawn_sync("Ada")
        conn.execute("SET LOCAL statement_timeout = '50ms'")
        with pytest.raises(TransactionError, match="cancelled: canceling statement due to statement timeout"):
            chosen.options(conn=conn).spawn_sync("Ada")
        other.rollback()


def test_an_error_of_the_programs_own_is_left_alone(app: App) -> None:
    class Interrupting(psycopg.Connection[Any]):
        @property
        def info(self) -> Any:
            raise ZeroDivisionError("mine")

    with Interrupting.connect(app.dsn) as conn, pytest.raises(ZeroDivisionError, match="mine"):
        app.greet.options(conn=conn).spawn_sync("Ada")
