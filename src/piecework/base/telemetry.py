"""What the application's OpenTelemetry is told, through the API alone.

Nothing is configured here. As long as the application has set no tracer provider, nothing is done.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import NamedTuple, ParamSpec, TypeAlias, TypeVar

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NoOpTracer, ProxyTracerProvider, Tracer, TracerProvider

P = ParamSpec("P")
T = TypeVar("T")
Attributes: TypeAlias = Mapping[str, str | int | bool]

log = logging.getLogger("piecework.telemetry")
_known: tuple[TracerProvider | None, Tracer | None] = (None, None)
_failed = False


def guarded(tell: Callable[P, T]) -> Callable[P, T | None]:
    """Have `tell` answer None where it fails: no job and no worker depends on what is told.

    The first failure in a process is logged.
    """

    @functools.wraps(tell)
    def safe(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return tell(*args, **kwargs)
        except Exception:
            global _failed
            if not _failed:
                log.warning("OpenTelemetry failed, what it was told is lost; the jobs go on", exc_info=True)
            _failed = True
            return None

    return safe


@functools.cache
def version_of_piecework() -> str:
    """Return the installed version: what spans and metrics are said to come from."""
    return version("piecework")


@guarded
def tracer() -> Tracer | None:
    """Return the tracer of the application's provider; None while it has set none, or one that is turned off."""
    global _known
    provider = trace.get_tracer_provider()
    if provider is not _known[0]:
        found = None
        if not isinstance(provider, ProxyTracerProvider):
            found = provider.get_tracer("piecework", version_of_piecework())
        _known = provider, None if isinstance(found, NoOpTracer) else found
    return _known[1]


@guarded
def current_trace() -> dict[str, str] | None:
    """Return what continues the current trace elsewhere, to be stored with a job; None where no trace is current."""
    if not trace.get_current_span().get_span_context().is_valid:
        return None
    from opentelemetry import propagate  # it raises where OTEL_PROPAGATORS names one that is not installed

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier or None


class Origin(NamedTuple):
    """Where a span of a job comes from."""

    parent: Context
    """What the span is a child of: the span that spawned the job, or nothing."""
    links: Sequence[Link]
    """The span that spawned the job, if it is known."""
    baggage: Context
    """What came along with it."""


def origin(carrier: Mapping[str, str] | None, *, child: bool) -> Origin:
    """Return where a job with this trace context comes from; not as a `child` it begins a trace of its own."""
    if not carrier:
        return Origin(Context(), (), Context())
    from opentelemetry import propagate

    spawned = propagate.extract(carrier, Context())
    span = trace.get_current_span(spawned).get_span_context()
    links = (Link(span),) if span.is_valid else ()
    return Origin(spawned if child else Context(), links, spawned)
