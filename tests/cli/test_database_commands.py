"""`piecework migrate`, `status` and `jobs`: what they print, and what their exit codes mean."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from cli.command_line import CommandLine
from click.testing import CliRunner, Result

from piecework import new_id
from piecework.cli import main, output
from piecework.store import migrating
from support.databases import Server

STATUSES = ["pending", "running", "completed", "errored", "cancelled"]
JOB_KEYS = [
    "id", "job_type", "status", "queue", "priority", "attempt", "failures", "crashes", "claim_no", "worker_id",
    "run_at", "created_at", "claimed_at", "started_at", "finished_at", "tags", "config", "result", "error",
    "key", "concurrency_key", "parked", "progress", "state",
]  # fmt: skip


@pytest.fixture
def run(piecework: CommandLine) -> Callable[..., Result]:
    """Run a command in this process, which is quicker; the others show that it is the same in a process of its own."""
    return lambda *arguments: CliRunner().invoke(main.command, [*arguments, "--database-url", piecework.dsn])


def test_an_empty_database_is_migrated_once(on_empty_database: CommandLine) -> None:
    run = on_empty_database.run
    code, said = run("migrate", "--check")
    assert code == 1
    assert "run `piecework migrate`" in said
    code, said = run("status")
    assert code == 3
    assert "run `piecework migrate`" in said
    code, said = run("migrate")
    assert code == 0
    assert "applied 0001_initial\n" in said
    assert run("migrate") == (0, "schema 'piecework' is up to date\n")
    assert run("migrate", "--check") == (0, "schema 'piecework' is up to date\n")


def test_what_is_to_be_migrated_is_read_by_programs(on_empty_database: CommandLine) -> None:
    def answer(*arguments: str) -> tuple[int, dict[str, Any]]:
        result = CliRunner().invoke(
            main.command, ["migrate", "--json", *arguments, "--database-url", on_empty_database.dsn]
        )
        return result.exit_code, json.loads(result.output)

    everything = [part.name for part in migrating.everything()]
    target = migrating.code_version()
    lacks = {
        "schema": "piecework", "version": 0, "target": target, "up_to_date": False, "pending": everything,
        "applied": [],
    }  # fmt: skip
    done = {**lacks, "version": target, "up_to_date": True, "pending": []}
    assert answer("--check") == (1, lacks)
    assert answer() == (0, {**done, "applied": everything})
    assert answer() == (0, done)
    assert answer("--check") == (0, done)
    with psycopg.connect(on_empty_database.dsn) as conn:
        conn.execute("UPDATE piecework.functions SET checksum = 'other' WHERE name = 'leave_1'")
    assert answer("--check") == (1, {**done, "up_to_date": False, "pending": ["leave_1"]})


@pytest.mark.parametrize("arguments", [["--sql", "--check"], ["--sql", "--json"], ["--pending"]])
def test_migrate_refuses_options_that_contradict_each_other(run: Callable[..., Result], arguments: list[str]) -> None:
    result = run("migrate", *arguments)
    assert result.exit_code == 2
    assert "--sql goes with --pending alone" in result.output


def test_a_schema_that_no_migration_can_mend_is_no_matter_of_migrating(
    piecework: CommandLine, run: Callable[..., Result]
) -> None:
    with psycopg.connect(piecework.dsn) as conn:
        conn.execute("INSERT INTO piecework.migrations VALUES (99, 'later', 'c', 99)")
    for arguments in (["--check"], ["--check", "--json"], ["--sql", "--pending"], []):
        result = run("migrate", *arguments)
        assert result.exit_code == 3
        assert "upgrade the piecework package" in result.output


def test_a_schema_of_another_name_is_another_world(piecework: CommandLine, run: Callable[..., Result]) -> None:
    piecework.spawn("add", a=1, b=2)
    assert run("migrate", "--schema", "second").exit_code == 0
    assert json.loads(run("status", "--schema", "second", "--json").output)["totals"]["pending"] == 0
    assert json.loads(run("status", "--json").output)["totals"]["pending"] == 1


def test_status_counts_the_jobs_and_names_the_workers(piecework: CommandLine) -> None:
    for n in range(3):
        piecework.spawn("add", a=n, b=1)
    waiting = piecework.spawn("unknown", queue="b\x1b[31m")
    worker = piecework.worker()
    until_done = [row["id"] for row in piecework.reads("jobs", "list", "--type", "add")["jobs"]]  # type: ignore[attr-defined]
    for job in until_done:
        piecework.until_status(job, "completed")
    status = piecework.reads("status")
    assert list(status) == [
        "schema", "manual_clock", "totals", "jobs", "queues", "attempts", "rescues", "lost_settles", "claims",
        "horizon", "workers", "running", "stuck",
    ]  # fmt: skip
    assert status["totals"] == dict.fromkeys(STATUSES, 0) | {"pending": 1, "completed": 3}
    kinds = {kind["job_type"]: kind for kind in status["jobs"]}  # type: ignore[attr-defined]
    assert kinds["add"]["counts"]["completed"] == 3
    assert kinds["add"]["oldest_due"] is None
    assert kinds["unknown"]["oldest_due"] is not None
    (found,) = status["workers"]  # type: ignore[misc]
    assert list(found) == [
        "id", "host", "pid", "queues", "job_types", "version", "state", "running", "started_at", "last_beat_seconds",
        "lease_seconds", "stop_seconds", "exit_seconds", "lost_settles", "stops",
    ]  # fmt: skip
    assert found["pid"] == worker.popen.pid
    assert found["queues"] == ["default"]
    assert "add" in found["job_types"]
    code, said = piecework.run("status")
    assert code == 0
    assert f"pid {worker.popen.pid}" in said
    assert "\x1b" not in said
    assert piecework.status_of(waiting) == "pending"


def test_jobs_are_listed_newest_first_and_by_what_is_asked(
    piecework: CommandLine, run: Callable[..., Result]
) -> None:
    first, second = piecework.spawn("add", a=1, b=2), piecework.spawn("add", queue="other", a=3, b=4)
    third = piecework.spawn("break_down", queue="other", why="no")
    assert run("jobs", "cancel", second).exit_code == 0

    def listed(*options: str) -> list[str]:
        return [job["id"] for job in json.loads(run("jobs", "list", "--json", *options).output)["jobs"]]

    assert listed() == [third, second, first]
    assert listed("--limit", "1") == [third]
    assert listed("--queue", "other") == [third, second]
    assert listed("--type", "add") == [second, first]
    assert listed("--status", "cancelled") == [second]
    assert listed("--status", "pending", "--queue", "other") == [third]
    job = json.loads(run("jobs", "list", "--json", "--limit", "1").output)["jobs"][0]
    assert list(job) == JOB_KEYS
    assert job["config"] == {"why": "no"}
    text = run("jobs", "list").output
    assert text.startswith("ID ")
    assert third in text.splitlines()[1]
    assert run("jobs", "list", "--type", "none").output == "No such jobs.\n"


def test_a_failed_job_is_shown_with_its_attempts_and_can_be_run_again(piecework: CommandLine) -> None:
    job = piecework.spawn("break_down", queue="other", why="it rains")
    worker = piecework.worker("--queues", "other")
    piecework.until_status(job, "errored")
    worker.popen.terminate()
    assert worker.ends() == 0
    shown = piecework.reads("jobs", "show", job)
    assert list(shown) == ["job", "why", "attempts"]
    assert shown["why"]["reason"] == "finished"  # type: ignore[index]
    assert shown["job"]["error"]["message"] == "it rains"  # type: ignore[index]
    (attempt,) = shown["attempts"]  # type: ignore[misc]
    assert list(attempt) == [
        "attempt", "claim_no", "worker_id", "ended", "started_at", "ended_at", "next_run_at", "error",
    ]  # fmt: skip
    assert (attempt["attempt"], attempt["ended"]) == (1, "fail")
    code, said = piecework.run("jobs", "show", job)
    assert code == 0
    assert "ValueError: it rains" in said
    assert "it ended errored at" in said
    assert piecework.run("jobs", "retry", job) == (0, f"{job}  retried\n")
    assert piecework.status_of(job) == "pending"


def test_jobs_are_cancelled_unless_they_ended_and_each_is_answered(piecework: CommandLine) -> None:
    running = piecework.spawn("wait_for", started=piecework.path("started"), gate=piecework.path("gate"))
    piecework.worker()
    piecework.until_started()
    waiting, unknown = piecework.spawn("nobody_runs_it"), str(new_id())
    code, said = piecework.run("jobs", "cancel", waiting, running, unknown)
    assert code == 1
    assert [line.split(":")[0] for line in said.splitlines()] == [
        f"{waiting}  cancelled", f"{running}  requested", f"{unknown}  unknown",
    ]  # fmt: skip
    assert "a worker runs it and is told" in said
    piecework.until_status(running, "cancelled")
    code, said = piecework.run("jobs", "show", running)
    assert "cancel" in said
    code, said = piecework.run("jobs", "cancel", "--json", running)
    assert code == 1
    assert json.loads(said) == {"answers": [{"id": running, "answer": "finished"}]}


def test_a_live_job_is_not_retried(piecework: CommandLine, run: Callable[..., Result]) -> None:
    job = piecework.spawn("add", a=1, b=2)
    result = run("jobs", "retry", job)
    assert (result.exit_code, result.output) == (1, f"{job}  live: it has not ended, so it will run anyway\n")


def test_a_job_that_is_not_there_is_a_failure(run: Callable[..., Result]) -> None:
    result = run("jobs", "show", str(new_id()))
    assert result.exit_code == 1
    assert "there is no job" in result.output


ID = str(new_id())
COMMANDS = [["status"], ["migrate"], ["jobs", "list"], *(["jobs", verb, ID] for verb in ("show", "retry", "cancel"))]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_an_unreachable_database_is_told_in_one_message(command: list[str]) -> None:
    result = CliRunner().invoke(main.command, [*command, "--database-url", "postgresql://me:secret@127.0.0.1:1/x"])
    assert result.exit_code == 3
    assert result.output.startswith("Error: no connection to PostgreSQL at 127.0.0.1:1")
    assert "secret" not in result.output
    assert "Traceback" not in result.output


def test_a_missing_permission_is_a_matter_of_the_database(server: Server, empty_dsn: str) -> None:
    server.admin.execute("DROP ROLE IF EXISTS newcomer")
    server.admin.execute("CREATE ROLE newcomer LOGIN")
    dsn = empty_dsn.replace("user=postgres", "user=newcomer")
    result = CliRunner().invoke(main.command, ["migrate", "--database-url", dsn])
    assert result.exit_code == 3
    assert "the database role may not create it" in result.output


def test_a_url_that_is_none_is_a_wrong_call() -> None:
    result = CliRunner().invoke(main.command, ["status", "--database-url", "http://nowhere"])
    assert result.exit_code == 2
    assert "not a libpq connection string" in result.output


def test_debug_shows_the_traceback() -> None:
    result = CliRunner().invoke(main.command, ["--debug", "status", "--database-url", "http://nowhere"])
    assert type(result.exception).__name__ == "ConfigurationError"


def test_every_command_has_a_help_with_an_example() -> None:
    groups = [[name] for name in ("demo", "worker", "migrate", "status", "doctor")]
    groups += [["limits", name] for name in ("list", "set", "pause", "resume")]
    for path in [*groups, *(["jobs", name] for name in ("list", "show", "retry", "cancel"))]:
        result = CliRunner().invoke(main.command, [*path, "--help"])
        assert result.exit_code == 0
        assert f"Example: piecework {' '.join(path)}" in result.output
    assert "Exit codes: 0 it worked" in CliRunner().invoke(main.command, ["--help"]).output.replace("\n", " ")


def test_tables_are_plain_text_where_rich_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    columns = [output.Column("name"), output.Column("n", right=True)]
    output.print_table(columns, [["completed", "7"]])
    assert "name" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "rich.console", None)
    output.print_table(columns, [["completed", "7"]])
    assert capsys.readouterr().out == "NAME       N\ncompleted  7\n"


def test_the_help_of_all_commands_imports_neither_rich_nor_the_engine() -> None:
    code = "import sys; from piecework.cli.main import command; command(['--help'], standalone_mode=False)"
    code += "; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "piecework.cli.demo.command" in modules
    assert [name for name in modules if name == "rich" or name.startswith("piecework.engine")] == []
