"""Every line with an E comment must be rejected by mypy and pyright in strict mode, no other may be. Never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import psycopg
from psycopg_pool import ConnectionPool
from sqlalchemy import Connection as SaConnection
from sqlalchemy.ext.asyncio import AsyncConnection as SaAsyncConnection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, scoped_session

from piecework import (
    BatchedJobRunner,
    BatchOutcomes,
    CurrentBatch,
    CurrentJob,
    JobCompletion,
    JobHandle,
    JobInitializer,
    JobRunner,
    Jobs,
    JobSpawner,
    Reschedule,
    ResidentJobRunner,
    RetrySettings,
    WorkerSettings,
)
from piecework.testing import ManualClock

jobs = Jobs()
SECONDS = timedelta(seconds=30)


@jobs.job
async def send(to: str, subject: str = "x", *, html: bool = False) -> str:
    return to


@jobs.job(queue="q")
def report(job: CurrentJob, month: str) -> bytes:
    return b""


@jobs.job
async def poll(n: int) -> int | Reschedule:
    return 1


@dataclass
class Config:
    account: str


@dataclass
class Other:
    account: str


class Runner(JobRunner[Config, int]):
    job_type = "runner"

    async def run(self, job: CurrentJob[Config]) -> int:
        return 1


runner = jobs.add(Runner())


async def spawns(job: CurrentJob) -> None:
    await runner.spawn(Other("a"))  # E wrong config
    await runner.spawn("a")  # E not a config
    await runner.spawn(Config("a"), priority=3)  # E options go through options()
    runner.options(concurrency_limit="two")  # E not a number
    runner.options(key=7)  # E not a text
    await send.spawn(1)  # E wrong type
    await send.spawn()  # E missing
    await send.spawn("a", "b", True)  # E keyword-only passed by position
    await send.spawn("a", subjekt="b")  # E misspelt
    await report.spawn(job, "2026")  # E the current job is not the caller's to give
    await report.spawn()  # E missing after the current job
    report.spawn_sync(2026)  # E wrong type, sync
    await send.spawn("a", queue="q")  # E options go through options()
    send.spec(1)  # E wrong type in a spec
    send.options(delay=5)  # E a bare number is no duration
    send.options(run_at="tomorrow")  # E not a datetime
    send.options(prio=3)  # E no such option
    send.options(priority="high")  # E not a number
    send.options(id="0198")  # E not a UUID
    await send.options(queue="q").spawn(3)  # E types survive options
    await send.options(queue="q")("a")  # E options() is a spawner, not the function


async def results() -> None:
    h = await send.spawn("a")
    n: int = await h.result(timeout=SECONDS)  # E str is no int
    await h.result()  # E timeout is required
    await h.result(timeout=30)  # E seconds are not a timedelta
    p = await poll.spawn(1)
    s: str = await p.result(timeout=SECONDS)  # E int, the Reschedule is taken off
    b: int = h.result_sync(timeout=SECONDS)  # E str is no int, sync
    bad: JobHandle[int] = await send.spawn("a")  # E handle of another type
    untyped: str = await jobs.handle(h.id).result(timeout=SECONDS)  # E a bare id has no result type
    print(n, s, b, bad, untyped)


async def direct(job: CurrentJob) -> None:
    await send(1)  # E direct call, wrong type
    report("2026")  # E direct call needs the current job
    n: int = await send("a")  # E direct call, wrong result
    m: int = await poll(1)  # E direct call may answer Reschedule
    send.spawn("a")  # E forgotten await
    report(job, "a").upper().nope()  # E bytes
    print(n, m)


class Asyncpg:
    def is_in_transaction(self) -> bool:
        return True

    async def fetchval(self, query: str, *args: object) -> object:
        return query


async def joins_others(
    session: Session, asy_session: AsyncSession, scoped: scoped_session[Session], alchemy: SaConnection,
    asy_alchemy: SaAsyncConnection, pg: Asyncpg, cursor: psycopg.Cursor, asy_cursor: psycopg.AsyncCursor,
) -> None:
    await send.options(conn=session).spawn("a")  # E sync session in an async spawn
    send.options(conn=asy_session).spawn_sync("a")  # E async session in a sync spawn
    await send.options(conn=scoped).spawn("a")  # E scoped sync session in an async spawn
    await send.options(conn=alchemy).spawn("a")  # E sync connection of SQLAlchemy in an async spawn
    send.options(conn=asy_alchemy).spawn_sync("a")  # E async connection of SQLAlchemy in a sync spawn
    send.options(conn=pg).spawn_sync("a")  # E asyncpg in a sync spawn
    await send.options(conn=cursor).spawn("a")  # E sync cursor in an async spawn
    send.options(conn=asy_cursor).spawn_sync("a")  # E async cursor in a sync spawn
    await jobs.spawn_all([send.spec("a")], conn=session)  # E sync session in bulk
    jobs.spawn_all_sync([send.spec("a")], conn=pg)  # E asyncpg in sync bulk
    await send.options(conn=3).spawn("a")  # E a number is no connection
    send.options(conn=session, delay=5).spawn_sync("a")  # E a bare number is no duration, with conn too


async def joins(sync: psycopg.Connection, asy: psycopg.AsyncConnection) -> None:
    await send.options(conn=sync).spawn("a")  # E sync connection in an async spawn
    send.options(conn=asy).spawn_sync("a")  # E async connection in a sync spawn
    await send.options(conn="dsn").spawn("a")  # E a string is no connection
    await send.options(conn=asy).spawn(1)  # E types survive conn
    send.options(conn=asy).spec("a")  # E a spec joins no transaction
    await jobs.spawn_all([send.spec("a")], conn=sync)  # E sync connection in bulk
    jobs.spawn_all_sync([send.spec("a")], conn=asy)  # E async connection in sync bulk
    await jobs.spawn_all([send])  # E a job function is no spec
    await jobs.spawn_all([("a", "b")])  # E a tuple is no spec


@jobs.job(timeout=600)  # E a bare number is no duration
async def d1() -> None: ...


@jobs.job(timeout=None)  # E leave it out
async def d7() -> None: ...


def told(job: CurrentJob) -> None:
    job.cancel_requested = True  # E it is asked of the job, not set by it
    if job.cancel_requested():  # E a property
        return


@jobs.job(retries=3)  # E no such setting
async def d2() -> None: ...


@jobs.job(retry=5)  # E not RetrySettings
async def d3() -> None: ...


@jobs.job(concurrency_key=lambda a: f"{a}")  # E a template string, not a function
async def d4(a: int) -> None: ...


@jobs.resident()  # E a resident job reschedules
async def r1(job: CurrentJob) -> None: ...


@jobs.resident  # E a resident job reschedules, bare
async def r2(job: CurrentJob) -> int:
    return 1


@jobs.resident()  # E a resident plain function, too
def r3() -> str:
    return ""


@jobs.resident(every=3)  # E no such setting
async def r4() -> Reschedule:
    return Reschedule.now()


@jobs.batched()  # E a batched job takes a CurrentBatch
async def b1(job: CurrentJob) -> None: ...


@jobs.batched()  # E and answers None or outcomes
async def b2(batch: CurrentBatch[Config]) -> int:
    return 1


@jobs.batched  # E bare, too
async def b3(batch: CurrentBatch[Config]) -> int:
    return 1


@jobs.batched  # E with async def
def b4(batch: CurrentBatch[Config]) -> None: ...


@jobs.batched(size=3)  # E no such setting
async def b5(batch: CurrentBatch[Config]) -> None: ...


@jobs.batched(max_size="3")  # E a number
async def b6(batch: CurrentBatch[Config]) -> None: ...


@jobs.batched
async def indexed(batch: CurrentBatch[Config]) -> BatchOutcomes[int]:
    return batch.outcomes(lambda item: item.config.account)  # E the results are int


async def batches(batch: CurrentBatch[Config]) -> None:
    await indexed.spawn(Other("a"))  # E wrong config
    await indexed.spawn()  # E no config
    await indexed.spawn(batch)  # E the config, not the batch
    await indexed(Config("a"))  # E the batch, not the config
    batch.items[0].config.acount  # E misspelt
    batch.items.append  # E a sequence that is not changed
    await batch.run_isolated(lambda item: 1)  # E it takes a connection besides, and is awaited
    await batch.run_bisected(batch.run_isolated)  # E takes items and a connection
    BatchOutcomes([("id", 1)])  # E an id is no text


class WrongBatch(BatchedJobRunner[Config]):
    job_type = "w"

    async def run_batch(self, batch: CurrentBatch[Config]) -> BatchOutcomes[int]: ...  # E the result is None


class NoRunBatch(BatchedJobRunner[Config]):
    job_type = "n"

    async def run(self, batch: CurrentBatch[Config]) -> None: ...


jobs.add(NoRunBatch())  # E abstract
jobs.add(indexed)  # E a function job is registered by its decorator


class Completes(ResidentJobRunner[Config]):
    job_type = "c"

    async def run(self, job: CurrentJob[Config]) -> None: ...  # E a resident job reschedules


class WrongResult(JobRunner[Config, int]):
    job_type = "w"

    async def run(self, job: CurrentJob[Config]) -> str: ...  # E the result is int


class WrongConfig(JobRunner[Config]):
    job_type = "w"

    async def run(self, job: CurrentJob[Other]) -> None: ...  # E the config is Config


class NotAsync(JobRunner[Config]):
    job_type = "w"

    def run(self, job: CurrentJob[Config]) -> None: ...  # E run is async


class WrongKey(JobRunner[Config]):
    job_type = "w"

    def concurrency_key(self, config: Other) -> str: ...  # E the config is Config

    async def run(self, job: CurrentJob[Config]) -> None: ...


class KeyIsNumber(JobRunner[Config]):
    job_type = "w"

    def key(self, config: Config) -> int: ...  # E a text or None

    async def run(self, job: CurrentJob[Config]) -> None: ...


class WrongType(JobRunner[Config]):
    job_type = 3  # E a string

    async def run(self, job: CurrentJob[Config]) -> JobCompletion: ...


class WrongTimeout(JobRunner[Config]):
    job_type = "w"
    timeout = 30  # E a bare number is no duration

    async def run(self, job: CurrentJob[Config]) -> JobCompletion: ...


class WrongInit(JobInitializer[Config, str]):
    job_type = "w"

    def init(self, job: CurrentJob[Config]) -> Runner: ...  # E its runner has the result int


class NoRun(JobRunner[Config]):
    job_type = "n"


jobs.add(NoRun())  # E abstract
jobs.add(Runner)  # E a class, not an instance
jobs.add(send)  # E a job function is registered by its decorator
jobs.spawner(Runner())  # E an instance, not the class
jobs.spawner(send)  # E a job function is a spawner itself
no: JobSpawner[[Other], int] = runner  # E spawner of another config


@jobs.resource  # E it yields
async def r5() -> int:
    return 1


@jobs.resource  # E it takes nothing
async def r6(dsn: str) -> AsyncIterator[int]:
    yield 1


@jobs.resource
async def number() -> AsyncIterator[int]:
    yield 1


text: str = number.get()  # E int
number.override("three")  # E another type


@jobs.job(fail_on=ValueError)  # E a tuple of types
async def d5() -> None: ...


@jobs.job(aliases=3)  # E names
async def d6() -> None: ...


x: JobSpawner[[Config], str] = send  # E spawner of other parameters
y: JobSpawner[[str], int] = send  # E spawner of another result
RetrySettings(5)  # E keywords only
RetrySettings(min_backoff=1.5)  # E a bare number is no duration
WorkerSettings(concurency=3)  # E misspelt
WorkerSettings().concurrency = 3  # E frozen
Reschedule.after(5)  # E a bare number is no duration
Reschedule()  # E say when
Jobs("postgresql://", "schema")  # E keywords only
Jobs(5)  # E not a DSN
Jobs(pool="postgresql://")  # E a DSN is no pool
Jobs(pool=ConnectionPool("", open=False))  # E an asynchronous pool


async def current(job: CurrentJob[Config]) -> None:
    job.config.nope  # E no such field
    job.attempt = 3  # E read-only
    job.progress(1)  # E forgotten await
    await job.progress("half")  # E how much is done is a number
    await job.progress_sync(1)  # E the twin blocks
    some: int = job.execution_state(int)  # E int or None
    print(some)
    job.execution_state(3)  # E a type
    await job.complete_in()  # E a connection


async def writes(
    job: CurrentJob, asy: psycopg.AsyncConnection, sync: psycopg.Connection, engine: AsyncEngine, pool: ConnectionPool
) -> None:
    await job.save_state(1, conn=sync)  # E sync connection
    job.save_state_sync(1, conn=asy)  # E async connection
    job.save_state(1)  # E forgotten await
    await job.set_result(1, conn=sync)  # E sync connection
    await job.complete_in(sync)  # E sync connection
    job.complete_in_sync(asy)  # E async connection
    await job.complete_in(asy, 3)  # E no reschedule
    await job.guard(sync)  # E sync connection
    async with job.completing(3):  # E not a reschedule
        pass
    async with job.completing(begin=asy):  # E begin is a callable
        pass
    with job.completing(begin=engine.begin):  # E it opens asynchronously
        pass
    async with job.completing(begin=pool.connection):  # E it opens blocking
        pass
    async with job.completing() as conn:
        conn.nope()  # E an AsyncConnection
    with job.completing() as own:
        await own.execute("SELECT 1")  # E a blocking connection


async def looks() -> None:
    await send.keyed_handle(7)  # E a key is a text
    await jobs.spawn_all([send.spec("a")]) + [3]  # E handles are joined with handles
    (await (await send.spawn("a")).load()).config_as("Config")  # E a type, not its name
    await jobs.set_concurrency_limit("c", "many")  # E a number
    await jobs.set_concurrency_limit("c", 1, "mail")  # E the queue is named
    await ManualClock(jobs).advance(5)  # E a bare number is no duration


async def worker() -> None:
    async with jobs.worker(concurrency=4):  # E settings are one value
        pass
    with jobs.worker():  # E async only
        pass
    jobs.run_worker("default")  # E not WorkerSettings
