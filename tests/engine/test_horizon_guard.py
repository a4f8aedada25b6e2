"""The horizon guard on a real server: it names who keeps dead rows, and is silent where nobody does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import pytest
from engine.helpers import SOON, until, value
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from piecework import Jobs, WorkerSettings
from piecework.engine.horizon_guard import HorizonGuard
from piecework.model.cursors import SlowLane
from piecework.model.horizon import Limits
from piecework.store.liveness import Counters, Pulse
from support.horizon import (
    SECRET,
    a_prepared_transaction,
    a_session,
    a_standby,
    make_dead_rows,
    until_pinned,
)  # fmt: skip
from support.private_postgres import PrivatePostgres
from support.scene import Scene

ENOUGH = 6_000
GROWTH = 1_000
AT_ONCE = Limits(age=0.0, growth=GROWTH)
SERVER = {"autovacuum": "off", "max_prepared_transactions": "5", "wal_level": "logical"}

Start = Callable[..., PrivatePostgres]


class Guarded:
    """A guard that may blame at once, and what it said."""

    def __init__(self, scene: Scene, caplog: pytest.LogCaptureFixture, pulse: Pulse | None = None) -> None:
        self.scene = scene
        self.counters = Counters()
        self.guard = HorizonGuard(pulse or scene.pulse, self.counters, AT_ONCE)
        self._caplog = caplog
        caplog.set_level(logging.INFO, logger="piecework.worker")

    def says(self) -> list[logging.LogRecord]:
        """Look, and return what that led to saying."""
        self._caplog.clear()
        self.guard.look()
        return list(self._caplog.records)

    async def says_after_more_dead_rows(self) -> list[logging.LogRecord]:
        assert self.says() == []
        await make_dead_rows(self.scene, GROWTH + 500)
        return self.says()


@asynccontextmanager
async def guarded(server: PrivatePostgres, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Guarded]:
    async with Scene.open(server.dsn, migrate=True) as scene:
        await make_dead_rows(scene, ENOUGH)
        yield Guarded(scene, caplog)


async def test_each_kind_of_pin_is_named_while_it_lasts_and_again_when_it_is_gone(
    private_postgres: Start, caplog: pytest.LogCaptureFixture
) -> None:
    server = private_postgres(**SERVER)
    async with guarded(server, caplog) as guard:

        async def named(until_pinned_by: str = "SELECT 1") -> logging.LogRecord:
            await until_pinned(guard.scene, until_pinned_by)
            [record] = await guard.says_after_more_dead_rows()
            assert record.levelno == logging.WARNING
            assert "keeps vacuum from removing dead rows: jobs has " in record.getMessage()
            assert record.dead_rows == guard.counters.horizon.dead  # type: ignore[attr-defined, union-attr]
            assert guard.says() == [], "once in ten minutes"
            return record

        def gone(name: str) -> None:
            [record] = guard.says()
            assert (record.levelno, record.pin_name) == (logging.INFO, name)  # type: ignore[attr-defined]
            assert record.getMessage().endswith("keeps dead rows no longer")
            assert guard.says() == []

        with a_session(server.dsn) as pid:
            record = await named()
            assert (record.pin_kind, record.pin_pid, record.pin_name) == ("session", pid, "forgetful")  # type: ignore[attr-defined]
            assert (record.pin_state, record.pin_query) == ("idle in transaction", SECRET)  # type: ignore[attr-defined]
            said = record.getMessage()
            assert f"session pid {pid} 'forgetful' of role 'postgres' (idle in transaction) for " in said
            assert SECRET in said
            assert f"To do: end that session: SELECT pg_terminate_backend({pid});" in said
        gone("forgetful")

        with a_prepared_transaction(server.dsn):
            record = await named()
            assert record.pin_kind == "prepared transaction"  # type: ignore[attr-defined]
            assert "ROLLBACK PREPARED 'it''s left'" in record.getMessage()
        gone("it's left")

        with a_standby(server.dsn) as pid:
            record = await named("SELECT min(backend_xmin::text) FROM pg_stat_replication")
            assert (record.pin_kind, record.pin_pid) == ("standby", pid)  # type: ignore[attr-defined]
            assert "hot_standby_feedback = off" in record.getMessage()
        await until(lambda: guard.scene.value("SELECT count(*) FROM pg_stat_replication") == 0)
        gone("replica")

        guard.scene.sql.execute("SELECT pg_create_physical_replication_slot('left_behind')")
        slot = "SELECT xmin::text FROM pg_replication_slots"
        with a_standby(server.dsn, "left_behind"):
            await until_pinned(guard.scene, slot)
        await until(lambda: guard.scene.value("SELECT NOT active FROM pg_replication_slots"))
        record = await named(slot)
        assert (record.pin_kind, record.pin_state) == ("slot", "inactive")  # type: ignore[attr-defined]
        assert "drop the slot: SELECT pg_drop_replication_slot('left_behind')" in record.getMessage()
        guard.scene.sql.execute("SELECT pg_drop_replication_slot('left_behind')")
        gone("left_behind")


@pytest.mark.parametrize("major", [18, 15])
async def test_it_is_silent_about_what_keeps_no_dead_row_of_a_queue(
    private_postgres: Start, caplog: pytest.LogCaptureFixture, major: int
) -> None:
    server = private_postgres(major, **SERVER)
    async with guarded(server, caplog) as guard:
        guard.scene.sql.execute("SELECT pg_create_logical_replication_slot('logical', 'test_decoding')")
        waiting = guard.scene.session()
        waiting.execute("SELECT 1")  # in a transaction, and without a snapshot
        moving = guard.scene.session(default_transaction_isolation="repeatable\\ read")
        for _ in range(3):
            waiting.execute("SELECT count(*) FROM jobs")
            moving.rollback()
            moving.execute("SELECT count(*) FROM jobs")  # a snapshot, and another one at the next look
            assert guard.says() == []
            await make_dead_rows(guard.scene, GROWTH + 500)
        assert guard.counters.horizon is not None
        assert guard.counters.horizon.culprit is None
        # Few dead rows: nobody is asked who holds on to them.
        moving.rollback()
        waiting.rollback()
        guard.scene.sql.execute("VACUUM jobs")
        with a_session(server.dsn):
            assert guard.says() == []
            assert guard.counters.horizon.suspects == []


@contextmanager
def a_role(scene: Scene, dsn: str) -> Iterator[Pulse]:
    """The heartbeat of a role that has the rights to work, and no more."""
    scene.sql.execute("CREATE ROLE works LOGIN")
    scene.sql.execute("GRANT USAGE ON SCHEMA piecework TO works; GRANT ALL ON ALL TABLES IN SCHEMA piecework TO works")
    pulse = Pulse(dsn.replace("postgres@", "works@"), scene.statements)
    try:
        yield pulse
    finally:
        pulse.close()


@pytest.mark.parametrize("major", [18, 15])
async def test_a_role_that_may_not_see_what_others_do_names_the_session_and_says_what_it_lacks(
    private_postgres: Start, caplog: pytest.LogCaptureFixture, major: int
) -> None:
    server = private_postgres(major, **SERVER)
    async with guarded(server, caplog) as whole, whole.scene.store_at(server.dsn):
        with a_role(whole.scene, server.dsn) as pulse, a_session(server.dsn) as pid:
            guard = Guarded(whole.scene, caplog, pulse)
            [record] = await guard.says_after_more_dead_rows()
        assert (record.pin_pid, record.pin_query) == (pid, None)  # type: ignore[attr-defined]
        assert f"pid {pid} 'forgetful'" in record.getMessage()
        assert "hidden from this role (grant it pg_read_all_stats)" in record.getMessage()
        assert SECRET not in record.getMessage()


async def test_a_view_that_the_role_may_not_read_costs_one_line_and_what_it_shows(
    private_postgres: Start, caplog: pytest.LogCaptureFixture
) -> None:
    server = private_postgres(**SERVER)
    async with guarded(server, caplog) as whole:
        with a_role(whole.scene, server.dsn) as pulse, a_session(server.dsn):
            guard = Guarded(whole.scene, caplog, pulse)
            whole.scene.sql.execute("REVOKE SELECT ON pg_stat_replication FROM PUBLIC")
            [record] = guard.says()
            assert record.levelno == logging.INFO
            assert "who keeps dead rows from being removed cannot be seen: " in record.getMessage()
            assert "pg_stat_replication" in record.getMessage()
            dead = await make_dead_rows(whole.scene, GROWTH + 500)
            assert guard.says() == []
            assert guard.counters.horizon is not None
            assert guard.counters.horizon.dead == dead
            whole.scene.sql.execute("REVOKE SELECT ON pg_stat_user_tables FROM PUBLIC")
            [record] = guard.says()
            assert (record.levelno, "pg_stat_user_tables" in record.getMessage()) == (logging.INFO, True)
            assert guard.says() == []


async def test_another_worker_goes_on_from_what_the_last_one_knew(
    private_postgres: Start, caplog: pytest.LogCaptureFixture
) -> None:
    server = private_postgres(**SERVER)
    async with guarded(server, caplog) as first:
        with ExitStack() as pinned:
            pid = pinned.enter_context(a_session(server.dsn))
            assert first.says() == []
            worker = first.scene.worker()
            first.counters.claims.add(0.25, 10)
            first.scene.pulse.beat(worker, draining=False, job_types=[], counters=first.counters)
            await make_dead_rows(first.scene, GROWTH + 500)
            second = Guarded(first.scene, caplog)
            [record] = second.says()
            assert record.pin_pid == pid  # type: ignore[attr-defined]
            other = first.scene.worker()
            first.scene.pulse.beat(other, draining=False, job_types=[], counters=second.counters)
            assert first.says() == [], "it was named a moment ago"
        sample = first.scene.pulse.sample_horizon()
        assert (sample.claims.calls, sample.claims.jobs, sample.claims.seconds) == (1, 10, 0.25)
        assert sample.watch == second.counters.horizon


async def test_a_worker_looks_when_the_duty_is_due_and_tells_of_its_claims(jobs: Jobs, dsn: str) -> None:
    @jobs.job
    async def nothing() -> None: ...

    known = "SELECT counters FROM piecework.workers"
    value(dsn, "UPDATE piecework.duties SET next_at = clock_timestamp() WHERE name = 'horizon' RETURNING 1")
    async with jobs._make_worker(WorkerSettings()) as worker:
        await (await jobs.spawn_all([nothing.spec() for _ in range(20)])).results(timeout=SOON)
        worker._heartbeat.beat_now()
        await until(lambda: (value(dsn, known) or {}).get("horizon"))  # type: ignore[attr-defined]
        counters: dict[str, dict[str, float]] = value(dsn, known)  # type: ignore[assignment]
    assert counters["claims"]["jobs"] == 20
    assert counters["claims"]["calls"] >= 1
    assert 0 < counters["claims"]["seconds"] / counters["claims"]["calls"] <= counters["claims"]["worst"]
    assert counters["horizon"]["history"][0][1] == counters["horizon"]["dead"]  # type: ignore[index]


async def test_a_duty_where_all_is_well_is_one_statement_besides_its_taking(private_postgres: Start) -> None:
    server = private_postgres(log_statement="all", autovacuum="off")
    async with Scene.open(server.dsn, migrate=True) as scene:
        worker = scene.worker()
        scene.pulse.do_duties(worker)
        scene.sql.execute("UPDATE duties SET next_at = clock_timestamp() WHERE name = 'horizon'")
        before = server.log.read_text()
        guard = HorizonGuard(scene.pulse, Counters())
        assert scene.pulse.do_duties(worker, guard.look) == ["horizon"]
        [said] = [server.log.read_text()[len(before) :]]
    made = [line for line in said.splitlines() if "] piecework: LOG:  " in line]
    assert ["Take one housekeeping" in line or "How many dead rows" in line for line in made] == [True] * 3, said


async def test_what_is_known_is_dropped_when_others_have_been_looking_for_long(
    private_postgres: Start, caplog: pytest.LogCaptureFixture
) -> None:
    server = private_postgres(**SERVER)
    async with Scene.open(server.dsn, migrate=True) as scene:
        guard = Guarded(scene, caplog)
        guard.says()
        guard.guard.forget_if_old()
        assert guard.counters.horizon is not None
        guard.guard._looked -= 301
        guard.guard.forget_if_old()
        assert guard.counters.horizon is None


async def test_the_gauges_show_dead_rows_and_for_how_long_who_is_to_blame_has_kept_them(
    private_postgres: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    server = private_postgres(**SERVER)

    def shown() -> dict[tuple[str, object], float]:
        data = reader.get_metrics_data()
        assert data is not None
        return {
            (metric.name, (point.attributes or {}).get("table") or (point.attributes or {}).get("name")): point.value  # type: ignore[union-attr]
            for metric in data.resource_metrics[0].scope_metrics[0].metrics
            for point in metric.data.data_points
        }  # fmt: skip

    async with guarded(server, caplog) as guard:
        guard.says()
        assert shown()["piecework.dead_rows", "jobs"] == ENOUGH
        assert shown()["piecework.horizon.age", ""] == 0.0
        with a_session(server.dsn):
            await guard.says_after_more_dead_rows()
            assert shown()["piecework.horizon.age", "forgetful"] > 0
            assert ("piecework.horizon.age", "") not in shown()
        guard.says()
        assert shown()["piecework.horizon.age", ""] == 0.0
    provider.shutdown()


async def test_the_forecast_is_in_the_line(private_postgres: Start, caplog: pytest.LogCaptureFixture) -> None:
    server = private_postgres(**SERVER)
    async with guarded(server, caplog) as guard:
        worker = guard.scene.worker()
        with a_session(server.dsn):
            guard.says()
            for _ in range(20):
                guard.counters.claims.add(0.01, 100)
            guard.scene.pulse.beat(worker, draining=False, job_types=[], counters=guard.counters)
            await make_dead_rows(guard.scene, GROWTH + 500)
            await asyncio.sleep(0.05)
            [record] = guard.says()
    assert "come every second; a claim takes 10.0 ms now, twice as long in " in record.getMessage()
    assert ", ten times as long in " in record.getMessage()


async def test_lanes_in_which_claims_start_at_a_cursor_are_in_the_line_and_have_a_gauge(
    private_postgres: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    server = private_postgres(**SERVER)
    async with guarded(server, caplog) as guard:
        worker = guard.scene.worker()
        with a_session(server.dsn):
            guard.says()
            guard.counters.claims.add(0.01, 100)
            guard.counters.claims.slow_lanes = [SlowLane("mails", "send", 3, 1_000_000, 0.14)]
            guard.scene.pulse.beat(worker, draining=False, job_types=[], counters=guard.counters)
            await make_dead_rows(guard.scene, GROWTH + 500)
            await asyncio.sleep(0.05)
            [record] = guard.says()
    assert "a claim takes 10.0 ms now; claims start at a cursor: send in queue mails. To do: " in record.getMessage()
    data = reader.get_metrics_data()
    assert data is not None
    [passed] = [
        point
        for metric in data.resource_metrics[0].scope_metrics[0].metrics if metric.name == "piecework.lane.passed"
        for point in metric.data.data_points
    ]  # fmt: skip
    assert passed.value == 1_000_000  # type: ignore[union-attr]
    assert passed.attributes == {"queue": "mails", "job_type": "send", "priority": "3"}
    provider.shutdown()
