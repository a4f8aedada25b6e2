"""The hot statements do no more work than they are asked for, whatever the planner believes about the tables.

What they touch is counted, by the server's own counters: index entries, and rows of sequential scans. Workers sleep
meanwhile, so that what sends them hints is looked at as well. The functions are
looked at as they are, as copies without the settings that pin their plans, and as copies with a condition or an order
that an index has: each copy has to go wrong in some scenario, or the care, or the scenarios, are for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import pytest
from store.plans.calls import CALLS, PREFIXES, Call, Kind
from store.plans.tables import ASKED, STATEMENTS, Tables, believe, filler, prepare

from piecework.store.statements import sql_files
from support.databases import Server

FENCE, INDEXABLE_FENCE = "coalesce(j.worker_id = p_worker, false)", "j.worker_id = p_worker"
ORDER, INDEXABLE_ORDER = "ORDER BY uuid_send(j.id)", "ORDER BY j.id"

pytestmark = pytest.mark.postgres(18, 15)


@dataclass
class Work:
    """What one call did to the three tables of jobs, and to that of the sleepers."""

    sequential_scans: int
    index_scans: int
    touched: int
    """Index entries, and rows of sequential scans."""


def counters(t: Tables) -> Work:
    row = t.session.execute(
        """
        SELECT coalesce(sum(pg_stat_get_xact_numscans(oid)) FILTER (WHERE relkind = 'r'), 0)::integer,
               coalesce(sum(pg_stat_get_xact_numscans(oid)) FILTER (WHERE relkind = 'i'), 0)::integer,
               coalesce(sum(pg_stat_get_xact_tuples_returned(oid)), 0)::integer
        FROM pg_class WHERE relnamespace = 'piecework'::regnamespace AND relkind IN ('r', 'i')
          AND relname ~ '^(jobs|finished_jobs|attempts|idle_workers|concurrency_keys)'
        """
    ).fetchone()
    assert row is not None
    return Work(*row)


def measure(t: Tables, call: Call, kind: Kind) -> Work:
    """Count what a call does, and undo it."""
    with t.session.transaction(force_rollback=True):
        before = counters(t)
        t.session.execute(call.statement(kind), call.params(t))
        after = counters(t)
    return Work(
        after.sequential_scans - before.sequential_scans,
        after.index_scans - before.index_scans,
        after.touched - before.touched,
    )


@contextmanager
def tables(server: Server, *, with_keys: bool = False) -> Iterator[Tables]:
    """A fresh database with all kinds of functions, whose statistics nobody makes but the test."""
    with server.database(migrated=True) as dsn, filler(dsn) as sql:
        names = re.compile(rf"\b({'|'.join(file.name for file in sql_files('functions'))})\(")
        for file in sql_files("functions"):
            for prefix, text in (
                ("bare_", re.sub(r"^SET (enable_\w+|plan_cache_mode) = .*\n", "", file.text, flags=re.MULTILINE)),
                ("indexable_", file.text.replace(FENCE, INDEXABLE_FENCE).replace(ORDER, INDEXABLE_ORDER)),
            ):
                sql.execute(STATEMENTS.render(names.sub(rf"{prefix}\1(", text)))
        prepare(sql)
        with psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.RawCursor) as session:
            yield Tables(sql, session, with_keys)


def calls(kind: Kind, *, keyed: bool = False) -> list[Call]:
    return [
        call for call in CALLS
        if (keyed or not call.keyed) and (kind != "indexable" or call.statement_name in ("settle", "rescue"))
    ]  # fmt: skip


def warm(t: Tables, kind: Kind) -> None:
    """Call as often as it takes for a plan to be made once and for all."""
    for call in calls(kind, keyed=t.with_keys):
        for _ in range(6 if kind == "bare" else 1):
            with t.session.transaction(force_rollback=True):
                t.session.execute(call.statement(kind), call.params(t))


def warm_all(t: Tables) -> None:
    for kind in PREFIXES:
        warm(t, kind)


def never_analyzed(t: Tables) -> None:
    warm_all(t)
    t.fill(1000)


def vacuumed_while_empty(t: Tables) -> None:
    t.sql.execute("VACUUM ANALYZE jobs, finished_jobs, attempts, concurrency_keys")
    warm_all(t)
    t.fill(1000)


def analyzed_in_mid_run(t: Tables) -> None:
    warm_all(t)
    t.fill(20)
    t.sql.execute("ANALYZE jobs, finished_jobs, attempts, concurrency_keys")
    warm_all(t)
    t.fill(1000)


def believed_empty(t: Tables) -> None:
    t.fill(1000)
    believe(t.sql, 0)
    warm_all(t)


def believed_huge(t: Tables) -> None:
    t.fill(1000)
    believe(t.sql, 10_000_000)
    warm_all(t)


SCENARIOS = [never_analyzed, vacuumed_while_empty, analyzed_in_mid_run, believed_empty, believed_huge]


def flat(work: Work, share: int) -> bool:
    return work.sequential_scans == 0 and work.touched <= share * ASKED and work.index_scans <= 4 * share * ASKED


def excesses(t: Tables, kind: Kind) -> dict[str, Work]:
    """The calls that did more than their share."""
    t.some = slice(-ASKED, None)
    measured = {call: measure(t, call, kind) for call in calls(kind, keyed=t.with_keys)}
    t.some = slice(0, ASKED)
    return {call.name: work for call, work in measured.items() if not flat(work, call.share)}


Scenario = Callable[[Tables], None]
Excesses = dict[Kind, dict[str, Work]]


@pytest.fixture(scope="module")
def played() -> dict[tuple[int, Scenario], Excesses]:
    """What came out of the scenarios that were played."""
    return {}


def play(server: Server, scenario: Scenario, played: dict[tuple[int, Scenario], Excesses]) -> Excesses:
    """The calls of each kind that did more than their share in a scenario."""
    key = server.major, scenario
    if key not in played:
        with tables(server) as t:
            scenario(t)
            played[key] = {kind: excesses(t, kind) for kind in PREFIXES}
    return played[key]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_no_call_does_more_than_its_share_where_jobs_have_concurrency_keys(server: Server, scenario: Scenario) -> None:
    with tables(server, with_keys=True) as t:
        scenario(t)
        assert excesses(t, "own") == {}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_no_call_does_more_than_its_share(
    server: Server, scenario: Scenario, played: dict[tuple[int, Scenario], Excesses]
) -> None:
    assert play(server, scenario, played)["own"] == {}


def test_each_call_does_more_than_its_share_somewhere_without_its_settings(
    server: Server, played: dict[tuple[int, Scenario], Excesses]
) -> None:
    broken = {name for scenario in SCENARIOS for name in play(server, scenario, played)["bare"]}
    assert sorted(broken) == sorted(call.name for call in calls("bare"))


@pytest.mark.postgres(18)  # between two indexes of equal cost PostgreSQL 15 happens to take the right one
def test_settle_and_rescue_do_more_than_their_share_with_a_fence_or_an_order_that_an_index_has(
    server: Server, played: dict[tuple[int, Scenario], Excesses]
) -> None:
    broken = {name for scenario in SCENARIOS for name in play(server, scenario, played)["indexable"]}
    assert sorted(broken) == sorted(call.name for call in calls("indexable"))


def test_no_call_does_more_than_its_share_of_a_large_table(server: Server) -> None:
    """20,000 jobs due, 20,000 of a type that nobody knows, 40,000 of later, 15,000 running."""
    with tables(server, with_keys=True) as t:
        warm(t, "own")
        t.fill(20_000)
        assert excesses(t, "own") == {}, "with plans made while it was empty"
        for rows in (None, 0, 10_000_000):
            if rows is None:
                t.sql.execute("ANALYZE jobs, finished_jobs, attempts, concurrency_keys")
            else:
                believe(t.sql, rows)
            warm(t, "own")
            assert excesses(t, "own") == {}, f"believed to have {rows} rows on each page (None: true statistics)"


def test_no_call_needs_a_plan_that_its_settings_forbid(server: Server) -> None:
    """Such a plan is used all the same, at a cost so high that PostgreSQL 15 to 17 compile it with JIT each time."""
    with tables(server) as t:
        vacuumed_while_empty(t)
        plans: list[str] = []
        t.session.execute("LOAD 'auto_explain'")
        t.session.execute("SET auto_explain.log_nested_statements = on")
        t.session.execute("SET client_min_messages = log")
        t.session.execute("SET auto_explain.log_min_duration = 0")
        t.session.add_notice_handler(lambda notice: plans.append(str(notice.message_primary)))
        for call in CALLS:
            measure(t, call, "own")
    own = [plan for plan in plans if "pg_stat_get_xact" not in plan]
    assert len(own) > len(CALLS)
    assert [plan for plan in own if "Disabled" in plan or re.search(r"cost=\d{9}", plan)] == []
