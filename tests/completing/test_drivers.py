"""Blocks on what each library has to open a connection or a transaction, and completion in one that is open."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import psycopg
import psycopg2
import pytest
import sqlalchemy
from completing.effects import PAY, Effects
from engine.helpers import SOON, count, query
from joining.flavours import FLAVOURS, Flavour, awaited, engine_settings, where
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy.ext import asyncio as sa_asyncio
from sqlalchemy.orm import Session, sessionmaker

from piecework import CurrentJob, Jobs, RetrySettings, WrongConnection
from piecework.base.latch import Latch
from piecework.jobs import service_of
from piecework.work.claim_run import ClaimRun
from support.scene import NOW, Scene

QUICK = RetrySettings(min_backoff=timedelta(milliseconds=10))
Begin = Callable[[], Any]


def create_engine(dsn: str, driver: str) -> sqlalchemy.Engine:
    return sqlalchemy.create_engine(**engine_settings(driver, dsn, autocommit=False))


def begins(engine: Any, maker: Any) -> dict[str, Begin]:
    """What SQLAlchemy has: some begin a transaction, with some the first statement does, and nobody commits it."""
    return {
        "engine.begin": engine.begin, "engine.connect": engine.connect, "Session.begin": maker.begin, "Session": maker,
    }  # fmt: skip


@asynccontextmanager
async def psycopg_async_pool(dsn: str, autocommit: bool = False) -> AsyncIterator[Begin]:
    async with AsyncConnectionPool(dsn, min_size=1, kwargs={"autocommit": autocommit}, open=False) as pool:
        yield pool.connection


@asynccontextmanager
async def asyncpg_pool(dsn: str) -> AsyncIterator[Begin]:
    async with asyncpg.create_pool(**where(dsn), min_size=1) as pool:
        yield pool.acquire


@asynccontextmanager
async def alchemy_async(dsn: str, driver: str, begin: str) -> AsyncIterator[Begin]:
    engine = sa_asyncio.create_async_engine(**engine_settings(driver, dsn, autocommit=False))
    maker = sa_asyncio.async_sessionmaker(engine)
    yield begins(engine, maker)[begin]
    await engine.dispose()


ASYNC = {
    "psycopg pool": psycopg_async_pool,
    "psycopg pool, autocommit": functools.partial(psycopg_async_pool, autocommit=True),
    "asyncpg pool": asyncpg_pool,
    **{
        f"{driver} {begin}": functools.partial(alchemy_async, driver=driver, begin=begin)
        for driver in ("psycopg", "asyncpg")
        for begin in ("engine.begin", "engine.connect", "Session.begin", "Session")
    },
}


@contextmanager
def psycopg_pool(dsn: str, autocommit: bool = False) -> Iterator[Begin]:
    with ConnectionPool(dsn, min_size=1, kwargs={"autocommit": autocommit}, open=False) as pool:
        yield pool.connection


@contextmanager
def psycopg_connect(dsn: str) -> Iterator[Begin]:
    yield lambda: psycopg.connect(dsn)


@contextmanager
def psycopg2_connect(dsn: str) -> Iterator[Begin]:
    conn = psycopg2.connect(dsn)
    yield lambda: conn
    conn.close()


@contextmanager
def alchemy(dsn: str, driver: str, begin: str) -> Iterator[Begin]:
    engine = create_engine(dsn, driver)
    maker = sessionmaker(engine)
    yield begins(engine, maker)[begin]
    engine.dispose()


SYNC = {
    "psycopg pool": psycopg_pool,
    "psycopg pool, autocommit": functools.partial(psycopg_pool, autocommit=True),
    "psycopg connect": psycopg_connect,
    "psycopg2 connection": psycopg2_connect,
    **{
        f"{driver} {begin}": functools.partial(alchemy, driver=driver, begin=begin)
        for driver in ("psycopg", "psycopg2", "pg8000")
        for begin in ("engine.begin", "engine.connect", "Session.begin", "Session")
    },
}


def execute(conn: Any, statement: str) -> Any:
    """Run it on whatever was yielded: the result of an asynchronous one is to be awaited."""
    if isinstance(conn, psycopg2.extensions.connection):
        with conn.cursor() as cursor:
            return cursor.execute(statement)
    ours = isinstance(conn, psycopg.Connection | psycopg.AsyncConnection) or "asyncpg" in type(conn).__module__
    return conn.execute(statement if ours else sqlalchemy.text(statement))


@pytest.mark.parametrize("name", ASYNC)
async def test_a_block_commits_and_rolls_back_with_the_job_on(
    jobs: Jobs, effects: Effects, dsn: str, name: str
) -> None:
    async with ASYNC[name](dsn) as begin:

        @jobs.job
        async def receipt() -> None: ...

        @jobs.job(retry=QUICK)
        async def pay(job: CurrentJob) -> str | None:
            async with job.completing(begin=begin) as conn:
                await execute(conn, PAY)
                await receipt.options(conn=conn, queue="later").spawn()
                await job.save_state(1, conn=conn)
                await job.set_result(f"attempt {job.attempt}", conn=conn)
                if job.attempt == 1:
                    raise ConnectionError

        async with jobs.worker():
            handle = await pay.spawn()
            assert await handle.result(timeout=SOON) == "attempt 2"
    assert (effects.all, effects.moves(handle), effects.guards) == (["paid"], ["retry"], 0)
    assert count(dsn, "jobs WHERE job_type = 'receipt'") == 1
    assert count(dsn, "execution_states") == 0


@pytest.mark.parametrize("name", SYNC)
async def test_a_block_in_a_thread_commits_and_rolls_back_with_the_job_on(
    jobs: Jobs, effects: Effects, dsn: str, name: str
) -> None:
    with SYNC[name](dsn) as begin:

        @jobs.job
        async def receipt() -> None: ...

        @jobs.job(retry=QUICK)
        def pay(job: CurrentJob) -> str | None:
            with job.completing(begin=begin) as conn:
                execute(conn, PAY)
                receipt.options(conn=conn, queue="later").spawn_sync()
                job.save_state_sync(1, conn=conn)
                job.set_result_sync(f"attempt {job.attempt}", conn=conn)
                if job.attempt == 1:
                    raise ConnectionError

        async with jobs.worker():
            handle = await pay.spawn()
            assert await handle.result(timeout=SOON) == "attempt 2"
    assert (effects.all, effects.moves(handle), effects.guards) == (["paid"], ["retry"], 0)
    assert count(dsn, "jobs WHERE job_type = 'receipt'") == 1


@pytest.mark.parametrize("flavour", FLAVOURS, ids=lambda flavour: flavour.name)
def test_a_job_completes_in_the_open_transaction_of(dsn: str, flavour: Flavour) -> None:
    """Its state and its result go the same way. What is rolled back leaves the claim; what is committed ends it."""
    with Jobs(dsn) as jobs:

        @jobs.job
        def work() -> int: ...

        job = claimed(jobs, dsn)
        for commits in (False, True):
            with flavour.open(dsn) as session:

                def call(verb: str, *args: Any, **kwargs: Any) -> None:
                    method = getattr(job, f"{verb}_sync" if flavour.blocking else verb)
                    session._done(awaited(method(*args, **kwargs)))

                call("guard", session.conn)
                call("save_state", 1, conn=session.conn)
                call("set_result", {"n": 1}, conn=session.conn)
                call("complete_in", session.conn)
                assert count(dsn, "finished_jobs") == 0
                (session.commit if commits else session.rollback)()
    assert query(dsn, "SELECT status, result FROM piecework.finished_jobs") == [("completed", {"n": 1})]
    assert [count(dsn, table) for table in ("jobs", "guards", "progress", "execution_states")] == [0, 0, 0, 0]


def claimed(jobs: Jobs, dsn: str) -> CurrentJob:
    """Spawn a job of the type `work` and have a worker claim it that runs nothing."""
    async def claim() -> CurrentJob:
        async with Scene.open(dsn) as scene:
            worker, [job] = await scene.running()
        service = service_of(jobs)
        kind = service.registry.get("work")
        assert kind is not None
        return CurrentJob(job, Latch(), functools.partial(ClaimRun, service, job, kind, worker, NOW, time.monotonic))

    return asyncio.run(claim())


async def test_a_block_that_yields_no_connection_is_refused_by_name(jobs: Jobs, dsn: str, effects: Effects) -> None:
    """As Django's `transaction.atomic` does: there `guard_sync` and `complete_in_sync` take its connection."""

    @contextmanager
    def begin() -> Iterator[None]:
        yield

    said: list[str] = []

    @jobs.job(retry=RetrySettings(n_attempts=1))
    def pay(job: CurrentJob) -> None:
        try:
            with job.completing(begin=begin):
                pass
        except WrongConnection as error:
            said.append(str(error))

    async with jobs.worker():
        await (await pay.spawn()).result(timeout=SOON)
    assert "NoneType is no connection" in said[0]


async def test_an_orm_object_of_a_session_is_written_with_the_job(jobs: Jobs, dsn: str, effects: Effects) -> None:
    class Base(sqlalchemy.orm.DeclarativeBase): ...

    class Effect(Base):
        __tablename__ = "effects"
        what: sqlalchemy.orm.Mapped[str] = sqlalchemy.orm.mapped_column(primary_key=True)

    engine = create_engine(dsn, "psycopg")
    maker = sessionmaker(engine)

    @jobs.job
    def pay(job: CurrentJob) -> None:
        with job.completing(begin=maker.begin) as session:
            assert isinstance(session, Session)
            session.add(Effect(what="paid"))

    async with jobs.worker():
        await (await pay.spawn()).result(timeout=SOON)
    assert effects.all == ["paid"]
