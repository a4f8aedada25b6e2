"""The worker's log: one line for each change of state, not one for each try."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from engine.app import settings
from engine.helpers import until

from piecework import Jobs, WorkerSettings
from piecework.store.liveness import Pulse
from piecework.work.current_job import CurrentJob


async def test_a_heartbeat_that_fails_without_end_is_logged_once_and_again_after_it_had_worked(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    beat = Pulse.beat
    results: Counter[str] = Counter()

    def erratic(pulse: Pulse, *args: Any, **more: Any) -> object:
        good = sum(results.values()) in (4, 5)
        results["good" if good else "bad"] += 1
        if not good:
            raise LookupError("a bug of ours")
        return beat(pulse, *args, **more)

    monkeypatch.setattr(Pulse, "beat", erratic)
    async with jobs.worker(settings(lease=3.0)):
        await until(lambda: results["bad"] >= 8)
    lines = [record for record in caplog.records if "a heartbeat of worker" in record.getMessage()]
    assert [(record.levelno, record.exc_info is not None) for record in lines] == [(logging.ERROR, True)] * 2


async def test_a_worker_says_that_it_begins_stops_waits_no_longer_and_has_stopped(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    running: list[object] = []

    @jobs.job
    async def hang(job: CurrentJob) -> None:
        running.append(job.id)
        await until(lambda: False, 60.0)

    caplog.set_level(logging.INFO, logger="piecework.worker")
    async with jobs.worker(WorkerSettings(shutdown_grace=timedelta(milliseconds=1))):
        await hang.spawn()
        await until(lambda: running)
    said = [record.getMessage().partition(" ")[2].partition(" ")[2] for record in caplog.records]
    assert said == [
        "claims from default", "stops: 1 jobs in hand", "waits no longer: its 1 runs are stopped", "has stopped",
    ]  # fmt: skip
