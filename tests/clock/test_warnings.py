"""A manual clock that is set where it should not be is seen."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

from click.testing import CliRunner

from piecework import Jobs
from piecework.cli.main import command
from piecework.testing import ManualClock

START = datetime(2031, 5, 6, 12, tzinfo=UTC)


async def run(dsn: str, *arguments: str) -> str:
    return await asyncio.to_thread(lambda: CliRunner().invoke(command, [*arguments, "--database-url", dsn]).output)


async def test_status_and_doctor_warn_of_it(jobs: Jobs, dsn: str) -> None:
    assert "manual clock" not in await run(dsn, "status")
    assert json.loads(await run(dsn, "status", "--json"))["manual_clock"] is None
    async with ManualClock(jobs, at=START):
        said = await run(dsn, "status")
        assert said.startswith("WARNING: a manual clock is set")
        assert "ManualClock(jobs).clear()" in said.replace("\n", " ")
        report = json.loads(await run(dsn, "status", "--json"))
        assert datetime.fromisoformat(report["manual_clock"]) == START
        checks = {check["name"]: check for check in json.loads(await run(dsn, "doctor", "--json"))["checks"]}
        assert checks["due_times"]["status"] == "warning"
        assert "a manual clock is set" in checks["due_times"]["text"]
        assert "clear()" in checks["due_times"]["advice"]


async def test_what_is_overdue_goes_by_it(jobs: Jobs, dsn: str) -> None:
    @jobs.job
    async def work() -> None: ...

    async with ManualClock(jobs, at=START) as clock:
        await work.options(delay=timedelta(hours=1)).spawn()
        [kind] = json.loads(await run(dsn, "status", "--json"))["jobs"]
        assert kind["oldest_due"] is None
        await clock.advance(timedelta(hours=3))
        [kind] = json.loads(await run(dsn, "status", "--json"))["jobs"]
        assert datetime.fromisoformat(kind["oldest_due"]) == START + timedelta(hours=1)
        assert "Oldest due job of each queue: default 2 h" in await run(dsn, "status")
