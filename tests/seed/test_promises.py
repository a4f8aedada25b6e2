"""Each promise of the seed, shown once by a job that runs. docs/seed.md names the tests that go deeper.

S17, S24 and S29 to S34, which are about setting it up, are in test_setup.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypedDict

import asyncpg
import msgspec
import psycopg
import pydantic
import pytest
from engine.app import App
from engine.fixtures import Gate
from engine.helpers import SOON, WorkerProcess, count, moves, query, until
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import create_async_engine
from telemetry.seen import Seen, facts

from piecework import (
    CurrentJob,
    InvalidConfig,
    JobAlreadyExists,
    JobCompletion,
    JobErrored,
    JobInitializer,
    JobNotFinished,
    JobRunner,
    Jobs,
    Reschedule,
    RetrySettings,
    WorkerSettings,
    new_id,
)
from piecework.jobs import service_of
from piecework.store.overview import list_attempts

HOUR = timedelta(hours=1)
TIMES = {"min_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=5)}
QUICK = RetrySettings(**TIMES)
STEADY = RetrySettings(n_attempts=2, min_backoff=timedelta(milliseconds=40), backoff_jitter_pct=0)


def failures(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if "failed in attempt" in record.getMessage()]


async def test_s1_any_number_of_processes_share_one_database(
    workers: Callable[..., WorkerProcess], app: App, gate: Gate
) -> None:
    for _ in range(2):
        workers(concurrency=1, prefetch=0)
    handles = await app.jobs.spawn_all([app.waits.spec(str(gate)), app.waits.spec(str(gate))])
    await until(lambda: len(app.ledger.runs()) == 2)
    gate.open()
    assert await handles.results(timeout=SOON) == ["through"] * 2
    assert len({run.pid for run in app.ledger.runs()} - {os.getpid()}) == 2


async def test_s2_the_drivers_of_the_ecosystem_bring_their_own_transactions(jobs: Jobs, dsn: str) -> None:
    @jobs.job
    async def add(a: int, b: int) -> int:
        return a + b

    where = {str(name): str(value) for name, value in conninfo_to_dict(dsn).items()}
    native = await asyncpg.connect(host=where["host"], user=where["user"], database=where["dbname"])
    engine = create_async_engine(
        "postgresql+psycopg://", connect_args={"host": where["host"], "user": where["user"], "dbname": where["dbname"]}
    )
    async with native.transaction():
        by_asyncpg = await add.options(conn=native).spawn(1, 1)
    async with engine.begin() as alchemy:
        by_sqlalchemy = await add.options(conn=alchemy).spawn(1, 2)
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        by_psycopg = await add.options(conn=conn).spawn(1, 3)
    await native.close()
    await engine.dispose()
    async with jobs.worker():
        assert [await each.result(timeout=SOON) for each in (by_asyncpg, by_sqlalchemy, by_psycopg)] == [2, 3, 4]


async def test_s3_jobs_are_scheduled_and_reschedule_themselves_also_in_their_own_transaction(
    jobs: Jobs, dsn: str
) -> None:
    query(dsn, "CREATE TABLE writes (step integer)")

    @jobs.job
    async def steps(job: CurrentJob) -> int | Reschedule | None:
        step = job.execution_state(int) or 0
        await job.save_state(step + 1)
        again = (
            Reschedule.now(), Reschedule.after(timedelta(milliseconds=20)), Reschedule.at(datetime.now(UTC)),
        )  # fmt: skip
        if step < 3:
            return again[step]
        async with job.completing(again[step - 3] if step < 6 else None) as conn:
            await conn.execute("INSERT INTO writes VALUES (%s)", (step,))
        return None

    due = datetime.now(UTC) + timedelta(milliseconds=200)
    later = await steps.options(run_at=due).spawn()
    never_yet = await steps.options(delay=HOUR).spawn()
    async with jobs.worker():
        await later.result(timeout=SOON)
    assert query(dsn, "SELECT step FROM writes ORDER BY step") == [(3,), (4,), (5,), (6,)]
    snapshot = await later.load()
    assert snapshot.started_at is not None
    assert (snapshot.status, snapshot.attempt) == ("completed", 1)
    assert moves(dsn, later.id).count("reschedule") == 6
    assert snapshot.started_at >= due
    assert (await never_yet.load()).claim_no == 0


async def test_s4_retries_wait_twice_as_long_each_time(jobs: Jobs, dsn: str) -> None:
    retry = RetrySettings(
        n_attempts=4, min_backoff=timedelta(milliseconds=20), max_backoff=timedelta(milliseconds=50),
        backoff_jitter_pct=0,
    )  # fmt: skip

    @jobs.job(retry=retry)
    async def unlucky() -> None:
        raise ConnectionError

    async with jobs.worker():
        handle = await unlucky.spawn()
        assert (await handle.wait(timeout=SOON)).status == "errored"
    waits = query(dsn, "SELECT next_run_at - ended_at FROM piecework.attempts WHERE move = 'retry' ORDER BY claim_no")
    # The moment of the settle is read once for the two columns: they differ by the backoff.
    assert waits == [(timedelta(milliseconds=each),) for each in (20, 40, 50)]


async def test_s5_status_history_last_error_and_next_run_are_there_to_see(jobs: Jobs, dsn: str) -> None:
    @jobs.job(retry=RetrySettings(n_attempts=2, min_backoff=HOUR))
    async def unlucky() -> None:
        raise LookupError("no such account")

    async with jobs.worker():
        handle = await unlucky.spawn()
        await until(lambda: count(dsn, "attempts"))
        seen = await handle.load()
    assert (seen.status, seen.attempt) == ("pending", 2)
    assert seen.error is not None
    assert (seen.error.type, seen.error.message) == ("LookupError", "no such account")
    assert seen.run_at is not None
    assert seen.run_at > datetime.now(UTC) + HOUR / 2
    [attempt] = await list_attempts(service_of(jobs).store, handle.id)
    assert (attempt.ended, attempt.attempt) == ("retry", 1)
    assert (await handle.explain()).reason == "not_due"


async def test_s6_tasks_are_named_for_whoever_looks_at_the_loop(jobs: Jobs) -> None:
    before = asyncio.all_tasks()
    async with jobs.worker():
        names = [task.get_name() for task in asyncio.all_tasks() - before]
    assert [name for name in names if not name.startswith("job-")] == []
    assert len(names) >= 3


async def test_s7_tasks_have_the_seeds_names(jobs: Jobs) -> None:
    @jobs.job("send-email")
    async def send_email() -> list[str]:
        return [task.get_name() for task in asyncio.all_tasks()]

    async with jobs.worker():
        handle = await send_email.spawn()
        names = await handle.result(timeout=SOON)
    assert {"job-poller-main-loop", f"job-send-email-{handle.id}"} <= set(names)


def test_s8_names_need_no_flag_and_no_setting(dsn: str) -> None:
    program = (
        "import asyncio, sys\n"
        "from piecework import Jobs\n"
        "async def main():\n"
        "    jobs = Jobs(sys.argv[1])\n"
        "    async with jobs, jobs.worker():\n"
        "        print(*sorted(task.get_name() for task in asyncio.all_tasks()))\n"
        "asyncio.run(main())\n"
    )
    ran = subprocess.run([sys.executable, "-I", "-c", program, dsn], env={}, capture_output=True, text=True, check=True)
    assert "job-poller-main-loop" in ran.stdout.split()


async def test_s9_spans_have_the_seeds_names(jobs: Jobs, seen: Seen) -> None:
    @jobs.job(retry=STEADY)
    async def wavering(job: CurrentJob) -> None:
        if job.attempt == 1:
            raise LookupError

    async with jobs.worker():
        await (await wavering.spawn()).result(timeout=SOON)
    assert {"job.poll_jobs", "job.fail_job", "job.complete_job"} <= set(seen.names)


async def test_s10_a_failed_attempt_says_what_failed_how_loudly_and_whether_it_is_retried(
    jobs: Jobs, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    @jobs.job(retry=STEADY)
    async def unlucky() -> None:
        raise LookupError("no such account")

    async with jobs.worker():
        await (await unlucky.spawn()).wait(timeout=SOON)
    expected = [
        {"error": True, "error.message": "no such account", "error.level": level, "will_retry": will_retry,
         "exception.type": "LookupError", "exception.message": "no such account"}
        for level, will_retry in (("WARN", True), ("ERROR", False))
    ]  # fmt: skip
    spans = [facts(span) for span in seen.all("job.fail_job")]
    records = [record.__dict__ for record in failures(caplog)]
    for told in (spans, records):
        assert [{name: each[name] for name in expected[0]} for each in told] == expected


async def test_s11_an_existing_pipeline_is_told_without_a_wrapper_around_the_runner(jobs: Jobs) -> None:
    lines: list[str] = []

    class Pipeline(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.levelname} {record.__dict__['job_type']} {record.__dict__['error.message']}")

    pipeline = Pipeline()
    logger = logging.getLogger("piecework.job")
    logger.addHandler(pipeline)

    @jobs.job(retry=RetrySettings.never())
    async def unlucky() -> None:
        raise LookupError("no such account")

    try:
        async with jobs.worker():
            await (await unlucky.spawn()).wait(timeout=SOON)
    finally:
        logger.removeHandler(pipeline)
    assert lines == ["ERROR unlucky no such account"]


async def test_s12_n_attempts_caps_the_runs_then_an_error_is_told_and_the_live_row_is_gone(
    jobs: Jobs, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    @jobs.job(retry=RetrySettings(n_attempts=3, **TIMES))
    async def unlucky() -> None:
        raise LookupError

    async with jobs.worker():
        handle = await unlucky.spawn()
        assert (await handle.wait(timeout=SOON)).status == "errored"
    assert [record.levelname for record in failures(caplog)] == ["WARNING", "WARNING", "ERROR"]
    assert count(dsn, "jobs") == 0
    assert (await handle.load()).status == "errored"


@pytest.mark.parametrize("n_warn_attempts, warnings", [(0, 0), (1, 1), (3, 3), (None, 5)])
async def test_s13_exactly_n_warn_attempts_failures_are_warnings(
    jobs: Jobs, caplog: pytest.LogCaptureFixture, n_warn_attempts: int | None, warnings: int
) -> None:
    """The crate is off by one here: its failure number n is an error already."""

    @jobs.job(retry=RetrySettings(n_attempts=6, n_warn_attempts=n_warn_attempts, **TIMES))
    async def unlucky() -> None:
        raise LookupError

    async with jobs.worker():
        await (await unlucky.spawn()).wait(timeout=SOON)
    assert [record.levelname for record in failures(caplog)] == ["WARNING"] * warnings + ["ERROR"] * (6 - warnings)


async def test_s14_the_delay_and_the_next_run_are_recorded(
    jobs: Jobs, dsn: str, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    """The crate promises it, and never recorded either."""

    @jobs.job(retry=STEADY)
    async def unlucky() -> None:
        raise LookupError

    async with jobs.worker():
        await (await unlucky.spawn()).wait(timeout=SOON)
    first, last = (facts(span) for span in seen.all("job.fail_job"))
    assert first["retry_delay_ms"] == failures(caplog)[0].__dict__["retry_delay_ms"] == 40
    assert not {"retry_delay_ms", "next_run_at"} & last.keys()
    [(next_run,)] = query(dsn, "SELECT next_run_at FROM piecework.attempts WHERE move = 'retry'")
    assert isinstance(next_run, datetime)
    assert abs(datetime.fromisoformat(str(first["next_run_at"])) - next_run) < timedelta(seconds=5)


async def test_s15_a_long_healthy_run_resets_the_reported_attempt_and_not_the_exhaustion(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[int] = []

    @jobs.job(retry=RetrySettings(n_attempts=4, attempt_reset_after_backoff_multiples=3, **TIMES))
    async def unlucky(job: CurrentJob) -> None:
        attempts.append(job.attempt)
        if len(attempts) == 3:
            await asyncio.sleep(0.05)  # far more than three times the backoff before it
        raise LookupError

    async with jobs.worker():
        assert (await (await unlucky.spawn()).wait(timeout=SOON)).status == "errored"
    assert attempts == [1, 2, 3, 2]
    assert [record.__dict__.get("attempt_reset", False) for record in failures(caplog)] == [False, False, True, False]


async def test_s16_severity_and_cadence_of_failures_can_be_told_apart(jobs: Jobs, seen: Seen) -> None:
    retry = RetrySettings(n_attempts=4, n_warn_attempts=1, min_backoff=timedelta(milliseconds=5), backoff_jitter_pct=0)

    @jobs.job(retry=retry)
    async def unlucky() -> None:
        raise LookupError

    async with jobs.worker():
        await (await unlucky.spawn()).wait(timeout=SOON)
    told = [(facts(span)["error.level"], facts(span).get("retry_delay_ms")) for span in seen.all("job.fail_job")]
    assert told == [("WARN", 5), ("ERROR", 10), ("ERROR", 20), ("ERROR", None)]


@dataclass
class AsDataclass:
    account: str


class AsStruct(msgspec.Struct):
    account: str


class AsModel(pydantic.BaseModel):
    account: str


class AsTypedDict(TypedDict):
    account: str


async def test_s18_a_config_is_a_type_of_the_users_stored_as_json(jobs: Jobs, dsn: str) -> None:
    @jobs.job
    async def mixed(a: AsDataclass, b: AsStruct, c: AsModel, d: AsTypedDict) -> list[str]:
        assert (type(a), type(b), type(c)) == (AsDataclass, AsStruct, AsModel)
        return [a.account, b.account, c.account, d["account"]]

    async with jobs.worker():
        handle = await mixed.spawn(AsDataclass("a"), AsStruct("b"), AsModel(account="c"), {"account": "d"})
        assert await handle.result(timeout=SOON) == ["a", "b", "c", "d"]
    [(stored,)] = query(dsn, "SELECT config FROM piecework.finished_jobs")
    assert stored == {name: {"account": name} for name in "abcd"}


class Ends(JobRunner[AsDataclass, str]):
    job_type = "ends"
    retry = QUICK

    def __init__(self, account: str = "") -> None:
        self.account = account

    async def run(self, job: CurrentJob[AsDataclass]) -> JobCompletion[str]:
        return self.account or job.config.account


async def test_s19_the_config_is_bound_to_its_runner(jobs: Jobs) -> None:
    """Type checkers refuse another one; so does the spawn."""
    ends = jobs.add(Ends())
    with pytest.raises(InvalidConfig, match="account"):
        await ends.spawn({"acount": "ada"})  # type: ignore[arg-type]
    async with jobs.worker():
        assert await (await ends.spawn(AsDataclass("ada"))).result(timeout=SOON) == "ada"


async def test_s20_an_initializer_names_the_type_and_builds_runners_and_its_failure_is_one_jobs_own(
    jobs: Jobs,
) -> None:
    class MyInitializer(JobInitializer[AsDataclass, str]):
        job_type = "my_job"
        retry = RetrySettings.never()

        def init(self, job: CurrentJob[AsDataclass]) -> Ends:
            if job.config.account == "nobody":
                raise LookupError("no such account")
            return Ends(f"built for {job.config.account}")

    my_job = jobs.add(MyInitializer())
    async with jobs.worker():
        bad, good = await jobs.spawn_all([my_job.spec(AsDataclass("nobody")), my_job.spec(AsDataclass("ada"))])
        assert await good.result(timeout=SOON) == "built for ada"
        with pytest.raises(JobErrored, match="no such account"):
            await bad.result(timeout=SOON)


async def test_s21_a_runner_gets_the_context_of_its_job_on_the_loop_and_in_a_thread(jobs: Jobs) -> None:
    @jobs.job
    async def on_loop(job: CurrentJob) -> list[str | int]:
        return [str(job.id), job.job_type, job.attempt]

    @jobs.job
    def in_thread(job: CurrentJob) -> list[str | int]:
        return [str(job.id), job.job_type, job.attempt]

    async with jobs.worker():
        for spawner, name in ((on_loop, "on_loop"), (in_thread, "in_thread")):
            handle = await spawner.spawn()
            assert await handle.result(timeout=SOON) == [str(handle.id), name, 1]


async def test_s22_returning_completes_and_the_value_is_the_result(jobs: Jobs) -> None:
    @jobs.job
    async def answers(value: int | None) -> int | None:
        return value

    async with jobs.worker():
        handles = await jobs.spawn_all([answers.spec(None), answers.spec(7)])
        assert [(each.status, each.result) for each in await handles.wait(timeout=SOON)] == [
            ("completed", None), ("completed", 7)
        ]  # fmt: skip


async def test_s23_any_exception_fails_the_attempt_and_is_kept_with_its_traceback(jobs: Jobs) -> None:
    class OutOfTea(Exception):
        pass

    @jobs.job(retry=RetrySettings.never())
    async def brew() -> None:
        raise OutOfTea("only coffee is left")

    async with jobs.worker():
        outcome = await (await brew.spawn()).wait(timeout=SOON)
    assert outcome.error is not None
    assert outcome.error.type.endswith("OutOfTea")
    assert outcome.error.message == "only coffee is left"
    assert "raise OutOfTea" in outcome.error.traceback


async def test_s25_initialize_register_poll_spawn_and_look_up(dsn: str) -> None:
    jobs = Jobs(dsn)
    ends = jobs.add(Ends())
    async with jobs, jobs.worker():
        handle = await ends.spawn(AsDataclass("ada"))
        await handle.wait(timeout=SOON)
        found = await jobs.find(handle.id)
        assert found is not None
        assert found.completed


async def test_s26_a_type_may_be_registered_while_the_worker_polls(jobs: Jobs) -> None:
    async with jobs.worker():
        ends = jobs.add(Ends())
        assert await (await ends.spawn(AsDataclass("ada"))).result(timeout=SOON) == "ada"


async def test_s27_a_spawn_with_the_callers_id_can_be_repeated(jobs: Jobs, dsn: str) -> None:
    ends, id = jobs.add(Ends()), new_id()
    async with jobs.worker():
        handle = await ends.options(id=id).spawn(AsDataclass("ada"))
        assert handle.id == id
        await handle.result(timeout=SOON)
    with pytest.raises(JobAlreadyExists, match=str(id)):
        await ends.options(id=id).spawn(AsDataclass("ada"))
    assert (await ends.spawn(AsDataclass("ada"))).id.version == 7


async def test_s28_a_job_is_found_by_its_id_and_says_whether_it_completed(jobs: Jobs) -> None:
    ends = jobs.add(Ends())
    handle = await ends.spawn(AsDataclass("ada"))
    waiting = await jobs.find(handle.id)
    async with jobs.worker():
        await handle.wait(timeout=SOON)
    ended = await jobs.find(handle.id)
    assert waiting is not None
    assert ended is not None
    assert (waiting.completed, waiting.status, waiting.result_as(str)) == (False, "pending", None)
    assert (ended.completed, ended.status, ended.result_as(str)) == (True, "completed", "ada")
    assert await jobs.find(new_id()) is None


async def test_s35_transactions_unique_jobs_shutdown_and_state(jobs: Jobs, dsn: str) -> None:
    started = asyncio.Event()

    @jobs.job(key="the only one")
    async def listen(job: CurrentJob) -> str | Reschedule:
        position = job.execution_state(int)
        if position is not None:
            return f"goes on from {position}"
        await job.save_state(360)
        started.set()
        await job.wait_for_shutdown()
        return Reschedule.now()

    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        undone = await listen.options(conn=conn).spawn()
        await conn.rollback()
        handle = await listen.options(conn=conn).spawn()
    assert await jobs.find(undone.id) is None
    again = await listen.spawn()
    assert (again.id, again.created) == (handle.id, False)
    async with jobs.worker():
        await started.wait()
    assert (await handle.load()).status == "pending"
    async with jobs.worker(WorkerSettings(concurrency=1)):
        assert await handle.result(timeout=SOON) == "goes on from 360"


async def test_s36_typed_spawners_residents_keys_and_parameterized_types(jobs: Jobs) -> None:
    swept: list[str] = []

    class OfTenant(JobRunner[AsDataclass, str]):
        def __init__(self, tenant: str) -> None:
            self.tenant = tenant
            self.job_type = f"sync-{tenant}"

        def key(self, config: AsDataclass) -> str:
            return config.account

        async def run(self, job: CurrentJob[AsDataclass]) -> str:
            return f"{self.tenant}/{job.config.account}"

    @jobs.resident
    async def sweep(name: str) -> Reschedule:
        swept.append(name)
        return Reschedule.after(HOUR)

    acme, zenith = jobs.add(OfTenant("acme")), jobs.add(OfTenant("zenith"))
    first, second = await acme.spawn(AsDataclass("ada")), await acme.spawn(AsDataclass("ada"))
    other = await zenith.spawn(AsDataclass("ada"))
    assert (first.id == second.id, second.created, other.created) == (True, False, True)
    assert (acme.job_type, zenith.job_type) == ("sync-acme", "sync-zenith")
    async with jobs.worker():
        assert await first.result(timeout=SOON) == "acme/ada"
        assert await other.result(timeout=SOON) == "zenith/ada"
        resident = await sweep.spawn("one")
        assert (await sweep.spawn("two")).id == resident.id
        await until(lambda: swept)
        with pytest.raises(JobNotFinished):
            await resident.wait(timeout=timedelta(milliseconds=10))
    assert swept == ["one"]
    assert (await acme.spawn(AsDataclass("ada"))).created, "the key is free after the end"
