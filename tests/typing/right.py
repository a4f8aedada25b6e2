"""Every line here must pass mypy and pyright in strict mode. Never run: it is the contract of the types."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Never, TypedDict, assert_type
from uuid import UUID

import msgspec
import psycopg
import pydantic
import sqlmodel
from alembic import context, op
from psycopg_pool import AsyncConnectionPool, AsyncNullConnectionPool, ConnectionPool
from sqlalchemy import Connection as SaConnection
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncConnection as SaAsyncConnection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from piecework import (
    BatchedJobRunner,
    BatchItem,
    BatchOutcomes,
    CurrentBatch,
    CurrentJob,
    ErrorInfo,
    Fail,
    JobCompletion,
    JobExplanation,
    JobHandle,
    JobHandles,
    JobId,
    JobInitializer,
    JobRunner,
    Jobs,
    JobSnapshot,
    JobSpawner,
    JobSpec,
    JobStatus,
    ProbeBudget,
    Progress,
    Reschedule,
    ResidentJobRunner,
    Resource,
    RetrySettings,
    WorkerSettings,
)
from piecework.integrations import alembic as migrations
from piecework.integrations.sql import migration_sql
from piecework.testing import ManualClock, RecordedJob, current_job

jobs = Jobs()
SECONDS = timedelta(seconds=30)


@jobs.job
async def send_email(to: str, subject: str = "Hello", *, html: bool = False) -> str:
    return to


@jobs.job("build-report", queue="reports", retry=RetrySettings(n_attempts=5), fail_on=(ValueError, KeyError))
def build_report(job: CurrentJob, month: str) -> bytes:
    return month.encode()


@jobs.job(aliases=["sync_acc"], tags=["accounts"], priority=-5, max_concurrent_per_process=3)
async def sync_account(job: CurrentJob, account_id: int, *, full: bool = False) -> int | Reschedule | Fail:
    if job.shutdown_requested:
        return Reschedule.now()
    if account_id < 0:
        return Fail("no such account")
    return 3


@jobs.job(strict=True)
def resize(path: str, width: Annotated[int, msgspec.Meta(ge=1)] = 100) -> None: ...


@jobs.job
def maybe(n: int) -> str | Fail:
    return "" if n else Fail("none")


@jobs.job
async def forever(n: int) -> Reschedule:
    return Reschedule.after(SECONDS)


@jobs.job
async def nothing() -> None: ...


@jobs.job(timeout=SECONDS, fail_on=(TimeoutError,))
def counts(job: CurrentJob) -> int:
    assert_type(job.cancel_requested, bool)
    assert_type(job.shutdown_requested, bool)
    return 1


@jobs.job
async def with_self(self: str, args: int, fn: int, type: str) -> None: ...


@jobs.job(key="{account_id}", concurrency_key="account:{account_id}", concurrency_limit=3, inherits_state=True)
async def keyed(account_id: int) -> None: ...


class Address(pydantic.BaseModel):
    street: str


class Line(TypedDict):
    sku: str


class Price(msgspec.Struct):
    cents: int


@dataclass
class Order:
    id: int
    lines: list[Line]


@jobs.job
async def post(order: Order, address: Address, /, price: Price | None = None) -> Order:
    return order


class Mailer:
    @staticmethod
    @jobs.job
    async def mail(to: str) -> int:
        return 1


async def looks() -> None:
    assert_type(await send_email.keyed_handle("k"), JobHandle[str] | None)
    assert_type(send_email.keyed_handles_sync(), JobHandles[str])
    assert_type(await forever.resident_handle(), JobHandle[Never] | None)
    snapshot = await jobs.handle(UUID(int=1)).load()
    assert_type(snapshot.config_as(Order), Order)
    assert_type(snapshot.result_as(list[int]), list[int] | None)
    assert_type(snapshot.execution_state(Order), Order | None)
    assert_type(snapshot.progress, Progress | None)
    handle = await send_email.spawn("a")
    assert_type(await handle.execution_state(dict[str, int]), dict[str, int] | None)
    assert_type(await handle.explain(), JobExplanation)
    many = await jobs.spawn_all([send_email.spec("a")])
    resizing = [resize.spawn_sync("a")]
    assert_type(many + resizing, JobHandles[str | None])
    assert_type(await many.load(), list[JobSnapshot])
    assert_type(many.retry_sync(), list[bool])
    assert_type(jobs.handles([handle.id]), JobHandles[object])
    await jobs.set_concurrency_limit("account:*", None, queue="mail")
    async with ManualClock(jobs, at=datetime.now(UTC)) as clock:
        assert_type(await clock.advance(SECONDS), datetime)
        assert_type(clock.advance_to_next_sync(), datetime | None)


async def calls() -> None:
    assert_type(await send_email("a", "b", html=True), str)  # still the function
    assert_type(resize("a"), None)
    handle = await send_email.spawn("a", html=True)
    assert_type(handle, JobHandle[str])
    assert_type(handle.id, UUID)
    assert_type(handle.created, bool)
    assert_type(await handle.result(timeout=SECONDS), str)
    outcome = await handle.wait(timeout=SECONDS)
    assert_type(outcome.result, str | None)
    assert_type(outcome.status, JobStatus)
    assert_type(outcome.error, ErrorInfo | None)
    assert_type(await handle.load(), JobSnapshot)
    assert_type(await handle.cancel(), bool)
    assert_type(await counts.spawn(), JobHandle[int])
    assert_type(await handle.retry(), bool)
    assert_type(build_report.spawn_sync("2026-01"), JobHandle[bytes])
    assert_type(build_report.spawn_sync("2026-01").result_sync(timeout=SECONDS), bytes)
    assert_type(await sync_account.spawn(7, full=True), JobHandle[int])
    assert_type(await maybe.spawn(7), JobHandle[str])
    assert_type(await forever.spawn(1), JobHandle[Never])
    assert_type(await nothing.spawn(), JobHandle[None])
    assert_type(await Mailer.mail.spawn("a"), JobHandle[int])
    await with_self.spawn(self="x", args=1, fn=2, type="t")
    assert_type(await post.spawn(Order(1, []), Address(street="x"), price=Price(3)), JobHandle[Order])
    assert_type(send_email.handle(UUID(int=1)), JobHandle[str])
    assert_type(jobs.handle(UUID(int=1)), JobHandle[object])
    assert_type(await jobs.find(UUID(int=1)), JobSnapshot | None)
    assert_type(jobs.find_sync(UUID(int=1)), JobSnapshot | None)


async def options() -> None:
    mail = send_email.options(delay=timedelta(hours=1), queue="mail", priority=5, tags=["x"], id=UUID(int=1))
    assert_type(await mail.spawn("a"), JobHandle[str])
    await send_email.options(run_at=datetime.now(UTC)).options(key="k", concurrency_key="c").spawn("a", subject="b")
    await send_email.options(concurrency_key="c", concurrency_limit=2).spawn("a")


@dataclass
class SyncConfig:
    account: str


class Report(msgspec.Struct):
    rows: int


class SyncAccount(JobRunner[SyncConfig]):
    job_type = "sync-account"
    retry = RetrySettings.repeat_indefinitely()
    timeout = timedelta(minutes=10)
    fail_on = (ValueError, KeyError)
    aliases = ["sync_account"]
    queue = "accounts"
    priority = -3
    tags = ("accounts",)
    inherits_state = True
    concurrency_limit = 2
    max_concurrent_per_process = 5
    strict = True

    def __init__(self, bank: Callable[[str], list[str]], tenant: str = "") -> None:
        self.bank = bank
        if tenant:
            self.job_type = f"sync-account-{tenant}"

    def key(self, config: SyncConfig) -> str | None:
        return config.account or None

    def concurrency_key(self, config: SyncConfig) -> str:
        return f"account:{config.account}"

    async def run(self, job: CurrentJob[SyncConfig]) -> JobCompletion:
        assert_type(job.config, SyncConfig)
        if job.shutdown_requested:
            return Reschedule.now()
        if not self.bank(job.config.account):
            return Fail("no such account")
        return None


class Tally(JobRunner[SyncConfig, Report]):
    job_type = "tally"

    async def run(self, job: CurrentJob[SyncConfig]) -> Report | Reschedule:
        return Report(1)


class Count(JobRunner[list[int], int]):
    job_type = "count"

    async def run(self, job: CurrentJob[list[int]]) -> JobCompletion[int]:
        return len(job.config)


class Quiet(JobRunner[SyncConfig]):
    job_type = "quiet"

    async def run(self, job: CurrentJob[SyncConfig]) -> None: ...


class Built(JobInitializer[SyncConfig, Report]):
    job_type = "built"

    def init(self, job: CurrentJob[SyncConfig]) -> Tally:
        return Tally()


class Sweep(ResidentJobRunner[SyncConfig]):
    job_type = "sweep"

    async def run(self, job: CurrentJob[SyncConfig]) -> Reschedule:
        return Reschedule.now()


account = jobs.add(SyncAccount(lambda a: [a]))
assert_type(account, JobSpawner[[SyncConfig], None])
tally = jobs.add(Tally())
assert_type(tally, JobSpawner[[SyncConfig], Report])
assert_type(jobs.add(Count()), JobSpawner[[list[int]], int])
assert_type(jobs.add(Quiet()), JobSpawner[[SyncConfig], None])
assert_type(jobs.add(Built()), JobSpawner[[SyncConfig], Report])
assert_type(jobs.add(Sweep()), JobSpawner[[SyncConfig], Never])
assert_type(jobs.spawner(SyncAccount), JobSpawner[[SyncConfig], None])  # spawn without building the runner
assert_type(jobs.spawner(Tally), JobSpawner[[SyncConfig], Report])
assert_type(jobs.spawner(Built), JobSpawner[[SyncConfig], Report])
assert_type(jobs.spawner(Sweep), JobSpawner[[SyncConfig], Never])


async def class_calls() -> None:
    assert_type(await account.spawn(SyncConfig("a")), JobHandle[None])
    assert_type(await (await tally.spawn(SyncConfig("a"))).result(timeout=SECONDS), Report)
    await account.options(concurrency_key="acc-1", delay=SECONDS).spawn(SyncConfig("a"))
    specs: list[JobSpec[object]] = [send_email.spec("a"), account.options(priority=1).spec(SyncConfig("a"))]
    assert_type(await jobs.spawn_all(specs), JobHandles[object])
    mixed = await jobs.spawn_all([account.spec(SyncConfig("a")), tally.spec(SyncConfig("a"))])
    assert_type(mixed, JobHandles[Report | None])


@jobs.resident(retry=RetrySettings.repeat_indefinitely())
async def sweep(job: CurrentJob) -> Reschedule:
    return Reschedule.after(SECONDS)


@jobs.resident
def sweep_plain(every: int) -> Reschedule:
    return Reschedule.after(timedelta(seconds=every))


@jobs.resident
async def sweep_bare() -> Reschedule:
    return Reschedule.now()


@jobs.resident("sweep-named")
def sweep_with_job(job: CurrentJob, every: int = 3) -> Reschedule:
    return Reschedule.after(timedelta(seconds=every))


async def residents(job: CurrentJob) -> None:
    assert_type(await sweep.spawn(), JobHandle[Never])
    assert_type(await sweep_plain.spawn(3), JobHandle[Never])
    assert_type(await sweep_bare.spawn(), JobHandle[Never])
    assert_type(sweep_with_job.spawn_sync(every=4), JobHandle[Never])
    assert_type(await sweep(job), Reschedule)
    assert_type(sweep_plain(3), Reschedule)


class Index(BatchedJobRunner[SyncConfig]):
    job_type = "index"
    max_batch_size = 100

    async def run_batch(self, batch: CurrentBatch[SyncConfig]) -> BatchOutcomes:
        return batch.outcomes(lambda item: Fail("empty") if not item.config.account else None)


class Lengths(BatchedJobRunner[SyncConfig, int]):
    job_type = "lengths"

    async def run_batch(self, batch: CurrentBatch[SyncConfig]) -> BatchOutcomes[int] | None:
        return batch.outcomes(self.each)

    def each(self, item: BatchItem[SyncConfig]) -> int | Reschedule:
        return len(item.config.account) or Reschedule.now()


assert_type(jobs.add(Index()), JobSpawner[[SyncConfig], None])
assert_type(jobs.add(Lengths()), JobSpawner[[SyncConfig], int])
assert_type(jobs.spawner(Lengths), JobSpawner[[SyncConfig], int])


@jobs.batched(max_size=100, max_concurrent_batches=4, retry=RetrySettings.never())
async def index(batch: CurrentBatch[SyncConfig]) -> None: ...


@jobs.batched("price", queue="market")
async def price(batch: CurrentBatch[SyncConfig]) -> BatchOutcomes[int]:
    async def one(item: BatchItem[SyncConfig], conn: psycopg.AsyncConnection) -> int | Reschedule | Fail:
        await conn.execute("SELECT 1")
        await item.save_state(3, conn=conn)
        assert_type(item.execution_state(int), int | None)
        return item.attempt

    return await batch.run_isolated(one)


@jobs.batched
async def bisected(batch: CurrentBatch[SyncConfig]) -> BatchOutcomes:
    async def some(items: Sequence[BatchItem[SyncConfig]], conn: psycopg.AsyncConnection) -> None:
        await conn.execute("SELECT unnest(%s::text[])", [[item.config.account for item in items]])

    return await batch.run_bisected(some, budget=ProbeBudget.at_most(4))


@jobs.batched
async def by_id(batch: CurrentBatch[SyncConfig]) -> BatchOutcomes[str]:
    found: dict[JobId, str | Fail | ValueError] = {}
    for item in batch.items:
        assert_type(item, BatchItem[SyncConfig])
        found[item.id] = item.config.account or ValueError("empty")
    return BatchOutcomes(found)


async def batches(batch: CurrentBatch[SyncConfig]) -> None:
    assert_type(await index.spawn(SyncConfig("a")), JobHandle[None])
    assert_type(await price.spawn(SyncConfig("a")), JobHandle[int])
    assert_type(await bisected.options(delay=SECONDS).spawn(SyncConfig("a")), JobHandle[None])
    assert_type(await price(batch), BatchOutcomes[int])
    assert_type(by_id.spawn_sync(SyncConfig("a")).result_sync(timeout=SECONDS), str)
    assert_type(batch.outcomes(lambda item: item.attempt), BatchOutcomes[int])
    assert_type(batch.shutdown_requested, bool)


class Pool:
    def query(self) -> int:
        return 1


class FakePool(Pool): ...


@jobs.resource
async def db() -> AsyncIterator[Pool]:
    yield Pool()


@jobs.resource
def model() -> Iterator[list[float]]:
    yield [0.5]


assert_type(db, Resource[Pool])
assert_type(db.get().query(), int)
assert_type(model.get(), list[float])


def with_fakes() -> None:
    with db.override(FakePool()), model.override([1.0]):
        pass


async def direct(job: CurrentJob) -> None:
    assert_type(await sync_account(job, 7), int | Reschedule | Fail)
    assert_type(build_report(job, "2026-01"), bytes)
    assert_type(build_report.fn(job, "2026-01"), bytes)


async def bulk(people: list[str]) -> None:
    one = await jobs.spawn_all(send_email.spec(person, subject="x") for person in people)
    assert_type(one, JobHandles[str])
    assert_type(one[0], JobHandle[str])
    assert_type(await one.results(timeout=SECONDS), list[str])
    specs: list[JobSpec[object]] = [send_email.spec("a"), resize.options(delay=SECONDS).spec("b")]
    await jobs.spawn_all(specs)
    mixed = await jobs.spawn_all([send_email.spec("a"), resize.spec("b"), resize.options(priority=1).spec("c")])
    for handle in mixed:
        await handle.cancel()
    assert_type(jobs.spawn_all_sync([resize.spec("a")]).results_sync(timeout=SECONDS), list[None])


async def joins_psycopg(
    a: psycopg.AsyncConnection, b: psycopg.Connection, dicts: psycopg.AsyncConnection[dict[str, object]]
) -> None:
    assert_type(await send_email.options(conn=a).spawn("a"), JobHandle[str])
    await send_email.options(conn=dicts, delay=SECONDS).spawn("a")
    assert_type(send_email.options(conn=b).spawn_sync("a"), JobHandle[str])
    assert_type(await jobs.spawn_all([send_email.spec("a")], conn=a), JobHandles[str])
    jobs.spawn_all_sync([send_email.spec("a")], conn=b)
    async with a.cursor() as cursor:
        await send_email.options(conn=cursor).spawn("a")
    with b.cursor() as blocking, b.cursor("named") as server:
        send_email.options(conn=blocking).spawn_sync("a")
        send_email.options(conn=server).spawn_sync("a")


async def joins_pools(a: AsyncConnectionPool, b: ConnectionPool) -> None:
    async with a.connection() as pooled:
        await send_email.options(conn=pooled).spawn("a")
    with b.connection() as conn:
        send_email.options(conn=conn).spawn_sync("a")


class Asyncpg:
    """What asyncpg's connections have, which come without types."""

    def is_in_transaction(self) -> bool:
        return True

    async def fetchval(self, query: str, *args: object, column: int = 0, timeout: float | None = None) -> Any:
        return query


