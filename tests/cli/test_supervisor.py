"""`piecework worker --processes N`."""

from __future__ import annotations

import os
import signal

from cli.command_line import CommandLine, Process, until


def pids(piecework: CommandLine) -> set[int]:
    """The processes whose workers have not signed off, by the database."""
    workers = piecework.reads("status")["workers"]
    assert isinstance(workers, list)
    return {worker["pid"] for worker in workers}


def two_processes(piecework: CommandLine) -> tuple[Process, set[int]]:
    supervisor = piecework.start("worker", "app:jobs", "--processes", "2", "--lease", "2")
    supervisor.says("claims from", times=2)
    found = pids(piecework)
    assert len(found) == 2
    assert supervisor.popen.pid not in found
    return supervisor, found


def test_a_process_that_was_killed_is_replaced(piecework: CommandLine) -> None:
    supervisor, before = two_processes(piecework)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    supervisor.says(f"worker process {victim} was killed by SIGKILL; another starts in 0.5 s")
    supervisor.says("claims from", times=3)
    assert len(pids(piecework) - before) == 1
    supervisor.signal(signal.SIGTERM)
    assert supervisor.ends() == 0
    assert supervisor.said.count("has stopped") == 2


def test_a_process_that_dies_again_is_replaced_after_a_longer_pause(piecework: CommandLine) -> None:
    (piecework.folder / "dies.py").write_text("import os\nfrom app import jobs\nos._exit(9)\n")
    supervisor = piecework.start("worker", "dies:jobs", "--processes", "1")
    supervisor.says("ended with exit code 9; another starts in 0.5 s")
    supervisor.says("ended with exit code 9; another starts in 1.0 s")
    supervisor.signal(signal.SIGINT)
    assert supervisor.ends() == 0


def test_the_second_signal_reaches_the_processes_too(piecework: CommandLine) -> None:
    job = piecework.spawn("wait_for", started=piecework.path("started"), gate=piecework.path("never"))
    supervisor, _ = two_processes(piecework)
    piecework.until_started()
    supervisor.signal(signal.SIGTERM)
    supervisor.says("stops: 1 jobs in hand")
    supervisor.signal(signal.SIGTERM)
    assert supervisor.ends() == 0
    assert piecework.status_of(job) == "pending"


def test_the_processes_drain_when_the_supervisor_is_killed(piecework: CommandLine) -> None:
    supervisor, _ = two_processes(piecework)
    supervisor.signal(signal.SIGKILL)
    supervisor.popen.wait()
    until(lambda: supervisor.said.count("has stopped") == 2, "both processes drained")


def test_a_wrong_target_is_told_once_and_ends_all(piecework: CommandLine) -> None:
    code, said = piecework.run("worker", "app:nothing", "--processes", "3")
    assert code == 2
    assert said.count("the module 'app' has no 'nothing'") == 1


def test_sigusr1_reaches_all_processes_and_stops_none(piecework: CommandLine) -> None:
    supervisor, before = two_processes(piecework)
    supervisor.signal(signal.SIGUSR1)
    supervisor.says("claims in hand: 0", times=2)
    assert pids(piecework) == before
    supervisor.signal(signal.SIGTERM)
    assert supervisor.ends() == 0
