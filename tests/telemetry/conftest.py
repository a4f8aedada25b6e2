"""A tracer provider for one test: the real SDK, with spans kept in memory, where the code looks for the global one."""

from __future__ import annotations

import pytest
from engine.fixtures import app, jobs, ledger, workers  # noqa: F401
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from telemetry.seen import Seen


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The spans of this test, once they ended."""
    seen = Seen()
    provider = TracerProvider()
    provider.add_span_processor(seen.processor)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return seen
