"""Says on each log record which job wrote it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar

from opentelemetry import trace

_running: ContextVar[Mapping[str, object] | None] = ContextVar("piecework_running_job", default=None)
_NOTHING: Mapping[str, object] = {"job_id": "", "job_type": "", "attempt": 0, "queue": "", "worker_id": ""}
_wanted = False


class JobLogFilter(logging.Filter):
    """Gives every log record `job_id`, `job_type`, `attempt`, `queue`, `worker_id`, `trace_id` and `span_id`.

    Of a record that a job's code wrote, or a library it calls: those of its run; in a batch what its jobs share. Of
    others: empty texts and the attempt 0, so that a format may name them. What a record says itself stays. Add it to a
    handler, before the worker starts: a filter of a logger does not see the records of the loggers below it.
    """

    def __init__(self) -> None:
        global _wanted
        super().__init__()
        _wanted = True

    def filter(self, record: logging.LogRecord) -> bool:
        """Add what is missing; no record is held back."""
        running = _running.get()
        for name, value in _NOTHING.items() if running is None else {**_NOTHING, **running}.items():
            record.__dict__.setdefault(name, value)
        span = trace.get_current_span().get_span_context()
        record.__dict__.setdefault("trace_id", trace.format_trace_id(span.trace_id) if span.is_valid else "")
        record.__dict__.setdefault("span_id", trace.format_span_id(span.span_id) if span.is_valid else "")
        return True


def wanted() -> bool:
    """Whether there is a filter in this process, so that it is worth it to call `enter`."""
    return _wanted


def enter(facts: Mapping[str, object]) -> None:
    """Say which job runs in the current context."""
    _running.set(facts)
