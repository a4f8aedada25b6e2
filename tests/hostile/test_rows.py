"""Rows that nobody of ours has written: the job ends by the rule, and the worker goes on with all others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from engine.app import ONCE
from engine.helpers import SOON
from hypothesis import given
from hypothesis import strategies as st

from hostile.helpers import call, sql, told
from hostile.texts import names, texts, values
from piecework import CurrentJob, JobOutcome, Jobs, new_id
from piecework.store.connection import LIMIT_ERRORS
from piecework.store.statements import Statements
from piecework.testing import ManualClock
from piecework.testing.history import Terms, check
from support.examples import examples
from support.scene import Scene, new_job

DEEP = "[" * 5000 + "]" * 5000
LARGEST = 2**31 - 1


async def put(jobs: Jobs, **columns: object) -> UUID:
    """Write a row into `jobs`, of the type `take`; texts are what SQL makes of them."""
    id = new_id()
    row: dict[str, object] = {"id": str(id), "job_type": "take", "config": '{"n": 1}', **columns}
    names, places = ", ".join(row), ", ".join("%s" for _ in row)
    await sql(jobs.dsn, f"INSERT INTO jobs ({names}) VALUES ({places})", *row.values())
    return id


async def outcomes_beside(jobs: Jobs, ids: Sequence[UUID], **options: Any) -> list[JobOutcome[Any]]:
    """Run a worker; the jobs that came before and after the given ones in their lane are to complete as well."""

    async def take(n: int) -> int:
        return n

    job = jobs.job(retry=ONCE)(take)
    async with jobs.worker():
        handles = await jobs.spawn_all([job.options(**options).spec(n) for n in range(3)])
        assert await handles.results(timeout=SOON) == [0, 1, 2]
        return [await job.handle(id).wait(timeout=SOON) for id in ids]


CONFIGS: dict[str, tuple[str, object]] = {
    "text": ('"a"', None), "list": ("[]", None), "number": ("5", None), "null": ("null", None), "empty": ("{}", None),
    "true": ("true", None), "unknown field": ('{"n": 1, "more": 2}', 1), "wrong type": ('{"n": "1"}', None),
    "fraction": ('{"n": 1.5}', None), "huge": ('{"n": 1e400}', 10**400), "tiny": ('{"n": 1e-400}', None),
    "digits": (f'{{"n": {10**4000}}}', 10**4000), "more digits": (f'{{"n": 1{"0" * 5000}}}', None),
    "large int": (f'{{"n": {2**63 + 1}}}', 2**63 + 1), "larger int": (f'{{"n": {10**40}}}', 10**40),
    "twice": ('{"n": 1, "n": 2}', 2), "deep": (DEEP, None), "deep field": (f'{{"n": {DEEP}}}', None),
    "deep unknown field": (f'{{"n": 1, "more": {DEEP}}}', None), "10 MB": (f'{{"n": 1, "more": "{"x" * 10**7}"}}', 1),
    "many fields": (json.dumps({"n": 1} | {str(n): n for n in range(10_000)}), 1),
    "escapes": ('{"n": 1, "\\u001b[31m\\u202e": 1}', 1),
}  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"concurrency_key": "k"}], ids=["plain", "keyed"])
async def test_a_config_of_any_form_ends_its_own_job_alone(jobs: Jobs, options: dict[str, str]) -> None:
    ids = [await put(jobs, config=config, **options) for config, _ in CONFIGS.values()]
    outcomes = await outcomes_beside(jobs, ids, **options)
    for (name, (_, result)), outcome in zip(CONFIGS.items(), outcomes, strict=True):
        assert outcome.status == ("errored" if result is None else "completed"), name
        assert outcome.result == result, name
        assert (outcome.error is None) is (result is not None), name
        assert outcome.error is None or outcome.error.type == "piecework.UndecodableConfig", name
    for name in ("deep", "escapes", "digits"):
        for options_of_show in ([], ["--json"]):
            id = str(ids[list(CONFIGS).index(name)])
            assert (await asyncio.to_thread(call, "jobs", "show", id, *options_of_show, dsn=jobs.dsn)).exit_code == 0
    assert (await asyncio.to_thread(call, "jobs", "list", dsn=jobs.dsn)).exit_code == 0


async def test_what_a_job_brings_along_besides_may_have_any_form(jobs: Jobs) -> None:
    odd = ("5", '"a"', "[1]", '{"traceparent": 5}', '{"traceparent": "\\u001b"}', DEEP, "{}")
    ids = [await put(jobs, trace_context=each) for each in odd]
    ids += [await put(jobs, trace_context=each, concurrency_key="k") for each in odd]
    ids += [await put(jobs, tags="{NULL,a}"), await put(jobs, tags="{{a,b},{c,d}}"), await put(jobs, tags="{}")]
    ids += [await put(jobs, metadata=DEEP), await put(jobs, timeout="-178000000 years"), await put(jobs, key="")]
    ids += [await put(jobs, claim_no=1) for _ in odd]
    for id, state in zip(ids[-len(odd) :], odd, strict=True):
        await sql(
            jobs.dsn, "INSERT INTO execution_states (job_id, saved_by, claim_no, state) VALUES (%s, %s, 1, %s)",
            id, new_id(), state,
        )  # fmt: skip
    assert {outcome.status for outcome in await outcomes_beside(jobs, ids)} == {"completed"}
    for id in ids[2 * len(odd) :]:
        await told("jobs", "show", str(id), dsn=jobs.dsn)


LONG_AGO = ("-infinity", "4713-01-01 BC", "0044-03-15 BC", "0001-01-01", "1969-12-31")
NEVER = ("infinity", "294276-12-31 23:59:59", "10000-01-01", "9999-12-31 23:59:59.999999")


@pytest.mark.parametrize("options", [{}, {"concurrency_key": "k"}], ids=["plain", "keyed"])
@pytest.mark.postgres(18, 15)
async def test_a_moment_of_any_age_is_long_ago_or_never(jobs: Jobs, options: dict[str, str]) -> None:
    never = [await put(jobs, run_at=moment, priority=-1, **options) for moment in NEVER]
    old = [await put(jobs, run_at=moment, **options) for moment in LONG_AGO]
    created = [await put(jobs, created_at=moment, trace_context="{}", **options) for moment in (*LONG_AGO, *NEVER)]
    status = await told("status", dsn=jobs.dsn)
    assert status["totals"]["pending"] == len(never + old + created)  # type: ignore[index]
    outcomes = await outcomes_beside(jobs, [*old, *created], **options)
    assert {outcome.status for outcome in outcomes} == {"completed"}
    for id in never:
        handle = jobs.handle(id)
        found = await handle.load()
        assert found.run_at is not None
        assert found.run_at.year == 9999
        assert "it may run at 9999-12-31" in (await handle.explain()).text
        await told("jobs", "show", str(id), dsn=jobs.dsn)
    async with ManualClock(jobs) as clock:
        moment = await clock.advance_to_next()
        assert moment is None or moment < datetime.max.replace(tzinfo=moment.tzinfo)
    assert (await check(jobs.dsn, terms=Terms(live=True))).jobs == len(never + old + created) + 3
    assert await jobs.handles(never).cancel() == [True] * len(never)
    assert {each.status for each in await jobs.handles(never).load()} == {"cancelled"}


async def test_counters_at_the_end_of_their_range_keep_no_job_from_running(jobs: Jobs) -> None:
    counters: dict[str, Sequence[int]] = {
        "claim_no": (LARGEST, LARGEST - 1, -LARGEST - 1, -1), "attempt": (LARGEST, -LARGEST - 1, 0),
        "failures": (-LARGEST - 1, -1), "crashes": (-LARGEST - 1, -1), "priority": (32767, -32768),
        "concurrency_limit": (32767,),
    }  # fmt: skip
    ids = [
        await put(jobs, **{name: value}, **options) for name, values in counters.items() for value in values
        for options in ({}, {"concurrency_key": f"k{value}"})
    ]  # fmt: skip
    spent = [await put(jobs, failures=LARGEST), await put(jobs, crashes=LARGEST, failures=LARGEST)]
    outcomes = await outcomes_beside(jobs, [*ids, *spent])
    assert [outcome.status for outcome in outcomes] == ["completed"] * len(ids) + ["errored"] * 2
    assert [(await jobs.handle(id).load()).claim_no for id in ids[:4]] == [1, 1, LARGEST, LARGEST]
    report = await check(jobs.dsn, terms=Terms(live=True, whole=True))
    assert report.jobs == len(ids) + len(spent) + 3
    assert await jobs.handles(ids).retry() == [True] * len(ids)


@pytest.mark.parametrize("keyed", [False, True])
async def test_a_job_that_failed_and_crashed_as_often_as_can_be_counted_is_still_rescued(
    shared_dsn: str, keyed: bool
) -> None:
    async with Scene.open(shared_dsn) as scene:
        scene.clear()
        worker = scene.worker()
        id, other = await scene.spawn(new_job(concurrency_key="k" if keyed else None), new_job())
        await scene.claim(worker)
        await scene.claim_keyed(worker)
        largest = "attempt = 2147483647, failures = 2147483647, crashes = 2147483647"
        scene.sql.execute(f"UPDATE jobs SET {largest} WHERE id = '{id}'".encode())
        scene.sql.execute("UPDATE workers SET beat_no = 9007199254740993")
        rescued = scene.pulse.rescue(worker, 2**53 + 1, 0.0)
        assert rescued is not None
        assert {rescued_id for rescued_id, _ in rescued} == {id, other}
        assert (scene.job(id)["attempt"], scene.job(id)["crashes"]) == (LARGEST, LARGEST)


async def test_errors_of_any_form_are_shown_as_they_are(jobs: Jobs) -> None:
    @jobs.job(retry=ONCE)
    async def fail() -> None:
        raise ValueError("no")

    async with jobs.worker():
        handle = await fail.spawn()
        await handle.wait(timeout=SOON)
    objects = ('{"type": 5, "message": 7}', '{"type": "\\u001b", "message": "x"}')
    for odd in ('"a"', "5", "null", "{}", "[1]", *objects, DEEP):
        await sql(jobs.dsn, "UPDATE finished_jobs SET error = %s::jsonb", odd)
        await sql(jobs.dsn, "UPDATE attempts SET error = %s::jsonb", odd)
        outcome = await handle.wait(timeout=SOON)
        assert outcome.error is not None
        assert outcome.error.type
        assert "it ended errored" in (await handle.explain()).text
        await told("jobs", "show", str(handle.id), dsn=jobs.dsn)
        await told("jobs", "list", dsn=jobs.dsn)


async def test_job_types_and_queues_that_nobody_knows_are_left_alone_and_named(jobs: Jobs) -> None:
    odd = [(job_type, queue) for job_type in ("", "x" * 2000, "\x1b[31m") for queue in ("", "\u202e")]
    unknown = [await put(jobs, job_type=job_type, queue=queue) for job_type, queue in odd]
    await outcomes_beside(jobs, [])
    await told("status", dsn=jobs.dsn)
    for id in unknown:
        assert (await jobs.handle(id).explain()).reason == "no_worker"
    assert await jobs.handles(unknown).cancel() == [True] * len(unknown)


async def test_a_notice_of_any_form_is_passed_over(jobs: Jobs) -> None:
    @jobs.job
    async def work(job: CurrentJob, n: int) -> int:
        return n

    channel = Statements("piecework").channel
    deep = "[" * 3900 + "]" * 3900
    async with jobs.worker():
        assert await (await work.spawn(0)).result(timeout=SOON) == 0
        for payload in ("", "{", "[]", "null", '"look"', "x" * 7999, deep, f'["default","work",0,[],false,{deep}]',
                        '["default", "work", 1e400]', '{"worker": 5}', f'{{"worker": "a", "cancel": {deep}}}',
                        '["default", "work", 99999999999999999999, ["a"], true]'):  # fmt: skip
            await sql(jobs.dsn, "SELECT pg_notify(%s, %s)", channel, payload)
        for n in range(5):
            assert await (await work.spawn(n)).result(timeout=SOON) == n


somehow = st.one_of(values(), names(), st.integers(-(2**70), 2**70), st.just("default"))
sql_jobs = st.fixed_dictionaries(
    {"job_type": st.just("take") | somehow},
    optional={
        "config": st.fixed_dictionaries({"n": st.integers(0, 9)}) | values(), "queue": somehow, "priority": somehow,
        "key": somehow, "concurrency_key": somehow, "concurrency_limit": st.integers(-1, 3) | somehow, "tags": somehow,
        "delay": st.integers(-(2**64), 2**64) | somehow, "run_at": st.integers(-(2**64), 2**64) | somehow,
        "id": st.uuids().map(str) | somehow, "chosen": somehow, "trace_context": somehow, "parked": somehow,
        "x": somehow,
    },
)  # fmt: skip
REFUSED = (psycopg.DataError, psycopg.IntegrityError, *LIMIT_ERRORS)


@examples(25)
@given(st.lists(sql_jobs, min_size=1, max_size=3), st.booleans())
async def test_whatever_sql_spawns_runs_or_waits_and_harms_nobody(
    jobs: Jobs, sent: list[dict[str, Any]], one: bool
) -> None:
    payload = json.dumps(sent[0] if one else sent)
    try:
        rows = await sql(jobs.dsn, "SELECT id, created FROM spawn(%s)", payload)
    except REFUSED:
        assert await sql(jobs.dsn, "SELECT 1 FROM jobs") == []
        return
    assert len(rows) == (1 if one else len(sent))
    ids = [UUID(str(id)) for id, _ in rows]
    for found in await jobs.handles(ids).load():
        assert 0 < len(found.job_type) <= 200
        assert 0 < len(found.queue) <= 200
        assert found.run_at is not None
    for id in ids:
        await jobs.handle(id).explain()
    await outcomes_beside(jobs, [])
    for found in await jobs.handles(ids).load():
        due = found.run_at is not None and found.run_at < datetime.now(found.run_at.tzinfo) - timedelta(seconds=60)
        if due and (found.job_type, found.queue, found.concurrency_key) == ("take", "default", None):
            await jobs.handle(found.id).wait(timeout=SOON)
    await asyncio.to_thread(call, "jobs", "list", dsn=jobs.dsn)
    await sql(jobs.dsn, "DELETE FROM jobs")


@examples(40)
@given(texts(20) | sql_jobs.map(json.dumps).flatmap(lambda text: st.integers(0, len(text)).map(lambda at: text[:at])))
def test_what_is_no_json_is_refused(shared_dsn: str, text: str) -> None:
    with psycopg.connect(shared_dsn, autocommit=True) as conn:
        conn.execute("SET search_path = piecework")
        try:
            conn.execute("SELECT * FROM spawn(%s)", [text]).fetchall()
        except REFUSED:
            return
        conn.execute("DELETE FROM jobs")
