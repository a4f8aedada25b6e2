"""A process with an OpenTelemetry of its own, `python traced_app.py spawn|work DSN`: prints its spans, one per line."""

from __future__ import annotations

import asyncio
import sys

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from piecework import Jobs


def one_line(span: ReadableSpan) -> str:
    return span.to_json(indent=None) + "\n"


async def spawn(jobs: Jobs) -> None:
    async with jobs:
        with trace.get_tracer("app").start_as_current_span("request"):
            await jobs.spawn_all([root.spec()])


async def work(jobs: Jobs) -> None:
    async with jobs, jobs.worker():
        await ended.wait()


ended = asyncio.Event()
jobs = Jobs(sys.argv[2])


@jobs.job
async def root() -> None:
    await leaf.spawn()


@jobs.job
async def leaf() -> None:
    ended.set()


provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=one_line)))
trace.set_tracer_provider(provider)
asyncio.run({"spawn": spawn, "work": work}[sys.argv[1]](jobs))