async def joins_asyncpg(conn: Asyncpg) -> None:
    assert_type(await send_email.options(conn=conn).spawn("a"), JobHandle[str])
    await jobs.spawn_all([send_email.spec("a")], conn=conn)


async def joins_sqlalchemy(
    a: AsyncSession, b: async_scoped_session[AsyncSession], c: SaAsyncConnection, engine: AsyncEngine
) -> None:
    for session in (a, b):
        assert_type(await send_email.options(conn=session).spawn("a"), JobHandle[str])
    await jobs.spawn_all([send_email.spec("a")], conn=b)
    await jobs.spawn_all([send_email.spec("a")], conn=c)
    async with engine.begin() as conn:
        assert_type(await send_email.options(conn=conn).spawn("a"), JobHandle[str])


def joins_sqlalchemy_sync(a: Session, b: scoped_session[Session], c: SaConnection, d: sqlmodel.Session) -> None:
    assert_type(send_email.options(conn=a).spawn_sync("a"), JobHandle[str])
    send_email.options(conn=b).spawn_sync("a")
    send_email.options(conn=c).spawn_sync("a")
    send_email.options(conn=d).spawn_sync("a")
    assert_type(jobs.spawn_all_sync([resize.spec("a")], conn=a), JobHandles[None])


def untyped(conn: Any) -> None:  # an untyped driver keeps the handle typed
    assert_type(send_email.options(conn=conn).spawn_sync("a"), JobHandle[str])


