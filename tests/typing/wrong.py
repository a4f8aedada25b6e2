"""Every line with an E comment must be rejected by mypy and pyright in strict mode, no other may be. Never run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import psycopg

from piecework import CurrentJob, JobHandle, Jobs, JobSpawner, Reschedule, RetrySettings, WorkerSettings

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


async def spawns(job: CurrentJob) -> None:
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


async def current(job: CurrentJob[Config]) -> None:
    job.config.nope  # E no such field
    job.attempt = 3  # E read-only
    job.progress(1)  # E not in this version


async def worker() -> None:
    async with jobs.worker(concurrency=4):  # E settings are one value
        pass
    with jobs.worker():  # E async only
        pass
    jobs.run_worker("default")  # E not WorkerSettings
