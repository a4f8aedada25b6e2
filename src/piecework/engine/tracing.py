"""The spans of a worker: its claims, runs and settles, each where it ended.

None is made while the application has set no tracer provider; what a job costs then is the look at `Tracing.on`.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence, Sized
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec
from opentelemetry import context as current
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer

from piecework.base.metrics import Instruments, instruments, labels
from piecework.base.telemetry import Origin, guarded, origin, tracer
from piecework.engine.facts import Facts, facts_of, failure_facts
from piecework.model.error_info import type_name
from piecework.model.job import ClaimedJob
from piecework.model.settlement import Move, Settlement
from piecework.store.claiming import Claimed, Keyed
from piecework.store.settling import Answer
from piecework.work import log_filter
from piecework.work.spans import Spanned

_SETTLES: dict[Move, str] = {
    "complete": "job.complete_job",
    "retry": "job.fail_job",
    "fail": "job.fail_job",
    "reschedule": "job.reschedule_job",
    "cancel": "job.cancel_job",
}
_decode_carrier = msgspec.json.Decoder(dict[str, str] | None).decode
C = TypeVar("C", Claimed, Keyed)
_NEW_TRACE_AFTER = timedelta(hours=1) // timedelta(microseconds=1)


class RunTrace:
    """What is told of one run."""

    __slots__ = ("began", "context", "job", "over", "span")

    def __init__(self, job: ClaimedJob, context: contextvars.Context, span: Span | None) -> None:
        self.job = job
        self.began = time.monotonic()
        self.over = False
        self.context = context
        """In which the function runs: its span is current there."""
        self.span = span


class Tracing:
    """Tells OpenTelemetry of the runs and settles of one worker, and the log filter which job runs."""

    def __init__(self) -> None:
        self.on = False
        """Whether anybody wants to be told."""
        self._tracer: Tracer | None = None
        self._measured: Instruments | None = None

    def refresh(self) -> None:
        """Look whether somebody wants to be told: once per claim, not per job."""
        self._tracer = tracer()
        self._measured = instruments()
        self.on = self._tracer is not None or self._measured is not None or log_filter.wanted()

    @guarded
    def begin(self, job: ClaimedJob, worker_id: str) -> RunTrace:
        """Begin the span of a run. It continues the trace of the spawn, or is a trace of its own that is linked to it:
        when the job did not run at once, and from its second claim on."""
        context = contextvars.copy_context()
        context.run(log_filter.enter, facts_of(job, worker_id))
        if self._measured is not None:
            waited = max(time.time() - job.run_at / 1e6, 0.0)
            self._measured.latency.record(waited, labels(job.job_type, job.queue))
        if self._tracer is None:
            return RunTrace(job, context, None)
        came_from = _origin(job)
        facts = {**facts_of(job, worker_id), **_messaging(job, worker_id, "run", "process")}
        span = self._start("job.run", SpanKind.CONSUMER, came_from, facts)
        context.run(current.attach, trace.set_span_in_context(span, came_from.baggage))
        return RunTrace(job, context, span)

    @guarded
    def ended(self, run: RunTrace, settlement: Settlement | None) -> None:
        """End the span of a run as its settlement says; without one its claim was another's already."""
        if run.over:  # it had ended, and then its claim was dropped
            return
        run.over = True
        conclusion = _conclusion(settlement)
        if self._measured is not None:
            took = labels(run.job.job_type, run.job.queue, conclusion=conclusion)
            self._measured.duration.record(time.monotonic() - run.began, took)
        span = run.span
        if span is None:
            return
        span.set_attribute("conclusion", conclusion)
        if settlement is not None and settlement.error is not None:
            span.set_attributes(failure_facts(settlement))
            error = settlement.error
            span.set_status(StatusCode.ERROR, f"{error.type}: {error.message}")
            span.add_event("exception", {
                "exception.type": error.type, "exception.message": error.message,
                "exception.stacktrace": error.traceback,
            })  # fmt: skip
        span.end()

    @guarded
    def begin_batch(self, runs: Sequence[RunTrace | None], job: ClaimedJob, worker_id: str) -> RunTrace:
        """Begin the span of the call that runs a batch: linked to the spans of its runs, and the child of an only one.

        Args:
            job: one of the batch.
        """
        context = contextvars.copy_context()
        context.run(log_filter.enter, {"job_type": job.job_type, "queue": job.queue, "worker_id": worker_id})
        if self._tracer is None:
            return RunTrace(job, context, None)
        of = [run.span for run in runs if run is not None and run.span is not None]
        parent = trace.set_span_in_context(of[0], Context()) if len(of) == 1 else Context()
        came_from = Origin(parent, [Link(span.get_span_context()) for span in of], Context())
        facts: Facts = {"job_type": job.job_type, "queue": job.queue, "worker_id": worker_id, "n_items": len(runs)}
        span = self._start("job.run_batch", SpanKind.INTERNAL, came_from, facts)
        context.run(current.attach, trace.set_span_in_context(span, Context()))
        return RunTrace(job, context, span)

    @guarded
    def ended_batch(self, run: RunTrace, error: BaseException | None) -> None:
        """End the span of a batch's call, which returned or raised; each of its runs says how it ended itself."""
        if run.span is None:
            return
        if isinstance(error, Exception):
            name = type_name(type(error))
            run.span.set_attribute("error.type", name)
            run.span.record_exception(error)
            run.span.set_status(StatusCode.ERROR, f"{name}: {error}")
        run.span.end()

    @guarded
    def settled(self, settlement: Settlement, answer: Answer, run: RunTrace | None, worker_id: str, sent: int) -> None:
        """Tell of a settle that was answered, and was sent at `sent`, nanoseconds since the epoch."""
        job, error = settlement.job, settlement.error
        if self._measured is not None and error is not None and answer != "lost":
            failed: dict[str, str | bool] = {"error.type": error.type, "will_retry": settlement.will_retry}
            self._measured.failures.add(1, labels(job.job_type, job.queue, **failed))
        name = _SETTLES.get(settlement.move)
        if self._tracer is None or name is None:
            return
        facts = {**facts_of(job, worker_id), **_messaging(job, worker_id, name.removeprefix("job."), "settle")}
        if error is not None:
            facts.update(failure_facts(settlement, worker_id))
        if settlement.move == "reschedule":
            due = settlement.run_at or datetime.now(UTC) + (settlement.delay or timedelta(0))
            facts["reschedule_at"] = due.isoformat()
        if answer == "lost":
            facts["claim_lost"] = True
        if run is None or run.span is None:
            came_from = _origin(job)
        else:
            came_from = Origin(trace.set_span_in_context(run.span, Context()), (), Context())
        span = self._start(name, SpanKind.CLIENT, came_from, facts, sent)
        if error is not None and facts["error.level"] == "ERROR":
            span.set_status(StatusCode.ERROR, f"{error.type}: {error.message}")
        span.end()

    async def poll(self, worker_id: str, most: int, claim: Awaitable[C]) -> C:
        """Await a claim, and tell of it if it brought jobs or failed."""
        began = time.time_ns()
        try:
            claimed = await claim
        except Exception as error:
            self._polled(worker_id, most, began, 0, error)
            raise
        found = len(claimed.jobs)
        if found:
            self._polled(worker_id, most, began, found)
        return claimed

    @guarded
    def _polled(self, worker_id: str, most: int, began: int, found: int, error: Exception | None = None) -> None:
        self.refresh()
        if self._tracer is None:
            return
        facts: Facts = {
            "worker_id": worker_id,
            "n_jobs_to_poll": most,
            "n_jobs_found": found,
            "messaging.system": "piecework",
            "messaging.operation.name": "poll_jobs",
            "messaging.operation.type": "receive",
            "messaging.batch.message_count": found,
            "messaging.client.id": worker_id,
        }
        span = self._start("job.poll_jobs", SpanKind.CLIENT, origin(None, child=False), facts, began)
        if error is not None:
            name = type_name(type(error))
            span.set_attribute("error.type", name)
            span.set_status(StatusCode.ERROR, f"{name}: {error}")
        span.end()

    def _start(self, name: str, kind: SpanKind, of: Origin, facts: Facts, began: int | None = None) -> Span:
        assert self._tracer is not None
        return self._tracer.start_span(name, of.parent, kind, facts, of.links, began)