def anyone(job: CurrentJob) -> None: ...


def narrow(job: CurrentJob[Order]) -> None:
    anyone(job)
    assert_type(job.config, Order)
    assert_type(job.attempt, int)


class Place(TypedDict):
    page: int


async def writes(job: CurrentJob, asy: psycopg.AsyncConnection, session: AsyncSession, pg: Asyncpg) -> None:
    assert_type(job.execution_state(Order), Order | None)
    assert_type(job.execution_state(list[int]), list[int] | None)
    assert_type(job.execution_state(Place), Place | None)
    await job.save_state(Order(1, []))
    await job.save_state({"page": 1}, conn=session)
    await job.set_result([1], conn=pg)
    await job.set_result(None)
    await job.progress(0.5, "half")
    await job.progress(7)
    await job.guard(asy)
    await job.complete_in(asy)
    await job.complete_in(session, Reschedule.now())
    await job.complete_in(pg, result="done")
    await job.wait_for_shutdown()


def writes_sync(job: CurrentJob, sync: psycopg.Connection, session: Session) -> None:
    job.save_state_sync(1, conn=session)
    job.set_result_sync(1, conn=sync)
    job.progress_sync(1, note="one")
    job.guard_sync(sync)
    job.complete_in_sync(session, Reschedule.now())
    assert_type(job.wait_for_shutdown_sync(SECONDS), bool)


