"""Spans around what applications call: spawning, looking, waiting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import Token
from datetime import UTC, datetime, timedelta
from types import TracebackType

import msgspec
from opentelemetry import context as current
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode

from piecework.base.metrics import Instruments, instruments, labels
from piecework.base.telemetry import Attributes, current_trace, guarded, tracer
from piecework.model.error_info import type_name
from piecework.model.job import NewJob

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Spanned:
    """A span around what is done inside of `with`, and current there. While no provider is set it does nothing."""

    __slots__ = ("_attributes", "_kind", "_name", "_span", "_token")

    def __init__(self, name: str, attributes: Attributes, kind: SpanKind = SpanKind.INTERNAL) -> None:
        self._name = name
        self._attributes = attributes
        self._kind = kind
        self._span: Span | None = None
        self._token: Token[Context] | None = None

    def __enter__(self) -> None:
        self._begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            current.detach(self._token)
            self._end(error)

    @guarded
    def _begin(self) -> None:
        source = tracer()
        if source is not None:
            self._span = source.start_span(self._name, kind=self._kind, attributes=self._attributes)
            self._token = current.attach(trace.set_span_in_context(self._span))

    @guarded
    def _end(self, error: BaseException | None) -> None:
        assert self._span is not None
        if isinstance(error, Exception):
            name = type_name(type(error))
            self._span.set_attribute("error.type", name)
            self._span.record_exception(error)
            self._span.set_status(StatusCode.ERROR, f"{name}: {error}")
        self._span.end()


def of_jobs(ids: Sequence[object]) -> Attributes:
    """Return the attributes of a call about these jobs: the id of one, the count of many."""
    return {"id": str(ids[0])} if len(ids) == 1 else {"count": len(ids)}


def listened_to() -> bool:
    """Whether the application has set a provider: spawns are then told of whole."""
    return tracer() is not None or instruments() is not None


@contextmanager
def spawn_span(jobs: Sequence[NewJob]) -> Generator[Sequence[NewJob]]:
    """Put a span around the spawn of these jobs. Inside are the jobs as they are to be stored: with its context."""
    traced, measured = tracer() is not None, instruments()
    if not traced and measured is None:
        yield jobs
        return
    with Spanned("job.spawn", _described(jobs) or {}, SpanKind.PRODUCER):
        carrier = current_trace() if traced else None
        yield jobs if carrier is None else [msgspec.structs.replace(job, trace_context=carrier) for job in jobs]
    if measured is not None:
        _count(jobs, measured)


@guarded
def _count(jobs: Sequence[NewJob], measured: Instruments) -> None:
    for (job_type, queue), count in Counter((job.job_type, job.queue) for job in jobs).items():
        measured.sent.add(count, labels(job_type, queue))


@guarded
def _described(jobs: Sequence[NewJob]) -> Attributes:
    attributes: dict[str, str | int | bool] = {
        "messaging.system": "piecework",
        "messaging.operation.name": "spawn",
        "messaging.operation.type": "send",
    }
    job_types, queues = {job.job_type for job in jobs}, {job.queue for job in jobs}
    if len(job_types) == 1:
        attributes["job_type"] = jobs[0].job_type
    if len(queues) == 1:
        attributes["queue"] = attributes["messaging.destination.name"] = jobs[0].queue
    if len(jobs) > 1:
        attributes["count"] = attributes["messaging.batch.message_count"] = len(jobs)
        return attributes
    attributes["id"] = attributes["messaging.message.id"] = str(jobs[0].id)
    due = _due(jobs[0])
    if due is not None:
        attributes["schedule_at"] = due.isoformat()
    return attributes


def _due(job: NewJob) -> datetime | None:
    if job.run_at is not None:
        return _EPOCH + timedelta(microseconds=job.run_at)
    return None if job.delay is None else datetime.now(UTC) + timedelta(microseconds=job.delay)
