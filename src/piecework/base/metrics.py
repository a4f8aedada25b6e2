"""What the application's OpenTelemetry counts and measures: by job type and queue, never by job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

from piecework.base.telemetry import guarded, version_of_piecework

Labels: TypeAlias = Mapping[str, str | bool]

_API = "opentelemetry.metrics"
_BUCKETS = (0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""A run may take milliseconds or an hour, a job may wait as long."""


_SHOWN_FOR = 300.0
_GAUGES = {
    "piecework.dead_rows": ("{row}", "Dead rows of the tables that workers change most."),
    "piecework.horizon.age": ("s", "For how long the one to blame has kept dead rows from being removed; 0: nobody."),
    "piecework.claim.mean": ("s", "How long a claim took of late, over all workers."),
    "piecework.lane.passed": ("{entry}", "Of lanes with a cursor: what a claim from the very start passes over."),
}


class Shown(NamedTuple):
    """What a gauge shows."""

    gauge: str
    value: float
    labels: Labels


_shown: tuple[float, Sequence[Shown]] = (0.0, ())


class Instruments:
    """The counters, histograms and gauges of one meter provider."""

    def __init__(self, meter: Meter) -> None:
        self.sent = meter.create_counter(
            "messaging.client.sent.messages", "{message}", "Jobs that were spawned."
        )
        self.duration = meter.create_histogram(
            "messaging.process.duration", "s", "How long runs took.", explicit_bucket_boundaries_advisory=_BUCKETS
        )
        self.latency = meter.create_histogram(
            "piecework.queue.latency", "s", "From when a job was due until its run began.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )  # fmt: skip
        self.failures = meter.create_counter("piecework.job.failures", "{attempt}", "Attempts that failed.")
        for name, (unit, description) in _GAUGES.items():
            meter.create_observable_gauge(name, [_observed(name)], unit, description)


def _observed(gauge: str) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observe(options: CallbackOptions) -> Iterator[Observation]:
        since, shown = _shown
        if time.monotonic() - since < _SHOWN_FOR:  # else another process looks, and shows it
            yield from (Observation(each.value, each.labels) for each in shown if each.gauge == gauge)

    return observe


def show(values: Sequence[Shown]) -> None:
    """Have the gauges show this, and nothing else, for the next five minutes."""
    global _shown
    _shown = time.monotonic(), values
    instruments()


_known: tuple[MeterProvider | None, Instruments | None] = (None, None)


@guarded
def instruments() -> Instruments | None:
    """Return the instruments of the application's meter provider; None while it has set none."""
    global _known
    provider = metrics.get_meter_provider()
    if provider is not _known[0]:
        stands_in = type(provider).__module__.startswith(_API)
        _known = provider, None if stands_in else Instruments(provider.get_meter("piecework", version_of_piecework()))
    return _known[1]


def labels(job_type: str, queue: str, **more: str | bool) -> Labels:
    """Return the labels under which something is counted."""
    return {
        "messaging.system": "piecework",
        "messaging.destination.name": queue,
        "job_type": job_type,
        **more,
    }