def _origin(job: ClaimedJob) -> Origin:
    late = job.created_at > 0 and job.run_at - job.created_at > _NEW_TRACE_AFTER
    try:
        carrier = _decode_carrier(job.trace_context)
    except msgspec.DecodeError:
        carrier = None
    return origin(carrier, child=job.claim_no == 1 and not late)


def _conclusion(settlement: Settlement | None) -> str:
    if settlement is None:
        return "lost"
    return settlement.move if settlement.error is None else "error"


def _messaging(job: ClaimedJob, worker_id: str, operation: str, kind: str) -> Facts:
    return {
        "messaging.system": "piecework",
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": job.queue,
        "messaging.message.id": job.id,
        "messaging.client.id": worker_id,
    }


@guarded
def rescued(observer: str, dead: str, lease: timedelta, jobs: Sequence[tuple[str, str]], began: int) -> None:
    """Tell of the jobs that were taken back from a dead worker, given by id and job type."""
    source = tracer()
    if source is None:
        return
    facts: Facts = {
        "worker_id": observer,
        "lost_worker_id": dead,
        "alive_threshold_ms": lease // timedelta(milliseconds=1),
        "n_lost_jobs": len(jobs),
    }
    span = source.start_span("job.detect_lost_jobs", Context(), attributes=facts, start_time=began)
    span.set_attribute("lost_job_ids", [id for id, _ in jobs])
    span.end()


async def drained(drain: Callable[[], Coroutine[object, object, None]], worker_id: str, held: Sized) -> None:
    """Put a span around the end of a worker."""
    with Spanned("job.shutdown", {"worker_id": worker_id, "n_jobs_in_hand": len(held)}):
        await drain()
