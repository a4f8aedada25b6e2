"""The spans that were made."""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext


class Seen:
    """The spans that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.processor = SimpleSpanProcessor(self._exporter)

    @property
    def names(self) -> list[str]:
        return [span.name for span in self._exporter.get_finished_spans()]

    def all(self, name: str, **attributes: object) -> list[ReadableSpan]:
        """The spans of this name with these attributes, in the order of their ends."""
        return [
            span
            for span in self._exporter.get_finished_spans()
            if span.name == name and attributes.items() <= dict(span.attributes or {}).items()
        ]

    def one(self, name: str, **attributes: object) -> ReadableSpan:
        [span] = self.all(name, **attributes)
        return span


def facts(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def itself(span: ReadableSpan) -> SpanContext:
    assert span.context is not None
    return span.context


def linked(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]