async def blocks(
    job: CurrentJob, engine: AsyncEngine, maker: async_sessionmaker[AsyncSession],
    pool: AsyncConnectionPool[psycopg.AsyncConnection[dict[str, object]]], acquire: Callable[[], Acquired],
) -> int:
    async with job.completing() as own:
        assert_type(own, psycopg.AsyncConnection)
        await send_email.options(conn=own).spawn("a")
    async with job.completing(Reschedule.after(SECONDS), begin=maker.begin) as session:
        assert_type(session, AsyncSession)
    async with job.completing(begin=engine.begin) as conn:
        assert_type(conn, SaAsyncConnection)
    async with job.completing(begin=pool.connection) as dicts:
        assert_type(dicts, psycopg.AsyncConnection[dict[str, object]])
    async with job.completing(begin=acquire) as acquired:
        assert_type(acquired, Asyncpg)
        return 1  # a block swallows no error, so nothing is missing after it


def blocks_sync(job: CurrentJob, engine: Engine, maker: sessionmaker[Session], pool: ConnectionPool) -> int:
    with job.completing(Reschedule.now()) as own:
        assert_type(own, psycopg.Connection)
    with job.completing(begin=maker.begin) as session:
        assert_type(session, Session)
    with job.completing(begin=engine.begin) as conn:
        assert_type(conn, SaConnection)
    with job.completing(begin=pool.connection) as pooled:
        assert_type(pooled, psycopg.Connection)
        return 1


