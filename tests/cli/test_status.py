"""`piecework status`: what runs, who lives, and what is stuck."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from cli.command_line import CommandLine, until
from click.testing import CliRunner

from piecework import new_id
from piecework.cli import main
from piecework.cli.stuck import find_stuck
from piecework.model.snapshot import JobStatus
from piecework.store.liveness import Counters
from piecework.store.overview import JobCount, RunningJob, WorkerState

HOUR = timedelta(hours=1)


def sql(piecework: CommandLine, statement: str) -> None:
    with psycopg.connect(piecework.dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def reads(piecework: CommandLine, *options: str) -> dict[str, Any]:
    report: dict[str, Any] = piecework.reads("status", *options)
    return report


def status_of(piecework: CommandLine) -> dict[str, Any]:
    """Quicker than in a process of its own."""
    result = CliRunner().invoke(main.command, ["status", "--json", "--database-url", piecework.dsn])
    report: dict[str, Any] = json.loads(result.output)
    return report


def test_status_says_what_each_worker_runs_and_for_how_long(piecework: CommandLine) -> None:
    names = ["started", "second"]
    first, second = (
        piecework.spawn("wait_for", started=piecework.path(name), gate=piecework.path("gate")) for name in names
    )
    worker = piecework.worker()
    until(lambda: all((piecework.folder / name).exists() for name in names), "both jobs run")
    sql(piecework, f"UPDATE piecework.jobs SET claimed_at = claimed_at - interval '2 hours' WHERE id = '{second}'")
    status = reads(piecework)
    running = status["running"]
    assert [job["id"] for job in running] == [second, first]
    assert list(running[0]) == [
        "id", "job_type", "queue", "attempt", "worker_id", "host", "pid", "claimed_at", "seconds", "timeout_seconds",
    ]  # fmt: skip
    assert running[0]["pid"] == worker.popen.pid
    assert 7200 <= running[0]["seconds"] < 7300
    assert [(each["kind"], each["subject"]) for each in status["stuck"]] == [("long", second)]
    assert reads(piecework, "--long", "90000")["stuck"] == []
    code, said = piecework.run("status", "--running", "1")
    assert code == 0
    assert f"{second}  wait_for" in said
    assert "and 1 more, which began later" in said
    assert "Stuck:\n- job" in said
    assert max(len(line) for line in said[said.index("Stuck") :].splitlines()) <= 80


def test_a_thread_that_goes_on_after_its_timeout_is_named(piecework: CommandLine) -> None:
    job = piecework.spawn("overrun", started=piecework.path("started"), gate=piecework.path("gate"))
    piecework.worker()
    piecework.until_started()
    sql(piecework, "UPDATE piecework.jobs SET claimed_at = claimed_at - interval '6 seconds'")
    status = reads(piecework)
    assert status["running"][0]["timeout_seconds"] == 0.01
    assert [(each["kind"], each["subject"]) for each in status["stuck"]] == [("overdue", job)]
    (piecework.folder / "gate").touch()


def test_a_job_type_that_no_worker_knows_and_a_queue_without_a_worker_are_named(piecework: CommandLine) -> None:
    piecework.spawn("nobody_runs_it")
    piecework.spawn("add", queue="elsewhere", a=1, b=2)
    piecework.worker()
    status = reads(piecework)
    assert [(each["kind"], each["subject"]) for each in status["stuck"]] == [
        ("type_without_worker", "nobody_runs_it"), ("queue_without_worker", "elsewhere"),
    ]  # fmt: skip
    queues = status["queues"]
    assert [(queue["queue"], queue["pending"]) for queue in queues] == [("default", 1), ("elsewhere", 1)]
    assert all(queue["oldest_due"] for queue in queues)
    assert "Oldest due job of each queue: default " in piecework.run("status")[1]


def test_a_worker_that_is_killed_is_silent_and_its_jobs_are_counted_as_rescued(piecework: CommandLine) -> None:
    job = piecework.spawn("wait_for", started=piecework.path("started"), gate=piecework.path("gate"))
    killed = piecework.worker("--lease", "2")
    piecework.until_started()
    killed.signal(signal.SIGKILL)
    killed.ends()

    until(lambda: [worker["state"] for worker in status_of(piecework)["workers"]] == ["silent"], "it is silent")
    status = reads(piecework)
    assert [each["kind"] for each in status["stuck"]] == ["silent"]
    assert status["rescues"] == {"last_hour": 0, "last_day": 0}
    (piecework.folder / "gate").touch()
    piecework.worker("--lease", "2")
    piecework.until_status(job, "completed")
    assert reads(piecework)["rescues"] == {"last_hour": 1, "last_day": 1}
    assert "Rescued jobs: 1 in the last hour" in piecework.run("status")[1]


def test_a_settle_that_changed_nothing_is_counted(piecework: CommandLine) -> None:
    piecework.spawn("wait_for", started=piecework.path("started"), gate=piecework.path("gate"))
    worker = piecework.worker("--lease", "2")
    piecework.until_started()
    sql(piecework, "DELETE FROM piecework.jobs")
    (piecework.folder / "gate").touch()
    worker.says("was lost, its end (complete) changed nothing")

    until(lambda: [each["lost_settles"] for each in status_of(piecework)["workers"]] == [1], "a beat tells of it")
    assert status_of(piecework)["lost_settles"] == 1


def test_watching_shows_it_again_and_again(piecework: CommandLine) -> None:
    watching = piecework.start("status", "--watch", "1")
    watching.says("There are no jobs yet.", times=2)
    watching.signal(signal.SIGINT)
    assert watching.ends() == 130


def a_worker(**changed: object) -> WorkerState:
    second = timedelta(seconds=1)
    values: dict[str, object] = {
        "id": new_id(), "host": "here", "pid": 7, "queues": ("default",), "job_types": ("add",), "version": "1",
        "draining": False, "started_at": datetime.now(UTC), "last_beat": second, "lease": 18 * second, "running": 0,
        "idle": False, "stop": 12 * second, "exit": 16 * second, "counters": Counters(),
    }  # fmt: skip
    return WorkerState(**(values | changed))  # type: ignore[arg-type]


def a_run(**changed: object) -> RunningJob:
    values: dict[str, object] = {
        "id": new_id(), "job_type": "add", "queue": "default", "attempt": 1, "worker_id": new_id(), "host": "here",
        "pid": 7, "claimed_at": datetime.now(UTC), "lasts": timedelta(minutes=5), "timeout": None,
    }  # fmt: skip
    return RunningJob(**(values | changed))  # type: ignore[arg-type]


def kinds_of(
    *runs: RunningJob, workers: list[WorkerState] | None = None, counts: list[JobCount] | None = None
) -> list[str]:
    return [each["kind"] for each in find_stuck(counts or [], workers or [], runs, HOUR)]


def test_a_run_is_overdue_a_little_after_its_timeout_and_long_only_without_one() -> None:
    minute = timedelta(minutes=1)
    assert kinds_of(a_run(lasts=minute + timedelta(seconds=4), timeout=minute)) == []
    assert kinds_of(a_run(lasts=minute + timedelta(seconds=6), timeout=minute)) == ["overdue"]
    assert kinds_of(a_run(lasts=2 * HOUR, timeout=3 * HOUR)) == []
    assert kinds_of(a_run(lasts=2 * HOUR)) == ["long"]
    assert kinds_of(a_run(host=None, pid=None)) == ["ownerless"]


@pytest.mark.parametrize(("state", "found"), [
    ({}, []), ({"draining": True}, ["queue_without_worker"]), ({"queues": ("other",)}, ["queue_without_worker"]),
    ({"job_types": ("other",)}, ["type_without_worker"]),
    ({"last_beat": timedelta(seconds=19)}, ["silent", "queue_without_worker"]),
])  # fmt: skip
def test_pending_jobs_need_a_live_worker_of_their_queue_that_knows_their_type(
    state: dict[str, object], found: list[str]
) -> None:
    pending: JobStatus = "pending"
    counts = [JobCount(queue="default", job_type="add", status=pending, count=2, oldest_due=None)]
    assert kinds_of(workers=[a_worker(**state)], counts=counts) == found
