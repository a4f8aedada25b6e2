"""`piecework chaos`: short runs with real faults, the check of a live database, and what it makes of what it knows."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from pathlib import Path

import msgspec
import psycopg
import pytest
from cli.command_line import CommandLine

from piecework.cli.chaos import ledger
from piecework.cli.chaos.own_server import OwnServer
from piecework.cli.chaos.plan import steps
from piecework.cli.chaos.report import markdown, merged
from piecework.cli.chaos.server_faults import KINDS, NAMES, possible
from piecework.cli.chaos.verdict import RESUMED_WITHIN, ChaosReport, Course, by_fault, must_be_none, recoveries
from piecework.store.chaos import Console
from piecework.testing.history import Fault, JobHistory, Terms, judge

A_RUN = 240.0
QUICK = (
    "a worker is killed (SIGKILL)", "a worker stands still (SIGSTOP)", "a black hole", "connections are cut",
    "answers to claims are lost", "answers to settles are lost", "answers to completions are lost",
    "answers to spawns are lost", "sessions are ended", "the server is restarted", "the server crashes",
)  # fmt: skip
IN_TIME = (f"no job began within {RESUMED_WITHIN:.0f} s after a fault was over",
           "after a fault a job was neither run nor given back within the promised time")  # fmt: skip
"""What is judged by the clock: a machine that has other things to do breaks it."""


def report_of(piecework: CommandLine, *arguments: str) -> ChaosReport:
    process = piecework.start("chaos", "--json", "--yes", *arguments)
    process.popen.wait(A_RUN)
    print(process.err.read_text()[-3000:])
    return msgspec.json.decode(process.out.read_text(), type=ChaosReport)


def schemas(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as conn:
        rows = conn.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'piecework\\_chaos%'").fetchall()
    return [row[0] for row in rows]


@pytest.mark.timeout(A_RUN + 20)
def test_a_short_run_with_a_server_of_its_own_loses_and_doubles_nothing(piecework: CommandLine) -> None:
    del piecework.environment["PIECEWORK_DATABASE_URL"]
    only = [part for name in QUICK for part in ("--fault", name)]
    report = report_of(piecework, "--seconds", "18", "--seed", "7", "--workers", "3", "--spawners", "1", *only)
    found = {what: count for what, count in report.must_be_none.items() if count and what not in IN_TIME}
    assert found == {}, report.violations
    assert report.drained_in is not None
    assert sum(fault.times for fault in report.faults) >= 3
    assert report.statuses["completed"] > 50
    assert report.effects > 5
    assert report.runs > report.jobs / 2


@pytest.mark.timeout(A_RUN + 20)
def test_a_server_that_is_named_is_left_alone_and_its_schema_is_gone_afterwards(on_empty_database: CommandLine) -> None:
    piecework = on_empty_database
    report = report_of(
        piecework, "--seconds", "4", "--seed", "1", "--workers", "2", "--spawners", "1", "--lease", "6",
        "--fault", "sessions are ended", "--fault", "connections are cut", "--fault", "the server is restarted",
    )  # fmt: skip
    assert list(report.skipped) == ["the server is restarted"]
    assert {fault.name for fault in report.faults} <= {"sessions are ended", "connections are cut"}
    assert {what for what, count in report.must_be_none.items() if count} <= set(IN_TIME)
    assert schemas(piecework.dsn) == []


def test_a_database_that_is_named_is_not_touched_without_a_yes(on_empty_database: CommandLine) -> None:
    code, said = on_empty_database.run("chaos", "--seconds", "1")
    assert code == 2
    assert "This breaks things at" in said
    assert "PASSWORD" not in said.upper()
    assert schemas(on_empty_database.dsn) == []


def test_check_judges_what_is_in_the_database_and_changes_nothing(piecework: CommandLine) -> None:
    job = piecework.spawn("add", a=1, b=2)
    code, said = piecework.run("chaos", "--check")
    assert (code, "All rules hold." in said) == (0, True)
    code, said = piecework.run("chaos", "--check", "--drained", "--json")
    assert code == 1
    [violation] = json.loads(said)["violations"]
    assert (violation["rule"], violation["jobs"]) == ("not ended", [job])
    with psycopg.connect(piecework.dsn, autocommit=True) as conn:
        conn.execute("UPDATE piecework.jobs SET worker_id = gen_random_uuid(), claim_no = 1")
    code, said = piecework.run("chaos", "--check")
    assert code == 1
    assert "held by nobody" in said


async def test_the_clock_of_its_own_server_is_set_back_where_that_can_be_done() -> None:
    server = await OwnServer.make("piecework_chaos")
    try:
        [kind] = [kind for kind in KINDS if kind.needs == "server's clock"]
        if not server.has_clock:
            assert "libfaketime" in str(possible(kind, server, 60))
            return
        assert possible(kind, server, 60) is None
        assert "20 minutes" in str(possible(kind, server, 1300))
        console = Console(server.dsn, "piecework_chaos")
        for seconds in (-3600, 0):
            server.turn_clock(seconds)
            while not -30 < await console.now() - time.time() - seconds < 30:  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.05)
    finally:
        await server.remove()


def test_a_seed_draws_the_same_faults_each_time_and_each_kind_once_in_a_round() -> None:
    def drawn(seed: int) -> list[tuple[str, float, bool, float]]:
        first = itertools.islice(steps(seed, KINDS), 2 * len(KINDS))
        return [(step.kind.name, step.before, step.alone, step.chance.random()) for step in first]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert Counter(name for name, *_ in drawn(1)) == dict.fromkeys(NAMES, 2)


def test_the_time_to_the_first_job_leaves_out_that_of_other_faults() -> None:
    faults = [Fault("a", 1.0, 2.0), Fault("b", 10.0, 10.0), Fault("c", 11.0, 20.0), Fault("a", 30.0, 31.0)]
    course = Course(faults=faults, begins=[0.5, 1.5, 2.5, 9.0, 20.5, 40.0], accepted=3, cut_short={"b": 1})
    assert recoveries(course) == [0.5, 1.5, 0.5, 9.0]
    report = judge([], Terms(accepted={"x": 12.0}))
    assert must_be_none(course, report)[IN_TIME[0]] == 1
    assert must_be_none(course, report)["an accepted job is neither live nor finished, or an attempt has no job"] == 1
    a, b, c = by_fault(course, report)
    assert (a.name, a.times, a.first_job, a.first_job_worst) == ("a", 2, 4.75, 9.0)
    assert (b.first_job, c.first_job) == (1.5, 0.5)
    assert [each.lost for each in (a, b, c)] == [0, 0, 1]
    assert [each.cut_short for each in (a, b, c)] == [0, 1, 0]


def test_nothing_that_breaks_every_few_seconds_hides_that_no_job_begins() -> None:
    faults = [Fault("a", 4.0 * n, 4.0 * n + 1.0) for n in range(15)]
    course = Course(faults=faults, begins=[0.5, 60.0], accepted=0)
    late = [second for second in recoveries(course) if second is not None and second > RESUMED_WITHIN]
    assert len(late) == 14
    assert must_be_none(course, judge([]))[IN_TIME[0]] == 14


def test_after_some_faults_there_is_quiet_for_as_long_as_a_rescue_may_take() -> None:
    drawn = list(itertools.islice(steps(1, KINDS), 80))
    assert sum(step.rest for step in drawn) == 10


def test_runs_of_several_seeds_are_told_in_one_table() -> None:
    course = Course(faults=[Fault("a", 1.0, 2.0)], begins=[2.5], accepted=0)
    one = by_fault(course, judge([]))
    two = by_fault(Course(faults=[Fault("a", 1.0, 2.0)], begins=[4.0], accepted=0), judge([JobHistory("x")]))
    [both] = merged([*one, *two])
    assert (both.times, both.first_job_worst, both.lost) == (2, 2.0, 1)
    reports = [
        ChaosReport(
            status=status, seed=seed, seconds=60, lease=2, workers=4, spawners=2, started={"workers": 4},
            exits={"-9": 1}, postgresql="18", jobs=1, accepted=1, runs=1, effects=0, statuses={"completed": 1},
            attempts={}, forgotten=1, taken_over=0, refused=0, drained_in=1.0, promised=5.0, faults=one,
            skipped={"b": "there is none"}, must_be_none={"lost": seed}, violations=[],
        )
        for seed, status in [(1, "ok"), (2, "failed")]
    ]  # fmt: skip
    text = "\n".join(markdown(reports))
    assert "| a | 2 | 0 | 0.50 | 0.50 | – | 0 | 0 | 0 |" in text
    assert "| lost | 3 |" in text
    assert "failed: 2" in text
    assert "Not done: b, since there is none." in text


def test_a_ledger_that_was_cut_short_by_a_kill_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    assert ledger.read(path, 0.0).begins == []
    path.write_text('["accepted",1.0,"h:1",true,0,["a","b"]]\n["began",2.0,"h:2",true,1,["a"]]\n["ended",3.0,"h:2"')
    book = ledger.read(path, 100.0)
    assert book.accepted == {"a": 101.0, "b": 101.0}
    assert book.begins == [102.0]
    assert [(entry.event, entry.at) for entry in book.entries["a"]] == [("began", 102.0)]