class Acquired:
    """What asyncpg's `pool.acquire` answers."""

    async def __aenter__(self) -> Asyncpg:
        return Asyncpg()

    async def __aexit__(self, *exc: object) -> None: ...


async def in_a_test() -> None:
    job = current_job(Order(1, []), attempt=2, state=[1])
    assert_type(job, RecordedJob[Order])
    narrow(job)
    assert_type(current_job(), RecordedJob[None])
    assert_type(job.completions, list[Reschedule | None])


@dataclass
class Mail:
    send: JobSpawner[[str, str], str]


def by_hand(mail: JobSpawner[[Order], str]) -> JobSpawner[[Order], str]:
    return mail.options(queue="mail")


takes: Callable[[str], object] = send_email.spawn_sync
sends: Callable[[str, str], Awaitable[JobHandle[str]]] = send_email.spawn


async def plain_asyncio() -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(send_email("a"))  # a direct call is an ordinary coroutine
        group.create_task(send_email.spawn("a"))
    assert_type(task.result(), str)
    first, second = await asyncio.gather(send_email("a"), forever(1))
    assert_type(first, str)
    assert_type(second, Reschedule)


async def main() -> None:
    async with jobs, jobs.worker(WorkerSettings(queues=("default", "reports"), concurrency=200)):
        await send_email.spawn("a")


def main_sync() -> None:
    with jobs:
        assert_type(resize.spawn_sync("a.png").wait_sync(timeout=SECONDS).result, None)
    jobs.run_worker(WorkerSettings(concurrency=4))


def pools(rows: AsyncConnectionPool[psycopg.AsyncConnection[dict[str, int]]]) -> None:
    Jobs(pool=AsyncConnectionPool("", open=False))
    Jobs(pool=AsyncNullConnectionPool("", open=False), migrate=True)
    Jobs(pool=rows)


def upgrade() -> None:
    migrations.upgrade(op)
    migrations.downgrade(op, schema="other")
    context.configure(include_name=migrations.include_name)
    assert_type(migration_sql("other"), list[str])
