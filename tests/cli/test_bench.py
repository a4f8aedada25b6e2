"""`piecework bench`: small runs against the tests' server, and what it makes of figures."""

from __future__ import annotations

import json
import os
import signal
from array import array
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from cli.command_line import CommandLine, Process, until
from click.testing import CliRunner

from piecework.cli import main
from piecework.cli.bench import meter
from piecework.cli.bench.meter import Meter
from piecework.cli.bench.plan import NAMES, SHAPES, Plan
from piecework.cli.bench.server_cpu import ServerCpu
from piecework.cli.bench.shapes import percentiles
from piecework.cli.bench.verdicts import Load, find_limit, find_problems
from piecework.store.measuring import Gauge, History
from piecework.store.statements import Statements
from support.databases import Server as Postgres

JOBS = 300
A_RUN = 220.0
"""Seconds; seven shapes start a dozen processes, one after the other."""


def schemas(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as conn:
        rows = conn.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'piecework\\_bench%'").fetchall()
    return [row[0] for row in rows]


def sessions(dsn: str) -> int:
    """Connections to the test's database besides the one that asks."""
    with psycopg.connect(dsn) as conn:
        row = conn.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
    assert row is not None
    return int(row[0])


def nothing_is_left(bench: CommandLine) -> None:
    assert schemas(bench.dsn) == []
    assert list((bench.folder / "tmp").iterdir()) == []
    until(lambda: sessions(bench.dsn) == 0, "all connections are closed")


def start(piecework: CommandLine, *options: str) -> Process:
    return piecework.start("bench", "--jobs", str(JOBS), "--seconds", "3", *options)


@pytest.mark.timeout(240)
def test_every_shape_gives_its_figures_and_each_job_ran_once(on_empty_database: CommandLine) -> None:
    bench = start(on_empty_database, "--processes", "2", "--payload", "10", "--json")
    assert bench.popen.wait(A_RUN) == 0, bench.said
    report = json.loads(bench.out.read_text())
    assert report["status"] == "ok"
    assert (report["processes"], report["payload_bytes"]) == (2, 10)
    assert report["round_trip_ms"] > 0
    shapes: dict[str, dict[str, Any]] = {shape["name"]: shape for shape in report["shapes"]}
    assert tuple(shapes) == NAMES
    for name, shape in shapes.items():
        assert shape["problems"] == [], name
        assert shape["complete"], name
        assert 0 < shape["jobs"] <= JOBS, name
        assert shape["jobs_per_s"] > 0, name
        assert shape["wal_bytes_per_job"] > 100, name
        assert (shape["limit"] is None) == (name in ("paced", "latency")), name
        assert (shape["call_ms"] is None) == (name not in ("spawn", "spawners")), name
        assert (shape["pickup_ms"] is None) == (name not in ("steady", "paced", "latency")), name
    assert shapes["bulk"]["jobs"] == shapes["drain"]["jobs"] == JOBS
    assert shapes["steady"]["pickup_ms"]["p50"] > 0
    assert shapes["steady"]["pickup_ms"]["p99_9"] is None  # of so few there is none
    assert shapes["latency"]["pickup_ms"]["max"] < 60_000
    assert bench.err.read_text().startswith("Works in a schema of its own, piecework_bench_")
    nothing_is_left(on_empty_database)


def test_the_report_names_the_schema_first_and_the_limit_in_the_end(piecework: CommandLine) -> None:
    bench = start(piecework, "--shape", "drain", "--shape", "latency")
    assert bench.popen.wait(A_RUN) == 0, bench.said
    lines = bench.out.read_text().splitlines()
    assert lines[0].startswith("Works in a schema of its own, piecework_bench_")
    assert any(line.startswith("drain") and f" {JOBS} " in line for line in lines)
    assert any(line.split()[:2] == ["latency", "pickup"] for line in lines)
    assert "Where the limit was:" in lines
    assert "every job that ended ran once" in lines[-1]
    assert "\x1b" not in bench.said  # no progress where nobody looks
    assert bench.err.read_text() == ""
    assert piecework.reads("status")["jobs"] == []  # the user's own schema


def test_an_interrupted_bench_leaves_nothing_behind_however_impatient_one_is(piecework: CommandLine) -> None:
    bench = piecework.start("bench", "--shape", "steady", "--jobs", "10000000", "--seconds", "100")

    def works() -> bool:
        """A worker of it works: the bench is not about to end."""
        with psycopg.connect(piecework.dsn, autocommit=True) as conn:
            for schema in schemas(piecework.dsn):
                try:
                    row = conn.execute(f'SELECT count(*) FROM "{schema}".finished_jobs'.encode()).fetchone()
                except psycopg.errors.UndefinedTable:
                    continue
                return row is not None and row[0] > 0
        return False

    until(works, "it runs jobs")
    for _ in range(3):
        bench.signal(signal.SIGINT)
    assert bench.ends() == 130
    assert bench.said.count("Interrupted") == 1
    nothing_is_left(piecework)


def test_a_role_that_may_not_create_a_schema_is_told_what_it_needs(
    server: Postgres, on_empty_database: CommandLine
) -> None:
    dsn = on_empty_database.dsn
    role = f"bench_{os.getpid()}"
    server.admin.execute(f"CREATE ROLE {role} LOGIN".encode())
    try:
        other = dsn.replace("user=postgres", f"user={role}")
        assert other != dsn
        code, said = on_empty_database.run("bench", "--dsn", other)
        assert code == 3
        assert f"the role '{role}' may not create a schema" in said
        assert "GRANT CREATE ON DATABASE" in said
        assert "Works in" not in said
    finally:
        server.admin.execute(f"DROP ROLE {role}".encode())
    nothing_is_left(on_empty_database)


def test_a_worker_that_cannot_start_ends_the_bench_with_its_log(piecework: CommandLine) -> None:
    # Python imports this before everything else, when sys.argv is not there yet.
    (piecework.folder / "sitecustomize.py").write_text(
        "import sys\nif 'piecework.cli.bench.work:jobs' in sys.orig_argv: sys.exit('no worker today')\n"
    )
    piecework.environment["PYTHONPATH"] = os.pathsep.join(
        [str(piecework.folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    bench = start(piecework, "--shape", "steady")
    assert bench.ends() == 1
    assert "ended by itself" in bench.said
    assert "no worker today" in bench.said
    nothing_is_left(piecework)


def test_a_check_that_fails_is_said_and_is_the_exit_code(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    true_history = Gauge.history

    async def one_is_lost(gauge: Gauge) -> History:
        history = await true_history(gauge)
        return msgspec.structs.replace(history, live=history.live - 1)

    monkeypatch.setattr(Gauge, "history", one_is_lost)
    options = ["bench", "--dsn", empty_dsn, "--shape", "bulk", "--jobs", "50"]
    plain = CliRunner().invoke(main.command, options)
    assert plain.exit_code == 1
    assert "FAILED: bulk: 50 jobs were spawned, 49 are there" in plain.stdout
    assert "none was lost" not in plain.stdout
    as_json = CliRunner().invoke(main.command, [*options, "--json"])
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["status"] == "failed"
    assert schemas(empty_dsn) == []


def test_an_unknown_shape_is_a_wrong_call(piecework: CommandLine) -> None:
    code, said = piecework.run("bench", "--shape", "square")
    assert code == 2
    assert "'bulk', 'spawn', 'spawners'" in said


# The check -----------------------------------------------------------------------------------------------------------


def history(**changed: int) -> History:
    whole = History(
        live=0, finished=100, different=100, completed=100, seconds=1.0, seconds_since_created=1.0,
        seconds_together=1.0, finished_together=100, waits=None,
    )  # fmt: skip
    return msgspec.structs.replace(whole, **changed)


def test_a_history_with_each_job_once_has_no_problem() -> None:
    assert find_problems(100, 100, history()) == []
    assert find_problems(120, 100, history(live=20)) == []  # the time was over


@pytest.mark.parametrize(
    ("spawned", "ran", "found", "problem"),
    [
        (101, 100, history(), "101 jobs were spawned, 100 are there"),
        (99, 100, history(), "99 jobs were spawned, 100 are there"),
        (100, 100, history(different=99), "1 rows of the history are of a job that has another"),
        (100, 100, history(completed=97), "3 jobs ended otherwise than in completion"),
        (100, 101, history(), "100 jobs are in the history, 101 times one ran"),
        (100, 99, history(), "100 jobs are in the history, 99 times one ran"),
    ],
)
def test_what_is_not_once_is_a_problem(spawned: int, ran: int, found: History, problem: str) -> None:
    assert find_problems(spawned, ran, found) == [problem]


# The limit -----------------------------------------------------------------------------------------------------------


def load(**changed: Any) -> Load:
    """Nobody is busy: 10 s, on 8 cores."""
    quiet: dict[str, Any] = {
        "seconds": 10.0, "worker": 0.3, "clients": 0.3, "server": 0.4, "busy": 0.8, "cores": 8, "commits": 1000,
        "callers": 2, "commit": 0.001, "round_trip": 0.0001,
    }  # fmt: skip
    return Load(**quiet | changed)


@pytest.mark.parametrize(
    ("given", "kind", "text", "advice"),
    [
        (load(worker=0.97, clients=0.97), "client CPU", "a worker process used 97% of a core", "--processes"),
        (load(spawner=0.96, worker=0.9, clients=1.9), "client CPU", "that spawns used 96%", "several processes"),
        (load(worker=0.9, clients=0.9, server=1.05, cores=2), "server CPU", "1.1 by the server", "cores of its own"),
        (load(worker=0.95, clients=1.2, server=0.7, cores=2), "client CPU", "1.2 by the clients", "another machine"),
        (load(busy=7.9, server=None), "other CPU", "7.6 by others", "when the machine is quiet"),
        (load(commits=15_000), "commits", "75% of the time went by in commits, each of 1.00 ms", "disk"),
        (load(commits=15_000, commit=0.0001, round_trip=0.001), "round trips", "each of 1.00 ms", "nearer"),
        (load(commits=60_000, commit=0.01), "commits", "about 100% of the time", "disk"),
        (load(), "server or network", "0.4 cores", "--processes"),
        (load(server=None, busy=None), "server or network", "not known here", "--processes"),
        (load(callers=1, worker=0.0, spawner=0.5, clients=0.5), "client CPU", "one caller", "spawn_all"),
        (load(callers=1, commits=6_000, worker=0.0, spawner=0.35), "commits", "60% of the time", "spawn_all"),
        (load(seconds=0.0, commits=0), "server or network", "", ""),
    ],
)
def test_the_limit_is_where_the_figures_say(given: Load, kind: str, text: str, advice: str) -> None:
    limit = find_limit(given)
    assert limit.kind == kind
    assert text in limit.text
    assert advice in limit.advice


# What the figures come from ------------------------------------------------------------------------------------------


def test_percentiles_are_waits_that_were_there() -> None:
    found = percentiles([each / 1000 for each in range(1000, 0, -1)])
    assert found is not None
    assert [round(each or 0.0) for each in found.values()] == [500, 900, 990, 999, 1000]
    assert percentiles([]) is None
    few = percentiles([0.001] * 99)
    assert few is not None
    assert (few["p99"], few["p99_9"], few["max"]) == (None, None, 1.0)


def test_a_meter_can_be_read_by_others_and_times_nothing_that_warmed_up(tmp_path: Path) -> None:
    assert meter.read(tmp_path, 7).count == 0
    assert meter.read(tmp_path, 7).rate == meter.read(tmp_path, 7).share == 0.0
    assert meter.waits(tmp_path, 7) == []
    own = Meter(tmp_path, 7)
    own.warm_up(10)
    own.stamp()
    for _ in range(100):
        own.hit()
    own.hit(900)
    own.keep(array("d", [0.5, 0.25]))
    own.keep(array("d", [1.0]))
    own.stamp()
    reading = meter.read(tmp_path, 7)
    assert (reading.count, reading.before) == (1010, 10)
    assert reading.rate == pytest.approx(1000 / reading.seconds)
    assert reading.cpu >= 0
    assert meter.waits(tmp_path, 7) == [0.5, 0.25, 1.0]


def test_the_fixed_rate_is_half_of_what_was_worked_off() -> None:
    plan = Plan(jobs=10_000, seconds=5, processes=1, concurrency=10, payload=0, shapes=NAMES)
    paced = next(shape for shape in SHAPES if shape.name == "paced")
    assert plan.task(paced, 3000.0).rate == 1500.0
    assert plan.task(paced, 3000.0).count == 7501
    assert plan.task(paced, None).rate == 500.0


@pytest.mark.postgres(18, 15)
async def test_the_server_is_found_by_its_processes_and_not_taken_for_another(empty_dsn: str) -> None:
    async with Gauge.of(empty_dsn, Statements("piecework_bench_x")) as gauge:
        server = await gauge.server()
        found = ServerCpu.of(server)
        assert found is not None
        assert (found.seconds() or 0) > 0
        assert ServerCpu.of(msgspec.structs.replace(server, since=server.since - 3600)) is None
        assert ServerCpu.of(msgspec.structs.replace(server, pid=os.getpid())) is None


@pytest.mark.postgres(18, 15)
async def test_statements_are_counted_where_the_extension_is_and_only_those_of_the_schema(empty_dsn: str) -> None:
    async with Gauge.of(empty_dsn, Statements("piecework_bench_x")) as gauge:
        counters = await gauge.counters()
        assert counters.statements is None
        assert (counters.wal_bytes or 0) > 0
        with psycopg.connect(empty_dsn, autocommit=True) as conn:  # what the extension offers, without the extension
            conn.execute(
                "CREATE VIEW pg_stat_statements AS "
                "SELECT d.oid AS dbid, s.* FROM pg_database d, (VALUES "
                "(true, 5, 'SELECT piecework_bench_x.claim_1($1)'), (true, 2, 'SELECT * FROM piecework_bench_x.jobs'), "
                "(false, 100, 'UPDATE piecework_bench_x.jobs'), (true, 100, 'SELECT 1')) AS s (toplevel, calls, query) "
                "WHERE d.datname = current_database()"
            )
        assert (await gauge.counters()).statements == 7
