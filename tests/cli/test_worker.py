"""`piecework worker`: which jobs it finds, how it stops."""

from __future__ import annotations

import signal

import pytest
from cli.command_line import CommandLine


def test_an_idle_worker_is_gone_at_once(piecework: CommandLine) -> None:
    worker = piecework.worker()
    worker.signal(signal.SIGTERM)
    assert worker.popen.wait(5) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_running_job_end(piecework: CommandLine, number: signal.Signals) -> None:
    job = piecework.spawn("wait_for", started=piecework.path("started"), gate=piecework.path("gate"))
    worker = piecework.worker()
    piecework.until_started()
    worker.signal(number)
    worker.says("stops: 1 jobs in hand")
    (piecework.folder / "gate").touch()
    assert worker.ends() == 0
    assert piecework.status_of(job) == "completed"


def test_a_second_signal_does_not_wait_for_the_running_job(piecework: CommandLine) -> None:
    job = piecework.spawn("wait_for", started=piecework.path("started"), gate=piecework.path("never"))
    worker = piecework.worker()
    piecework.until_started()
    worker.signal(signal.SIGTERM)
    worker.says("stops: 1 jobs in hand")
    worker.signal(signal.SIGTERM)
    assert worker.ends() == 0
    shown = piecework.reads("jobs", "show", job)
    assert (shown["job"]["status"], shown["job"]["attempt"]) == ("pending", 1)  # type: ignore[index]
    assert [attempt["ended"] for attempt in shown["attempts"]] == ["release"]  # type: ignore[attr-defined]


def test_after_the_grace_the_running_job_is_handed_back(piecework: CommandLine) -> None:
    job = piecework.spawn("wait_for", started=piecework.path("started"), gate=piecework.path("never"))
    worker = piecework.worker("--grace", "0.2")
    piecework.until_started()
    worker.signal(signal.SIGTERM)
    assert worker.ends() == 0
    assert piecework.status_of(job) == "pending"


def test_a_thread_that_goes_on_after_the_second_signal_ends_with_the_process(piecework: CommandLine) -> None:
    job = piecework.spawn("block", started=piecework.path("started"))
    worker = piecework.worker()
    piecework.until_started()
    worker.signal(signal.SIGTERM)
    worker.says("stops: 1 jobs in hand")
    worker.signal(signal.SIGTERM)
    assert worker.ends() == 1
    assert f"1 jobs are left behind in threads, they run again elsewhere: job-block-{job}" in worker.said


def test_a_module_that_holds_one_jobs_is_enough(piecework: CommandLine) -> None:
    piecework.start("worker", "app").says("claims from default")


def test_it_takes_the_queues_it_is_told_and_runs_the_jobs_of_imported_modules(piecework: CommandLine) -> None:
    (piecework.folder / "more.py").write_text(
        "from app import jobs\n@jobs.job\nasync def late(n: int) -> int:\n    return n\n"
    )
    elsewhere, late = piecework.spawn("add", a=1, b=2), piecework.spawn("late", queue="b", n=3)
    worker = piecework.worker("--queues", "a, b", "--import", "more")
    piecework.until_status(late, "completed")
    assert piecework.status_of(elsewhere) == "pending"
    assert "claims from a, b" in worker.said


WRONG = {
    "nosuch:jobs": "there is no module 'nosuch'",
    "app:nothing": "the module 'app' has no 'nothing': it holds app:jobs",
    "app:number": "app:number is not a Jobs but of the type int: it holds app:jobs",
    "app.py:jobs": "'app.py:jobs' names a file: write it as a module, as in app:jobs",
    "a-b:jobs": "'a-b:jobs' is not of the form MODULE:JOBS",
    "two": "say which Jobs of the module 'two': it holds two:first and two:second",
    "none": "say which Jobs of the module 'none': it holds no Jobs; make one with `jobs = Jobs()`",
    "broken": "importing the module 'broken' failed:\n",
    "needs:jobs": "ModuleNotFoundError: No module named 'missing_library'",
}


@pytest.mark.parametrize("target", WRONG)
def test_a_wrong_target_is_told_with_what_was_found(piecework: CommandLine, target: str) -> None:
    (piecework.folder / "two.py").write_text("from piecework import Jobs\nfirst, second = Jobs(), Jobs()\n")
    (piecework.folder / "none.py").write_text("x = 1\n")
    (piecework.folder / "broken.py").write_text("def f():\n    return 1 / 0\nf()\n")
    (piecework.folder / "needs.py").write_text("import missing_library\n")
    code, said = piecework.run("worker", target)
    assert code == 2
    assert WRONG[target] in said
    assert "site-packages" not in said
    if target == "broken":
        assert "in f\n" in said
        assert "ZeroDivisionError: division by zero" in said
        assert "target.py" not in said


@pytest.mark.parametrize(
    "options", [["--lease", "0"], ["--lease", "nan"], ["--concurrency", "0"], ["--queues", ","], ["--grace", "-1"]]
)
def test_a_wrong_option_is_told_without_a_traceback(piecework: CommandLine, options: list[str]) -> None:
    code, said = piecework.run("worker", "app:jobs", *options)
    assert code == 2
    assert said.startswith("Error: ")
    assert "Traceback" not in said


def test_a_worker_without_its_database_says_so(piecework: CommandLine) -> None:
    piecework.environment["PIECEWORK_DATABASE_URL"] = "postgresql://127.0.0.1:1/nowhere"
    code, said = piecework.run("worker", "app:jobs")
    assert code == 3
    assert "no connection to PostgreSQL at 127.0.0.1:1" in said
    assert "Traceback" not in said

