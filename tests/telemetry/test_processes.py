"""Across processes, with the SDK as an application sets it up; and without any."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

APP = Path(__file__).with_name("traced_app.py")


def python(*arguments: object) -> str:
    ended = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def spans(what: str, dsn: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in python(APP, what, dsn).splitlines()]


def test_a_trace_goes_from_the_process_that_spawns_to_the_one_that_runs_and_on_to_what_that_spawns(dsn: str) -> None:
    spawning, working = spans("spawn", dsn), spans("work", dsn)
    request, spawn = (next(span for span in spawning if span["name"] == name) for name in ("request", "job.spawn"))
    named = [(span["name"], span["attributes"].get("job_type")) for span in working]
    assert named.count(("job.run", "root")) == named.count(("job.run", "leaf")) == 1

    def one(name: str, job_type: str) -> dict[str, Any]:
        return working[named.index((name, job_type))]

    family = [
        spawn, one("job.run", "root"), one("job.spawn", "leaf"), one("job.run", "leaf"), one("job.complete_job", "leaf")
    ]  # fmt: skip
    assert {span["context"]["trace_id"] for span in family} == {request["context"]["trace_id"]}
    before = [request, *family]
    assert [span["parent_id"] for span in family] == [span["context"]["span_id"] for span in before[: len(family)]]


def test_s11_nothing_global_is_configured_and_no_sdk_is_needed() -> None:
    seen = json.loads(
        python(
            "-c",
            """if True:
            import json, logging, sys
            import piecework, piecework.engine.worker, piecework.cli.main
            from opentelemetry import metrics, trace
            print(json.dumps({
                "tracer": type(trace.get_tracer_provider()).__name__,
                "meter": type(metrics.get_meter_provider()).__name__,
                "sdk": any(name.startswith("opentelemetry.sdk") for name in sys.modules),
                "handlers": len(logging.root.handlers),
                "ours": [
                    (name, logger.level, len(logger.handlers), len(logger.filters))
                    for name, logger in logging.root.manager.loggerDict.items()
                    if isinstance(logger, logging.Logger) and name.split(".")[0] == "piecework"
                    if (logger.level, logger.handlers, logger.filters, logger.propagate) != (0, [], [], True)
                ],
            }))""",
        )
    )
    assert seen == {
        "tracer": "ProxyTracerProvider", "meter": "_ProxyMeterProvider", "sdk": False, "handlers": 0, "ours": [],
    }  # fmt: skip


def test_an_import_survives_settings_of_opentelemetry_that_name_what_is_not_installed(dsn: str) -> None:
    answer = python(
        "-c",
        f"""if True:
        import os
        os.environ["OTEL_PROPAGATORS"] = "of-nobody"
        import asyncio, piecework
        jobs = piecework.Jobs({dsn!r})
        @jobs.job
        def ordinary() -> int: return 7
        with jobs:
            print(ordinary.spawn_sync().load_sync().status)""",
    )
    assert answer == "pending\n"
