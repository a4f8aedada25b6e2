"""Which spans there are, with which fields, and how they hang together."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import psycopg
import pytest
from engine.app import App, settings
from engine.helpers import SOON, WorkerProcess, until, value
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from telemetry.seen import Seen, facts, itself, linked, parent

from piecework import (
    BatchOutcomes,
    CurrentBatch,
    CurrentJob,
    Fail,
    JobNotFinished,
    Jobs,
    Reschedule,
    RetrySettings,
)
from piecework.base import telemetry
from piecework.engine.tracing import Tracing
from piecework.model.cursors import Walk
from piecework.model.job import ClaimedJob
from piecework.model.settlement import completed
from piecework.store.claiming import Claimed

STEADY = RetrySettings(n_attempts=3, min_backoff=timedelta(milliseconds=20), backoff_jitter_pct=0)


def claimed(**fields: object) -> ClaimedJob:
    values: dict[str, object] = {
        "id": "019a0000-0000-7000-8000-000000000001", "claim_no": 1, "job_type": "work", "queue": "default",
        "priority": 0, "run_at": 1_000_000, "attempt": 1, "failures": 0, "crashes": 0, "config": msgspec.Raw(b"{}"),
        "trace_context": msgspec.Raw(b'{"traceparent": "00-%032x-%016x-01"}' % (7, 5)),
        "created_at": 1_000_000, **fields,
    }  # fmt: skip
    return ClaimedJob(**values)  # type: ignore[arg-type]


async def test_s9_a_job_leaves_the_spans_of_its_spawn_claim_run_and_end_in_one_trace(jobs: Jobs, seen: Seen) -> None:
    @jobs.job("send-email", queue="default")
    async def send_email(to: str) -> str:
        return to

    async with jobs.worker():
        handle = await send_email.spawn("ada")
        await handle.result(timeout=SOON)

    spawn, poll, run, end = (
        seen.one(name) for name in ("job.spawn", "job.poll_jobs", "job.run", "job.complete_job")
    )
    id = str(handle.id)
    where = {"messaging.system": "piecework", "messaging.destination.name": "default", "messaging.message.id": id}
    assert facts(spawn) == {
        "job_type": "send-email", "id": id, "queue": "default", **where,
        "messaging.operation.name": "spawn", "messaging.operation.type": "send",
    }  # fmt: skip
    worker_id = facts(run)["worker_id"]
    job = {
        "job_id": id, "job_type": "send-email", "attempt": 1, "queue": "default", "worker_id": worker_id,
        "messaging.client.id": worker_id, **where,
    }  # fmt: skip
    assert facts(run) == {
        **job, "conclusion": "complete", "messaging.operation.name": "run", "messaging.operation.type": "process",
    }  # fmt: skip
    assert facts(end) == {
        **job, "messaging.operation.name": "complete_job", "messaging.operation.type": "settle"
    }  # fmt: skip
    assert facts(poll)["n_jobs_found"] == facts(poll)["messaging.batch.message_count"] == 1
    assert facts(poll)["worker_id"] == worker_id
    assert [span.kind for span in (spawn, run, end)] == [SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.CLIENT]
    assert parent(run) == itself(spawn).span_id
    assert linked(run) == [itself(spawn).span_id]
    assert parent(end) == itself(run).span_id
    assert parent(poll) is None
    assert all(span.status.status_code is StatusCode.UNSET for span in (spawn, poll, run, end))
    assert end.start_time is not None
    assert run.end_time is not None
    assert end.end_time is not None
    assert run.end_time <= end.start_time + 1_000_000
    assert end.start_time < end.end_time


async def test_s9_a_spawn_continues_the_trace_that_is_current_and_many_jobs_have_one_span(
    jobs: Jobs, seen: Seen
) -> None:
    @jobs.job
    async def one(number: int) -> None: ...

    @jobs.job(queue="other")
    async def another() -> None: ...

    with trace.get_tracer_provider().get_tracer("app").start_as_current_span("request"):
        await jobs.spawn_all([one.spec(1), one.spec(2)])
        await jobs.spawn_all([one.spec(3), another.spec()])
    request, (alike, mixed) = seen.one("request"), seen.all("job.spawn")
    assert parent(alike) == parent(mixed) == itself(request).span_id
    assert facts(alike).items() >= {"job_type": "one", "queue": "default", "count": 2}.items()
    assert facts(alike)["messaging.batch.message_count"] == 2
    assert not {"job_type", "queue", "id"} & facts(mixed).keys()
    async with jobs.worker():
        await until(lambda: len(seen.all("job.run", job_type="one")) == 3)
    assert [parent(run) for run in seen.all("job.run", job_type="one")].count(itself(alike).span_id) == 2


async def test_s9_a_spawn_for_later_says_when_and_one_that_fails_says_why(jobs: Jobs, seen: Seen) -> None:
    @jobs.job
    async def later() -> None: ...

    at = datetime(2100, 1, 1, tzinfo=UTC)
    handle = await later.options(run_at=at).spawn()
    assert facts(seen.one("job.spawn"))["schedule_at"] == at.isoformat()
    with pytest.raises(Exception, match="exists"):
        await later.options(id=handle.id).spawn()
    refused = seen.all("job.spawn")[-1]
    assert refused.status.status_code is StatusCode.ERROR
    assert facts(refused)["error.type"] == "piecework.JobAlreadyExists"


async def test_a_spawn_in_the_callers_transaction_and_one_with_a_concurrency_key_are_traced_as_well(
    jobs: Jobs, dsn: str, seen: Seen
) -> None:
    @jobs.job
    async def ordinary() -> None: ...

    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        joined = await ordinary.options(conn=conn).spawn()
    keyed = await ordinary.options(concurrency_key="one").spawn()
    async with jobs.worker():
        for handle in (joined, keyed):
            await handle.result(timeout=SOON)
    for handle in (joined, keyed):
        run = seen.one("job.run", job_id=str(handle.id))
        assert parent(run) == itself(seen.one("job.spawn", id=str(handle.id))).span_id


async def test_s10_s14_a_failed_attempt_says_what_failed_how_loudly_and_when_it_runs_again(
    jobs: Jobs, seen: Seen
) -> None:
    @jobs.job(retry=STEADY)
    async def unlucky() -> None:
        raise LookupError("no such account")

    before = datetime.now(UTC)
    async with jobs.worker():
        handle = await unlucky.spawn()
        await handle.wait(timeout=SOON)
    failures = seen.all("job.fail_job")
    error = {
        "error": True, "error.type": "LookupError", "error.message": "no such account",
        "exception.type": "LookupError", "exception.message": "no such account",
    }  # fmt: skip
    for number, span in enumerate(failures, 1):
        assert facts(span).items() >= {**error, "job_id": str(handle.id), "job_type": "unlucky"}.items()
        assert (facts(span)["attempt"], facts(span)["failures"]) == (number, number)
    assert [facts(span)["will_retry"] for span in failures] == [True, True, False]
    assert [facts(span)["error.level"] for span in failures] == ["WARN", "WARN", "ERROR"]
    assert [span.status.status_code for span in failures] == [StatusCode.UNSET, StatusCode.UNSET, StatusCode.ERROR]
    assert [facts(span).get("retry_delay_ms") for span in failures] == [20, 40, None]
    assert "next_run_at" not in facts(failures[-1])
    due = datetime.fromisoformat(str(facts(failures[0])["next_run_at"]))
    assert before < due < datetime.now(UTC) + timedelta(seconds=1)

    runs = seen.all("job.run")
    assert [facts(run)["conclusion"] for run in runs] == ["error"] * 3
    assert all(run.status.status_code is StatusCode.ERROR for run in runs)
    assert all(facts(run).items() >= error.items() for run in runs)
    [event] = runs[0].events
    assert "raise LookupError" in str((event.attributes or {})["exception.stacktrace"])
    assert [parent(span) for span in failures] == [itself(run).span_id for run in runs]


async def test_s15_a_failure_says_that_the_attempts_are_counted_anew(jobs: Jobs, seen: Seen) -> None:
    @jobs.job(retry=RetrySettings(n_attempts=3, min_backoff=timedelta(milliseconds=1), backoff_jitter_pct=0,
                                  attempt_reset_after_backoff_multiples=0))
    async def healthy_for_a_while() -> None:
        raise LookupError

    async with jobs.worker():
        handle = await healthy_for_a_while.spawn()
        await handle.wait(timeout=SOON)
    told = [(facts(span)["attempt"], facts(span).get("attempt_reset")) for span in seen.all("job.fail_job")]
    assert told == [(1, False), (2, True), (2, None)]


async def test_an_attempt_after_the_first_is_a_trace_of_its_own_linked_to_the_spawn(jobs: Jobs, seen: Seen) -> None:
    @jobs.job(retry=STEADY)
    async def at_last(job: CurrentJob) -> None:
        if job.attempt == 1:
            raise LookupError

    async with jobs.worker():
        await (await at_last.spawn()).result(timeout=SOON)
    spawn, (first, second) = seen.one("job.spawn"), seen.all("job.run")
    assert itself(first).trace_id == itself(spawn).trace_id != itself(second).trace_id
    assert parent(second) is None
    assert linked(second) == [itself(spawn).span_id]


def test_a_job_that_was_due_more_than_an_hour_after_its_spawn_is_a_trace_of_its_own(seen: Seen) -> None:
    tracing = Tracing()
    tracing.refresh()
    hour = 3_600_000_000
    for delay in (hour, hour + 1):
        job = claimed(run_at=1_000_000 + delay)
        run = tracing.begin(job, "w")
        assert run is not None
        tracing.ended(run, completed(job, 0.0, None))
    child, alone = seen.all("job.run")
    assert (parent(child), itself(child).trace_id) == (5, 7)
    assert parent(alone) is None
    assert itself(alone).trace_id != 7
    assert linked(child) == linked(alone) == [5]


@pytest.mark.parametrize("odd", [b'{"traceparent": 5}', b"[1]", b'{"traceparent": "no"}', b"null"])
def test_a_trace_context_that_is_none_is_passed_over(seen: Seen, odd: bytes) -> None:
    tracing = Tracing()
    tracing.refresh()
    job = claimed(trace_context=msgspec.Raw(odd))
    run = tracing.begin(job, "w")
    assert run is not None
    tracing.ended(run, None)
    span = seen.one("job.run", conclusion="lost")
    assert (parent(span), linked(span)) == (None, [])


async def test_s9_reschedules_and_cancels_have_their_spans(jobs: Jobs, seen: Seen) -> None:
    started: list[CurrentJob] = []

    @jobs.job
    async def later(job: CurrentJob) -> Reschedule:
        return Reschedule.after(timedelta(hours=1))

    @jobs.job
    async def endless(job: CurrentJob) -> None:
        started.append(job)
        await until(lambda: False)

    async with jobs.worker():
        again = await later.spawn()
        handle = await endless.spawn()
        await until(lambda: started)
        assert await handle.cancel()
        await handle.wait(timeout=SOON)
        await until(lambda: seen.all("job.reschedule_job"))
    rescheduled = seen.one("job.reschedule_job", job_id=str(again.id))
    due = datetime.fromisoformat(str(facts(rescheduled)["reschedule_at"]))
    assert timedelta(minutes=55) < due - datetime.now(UTC) < timedelta(minutes=61)
    assert facts(seen.one("job.run", job_type="later"))["conclusion"] == "reschedule"
    assert facts(seen.one("job.run", job_type="endless"))["conclusion"] == "cancel"
    assert parent(seen.one("job.cancel_job")) == itself(seen.one("job.run", job_type="endless")).span_id
    assert seen.one("job.handle.cancel", id=str(handle.id))


async def test_a_run_that_is_handed_back_says_so(jobs: Jobs, seen: Seen) -> None:
    started: list[CurrentJob] = []

    @jobs.job
    async def endless(job: CurrentJob) -> None:
        started.append(job)
        await until(lambda: False)

    async with jobs.worker(settings(grace=0.01)):
        await endless.spawn()
        await until(lambda: started)
    assert facts(seen.one("job.run"))["conclusion"] == "release"
    assert facts(seen.one("job.shutdown"))["n_jobs_in_hand"] == 1


async def test_the_span_of_a_run_is_current_in_its_function_and_what_that_spawns_continues_its_trace(
    jobs: Jobs, seen: Seen
) -> None:
    @jobs.job
    async def leaf() -> None: ...

    @jobs.job
    async def on_the_loop() -> int:
        await leaf.spawn()
        return trace.get_current_span().get_span_context().span_id

    @jobs.job
    def in_a_thread() -> int:
        leaf.spawn_sync()
        return trace.get_current_span().get_span_context().span_id

    @jobs.job(retry=RetrySettings.never())
    async def badly_ended() -> Fail:
        return Fail("no")

    async with jobs.worker():
        for job in (on_the_loop, in_a_thread):
            current = await (await job.spawn()).result(timeout=SOON)
            run = seen.one("job.run", job_type=job.job_type)
            assert current == itself(run).span_id
            assert parent(seen.all("job.spawn", job_type="leaf")[-1]) == current
        await (await badly_ended.spawn()).wait(timeout=SOON)
    assert facts(seen.one("job.fail_job"))["error.type"] == "piecework.Fail"


async def test_a_worker_does_not_carry_the_span_in_which_it_was_started_into_its_jobs(jobs: Jobs, seen: Seen) -> None:
    @jobs.job
    async def ordinary() -> None: ...

    handle = await ordinary.spawn()
    with trace.get_tracer_provider().get_tracer("app").start_as_current_span("startup") as startup:
        async with jobs.worker():
            await handle.result(timeout=SOON)
    traces = {itself(span).trace_id for name in ("job.run", "job.poll_jobs") for span in seen.all(name)}
    assert startup.get_span_context().trace_id not in traces


async def test_looking_and_waiting_have_spans(jobs: Jobs, seen: Seen) -> None:
    @jobs.job
    async def never() -> None: ...

    handle = await never.spawn()
    await handle.load()
    with pytest.raises(JobNotFinished):
        await handle.result(timeout=timedelta(milliseconds=10))
    assert seen.one("job.handle.load", id=str(handle.id)).status.status_code is StatusCode.UNSET
    wait = seen.one("job.handle.wait", id=str(handle.id))
    assert facts(wait)["error.type"] == "piecework.JobNotFinished"
    handles = await jobs.spawn_all([never.spec(), never.spec()])
    with pytest.raises(JobNotFinished):
        await handles.wait(timeout=timedelta(milliseconds=10))
    assert seen.one("job.handle.wait", count=2)


async def test_an_empty_poll_leaves_no_span_and_a_failed_one_does(seen: Seen) -> None:
    async def empty() -> Claimed:
        return Claimed([], [0], Walk(0, 0.0), 0)

    async def fails() -> Claimed:
        raise ConnectionError("gone")

    tracing = Tracing()
    assert (await tracing.poll("w", 10, empty())).jobs == []
    assert seen.names == []
    with pytest.raises(ConnectionError):
        await tracing.poll("w", 10, fails())
    assert facts(seen.one("job.poll_jobs"))["error.type"] == "ConnectionError"


def test_the_call_of_a_batch_has_a_span_that_is_linked_to_its_runs_and_is_the_child_of_an_only_one(seen: Seen) -> None:
    tracing = Tracing()
    tracing.refresh()
    for count in (3, 1):
        runs = [tracing.begin(claimed(), "w") for _ in range(count)]
        call = tracing.begin_batch(runs, claimed(), "w")
        assert call is not None
        assert call.context.run(trace.get_current_span) is call.span
        tracing.ended_batch(call, LookupError("all") if count == 3 else None)
        for run in runs:
            assert run is not None
            tracing.ended(run, completed(claimed(), 0.0, None))
    together, alone = seen.all("job.run_batch")
    runs_seen = [itself(run).span_id for run in seen.all("job.run")]
    assert linked(together) == runs_seen[:3]
    assert parent(together) is None
    assert facts(together) == {
        "job_type": "work", "queue": "default", "worker_id": "w", "n_items": 3, "error.type": "LookupError",
    }  # fmt: skip
    assert (parent(alone), linked(alone)) == (runs_seen[3], [runs_seen[3]])


def test_a_run_ends_once(seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    tracing = Tracing()
    tracing.refresh()
    run = tracing.begin(claimed(), "w")
    assert run is not None
    tracing.ended(run, completed(claimed(), 0.0, None))
    tracing.ended(run, None)
    assert facts(seen.one("job.run"))["conclusion"] == "complete"
    assert caplog.records == []


def test_a_settle_that_was_lost_says_so(seen: Seen) -> None:
    tracing = Tracing()
    tracing.refresh()
    tracing.settled(completed(claimed(), 0.0, None), "lost", None, "w", 1)
    assert facts(seen.one("job.complete_job"))["claim_lost"] is True


async def test_whoever_rescues_the_jobs_of_a_lost_worker_names_them(
    app: App, workers: Callable[..., WorkerProcess], seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    handle = await app.hangs_at_first.spawn()
    lost = workers(lease=3.0)
    await until(app.ledger.runs)
    lost.send(signal.SIGKILL)
    async with app.jobs.worker(settings(lease=3.0)):
        await handle.result(timeout=SOON)
    span = seen.one("job.detect_lost_jobs")
    assert facts(span)["n_lost_jobs"] == 1
    assert facts(span)["lost_job_ids"] == (str(handle.id),)
    [record] = [each for each in caplog.records if "no sign of life" in each.getMessage()]
    assert f"hangs_at_first {handle.id}" in record.getMessage()
    assert record.__dict__["job_ids"] == [str(handle.id)]


async def test_without_a_provider_nothing_is_stored_and_one_that_is_set_later_is_found(
    jobs: Jobs, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @jobs.job
    async def ordinary() -> bool:
        return trace.get_current_span().get_span_context().is_valid

    async with jobs.worker():
        handle = await ordinary.spawn()
        assert await handle.result(timeout=SOON) is False
        stored = "SELECT trace_context FROM piecework.finished_jobs WHERE id = %s"
        assert value(dsn, stored, handle.id) is None
        from opentelemetry.sdk.trace import TracerProvider

        provider = TracerProvider()
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
        later = await ordinary.spawn()
        assert await later.result(timeout=SOON) is True
        assert value(dsn, stored, later.id) is not None


async def test_an_opentelemetry_that_fails_costs_its_spans_one_line_of_the_log_and_no_job(
    jobs: Jobs, seen: Seen, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def on_start(self, *args: object, **more: object) -> None:
            raise RuntimeError("no room")

    provider = trace.get_tracer_provider()
    monkeypatch.setattr(telemetry, "_failed", False)
    monkeypatch.setattr(seen.processor, "on_start", Broken().on_start)

    @jobs.job
    async def ordinary() -> int:
        return 7

    async with jobs.worker():
        handle = await ordinary.spawn()
        assert await handle.result(timeout=SOON) == 7
    assert provider is trace.get_tracer_provider()
    lines = [record for record in caplog.records if record.name == "piecework.telemetry"]
    assert [record.levelno for record in lines] == [logging.WARNING]


async def test_each_job_of_a_batch_has_its_run_and_their_call_a_span_that_is_linked_to_all(
    jobs: Jobs, seen: Seen
) -> None:
    current: list[int] = []

    @jobs.batched("mail-out", max_size=10, retry=STEADY)
    async def mail_out(batch: CurrentBatch[int]) -> BatchOutcomes[None]:
        task = asyncio.current_task()
        assert task is not None
        assert task.get_name() == f"job-batch-mail-out-{len(batch.items)}"
        current.append(trace.get_current_span().get_span_context().span_id)
        if len(batch.items) == 3:
            raise LookupError("all of them")
        return batch.outcomes(lambda item: None)

    await jobs.spawn_all([mail_out.spec(number) for number in range(3)])
    async with jobs.worker():
        await until(lambda: len(seen.all("job.complete_job")) == 3)
    calls = seen.all("job.run_batch")
    assert [itself(call).span_id for call in calls] == current
    together, *alone = calls
    failed = seen.all("job.run", conclusion="error")
    assert facts(together).items() >= {"n_items": 3, "job_type": "mail-out", "error.type": "LookupError"}.items()
    assert sorted(linked(together)) == sorted(itself(run).span_id for run in failed)
    retried = [itself(run).span_id for run in seen.all("job.run", conclusion="complete")]
    assert sorted(str(parent(call)) for call in alone) == sorted(map(str, retried))
