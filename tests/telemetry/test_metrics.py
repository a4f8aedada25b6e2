"""S16: what is counted and measured where the application has set a meter provider."""

from __future__ import annotations

from datetime import timedelta

import pytest
from engine.helpers import SOON
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader, Sum

from piecework import Jobs, RetrySettings

Labels = tuple[tuple[str, object], ...]


class Read:
    """What the instruments show now, by name and labels: a sum, or how many values a histogram has and their sum."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        self.values: dict[str, dict[Labels, object]] = {}
        data = reader.get_metrics_data()
        assert data is not None
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:
            shown = self.values[metric.name] = {}
            for point in metric.data.data_points:
                labels = tuple(sorted((name, value) for name, value in dict(point.attributes or {}).items()))
                if isinstance(metric.data, Sum):
                    shown[labels] = point.value  # type: ignore[union-attr]
                elif isinstance(metric.data, Histogram):
                    shown[labels] = point.count, point.sum  # type: ignore[union-attr]


def labels(job_type: str, **more: object) -> Labels:
    known = {"job_type": job_type, "messaging.destination.name": "default", "messaging.system": "piecework", **more}
    return tuple(sorted(known.items()))


async def test_s16_spawns_latencies_durations_and_failures_are_measured_by_job_type(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)

    @jobs.job
    async def good() -> None: ...

    @jobs.job(retry=RetrySettings(n_attempts=2, min_backoff=timedelta(milliseconds=1)))
    def bad() -> None:
        raise LookupError

    async with jobs.worker():
        await (await jobs.spawn_all([good.spec(), good.spec()])).results(timeout=SOON)
        await (await bad.spawn()).wait(timeout=SOON)
    read = Read(reader).values
    assert read["messaging.client.sent.messages"] == {labels("good"): 2, labels("bad"): 1}
    durations, latencies = read["messaging.process.duration"], read["piecework.queue.latency"]
    assert durations.keys() == {labels("good", conclusion="complete"), labels("bad", conclusion="error")}
    assert durations[labels("good", conclusion="complete")][0] == 2  # type: ignore[index]
    assert 0 < durations[labels("good", conclusion="complete")][1] < SOON.total_seconds()  # type: ignore[index]
    assert {name: value[0] for name, value in latencies.items()} == {labels("good"): 2, labels("bad"): 2}  # type: ignore[index]
    assert read["piecework.job.failures"] == {
        labels("bad", will_retry=True, **{"error.type": "LookupError"}): 1,
        labels("bad", will_retry=False, **{"error.type": "LookupError"}): 1,
    }
    provider.shutdown()
