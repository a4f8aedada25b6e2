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
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

import msgspec
import psycopg
import pytest

from piecework.base.ids import new_id
from piecework.store.statements import Statements, sql_files
from support.databases import Server

ASKED = 50
FENCE, INDEXABLE_FENCE = "coalesce(j.worker_id = p_worker, false)", "j.worker_id = p_worker"
ORDER, INDEXABLE_ORDER = "ORDER BY uuid_send(j.id)", "ORDER BY j.id"

Kind = Literal["own", "bare", "indexable"]
PREFIXES: dict[Kind, str] = {"own": "", "bare": "bare_", "indexable": "indexable_"}

pytestmark = pytest.mark.postgres(18, 15)

STATEMENTS = Statements("piecework")
WORKERS = {name: str(new_id()) for name in ("mine", "keyed", "dead", "dead with keys", "other", "gone")}


@dataclass
class Work:
    """What one call did to the three tables of jobs, and to that of the sleepers."""

    sequential_scans: int
    index_scans: int
    touched: int
    """Index entries, and rows of sequential scans."""


@dataclass
class Tables:
    """One database, and two sessions: `sql` changes the tables, `session` is the one whose plans are looked at."""

    sql: psycopg.Connection
    session: psycopg.Connection
    with_keys: bool = False
    """Whether there are jobs with concurrency keys besides."""
    mine: list[UUID] = field(default_factory=lambda: [new_id() for _ in range(ASKED)])
    """Jobs that the worker `mine` holds, with claim number 3."""
    ended: list[UUID] = field(default_factory=lambda: [new_id() for _ in range(ASKED)])
    """Jobs that it has completed, with claim number 3."""
    waiting: list[UUID] = field(default_factory=lambda: [new_id() for _ in range(ASKED)])
    keyed: list[UUID] = field(default_factory=lambda: [new_id() for _ in range(ASKED)])
    """Jobs with a concurrency key of their own that the worker `keyed` holds; each has a sibling that is parked."""
    some: slice = field(default_factory=lambda: slice(0, ASKED))
    """Which of them are asked for: others are measured than those on which the plans were made."""

    def fill(self, rows: int) -> None:
        """Due, future, unknown and running jobs, and a history, `rows` of each or more."""
        jobs = "INSERT INTO jobs (id, run_at, queue, job_type, priority, config, worker_id, claim_no) SELECT id, "
        rest = ", '{}', NULL, 0 FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, %s)) AS n RETURNING id"
        self.waiting = self._ids(jobs + "clock_timestamp() - interval '1 h', 'default', 'work', 0" + rest, rows)
        self._ids(jobs + "clock_timestamp() - interval '1 h', 'default', 'unknown', -5" + rest, rows)
        self._ids(jobs + "clock_timestamp() + interval '1 h', 'default', 'work', 0" + rest, 2 * rows)
        running = (
            "INSERT INTO jobs (id, job_type, config, worker_id, claim_no, claimed_at) "
            "SELECT gen_random_uuid(), 'work', '{}', %s, 3, clock_timestamp() FROM generate_series(1, %s) RETURNING id"
        )
        self.mine = self._ids(running, WORKERS["mine"], rows // 4)
        self._ids(running, WORKERS["other"], rows // 2)
        self._ids(running, WORKERS["dead"], ASKED)
        if self.with_keys:
            self._fill_keys(rows)
        self.ended = self._ids(
            "INSERT INTO finished_jobs (id, run_at, created_at, finished_at, worker_id, claim_no, attempt, failures, "
            "crashes, priority, status, queue, job_type, config) SELECT gen_random_uuid(), t, t, t, %s, 3, 1, 0, 0, 0, "
            "'completed', 'default', 'work', '{}' FROM generate_series(1, %s), clock_timestamp() AS t RETURNING id",
            WORKERS["mine"], rows,
        )  # fmt: skip
        self._ids(
            "INSERT INTO attempts (job_id, claim_no, worker_id, attempt, move, ended_at) SELECT gen_random_uuid(), 3, "
            "%s, 1, 'release', clock_timestamp() FROM generate_series(1, %s) RETURNING job_id",
            WORKERS["mine"], rows,
        )  # fmt: skip

    def _fill_keys(self, rows: int) -> None:
        """Jobs with keys: due, each its own; many parked behind one; running, with siblings that are parked."""
        jobs = (
            "INSERT INTO jobs (id, run_at, job_type, config, concurrency_key, parked, worker_id, claim_no) "
            "SELECT gen_random_uuid(), clock_timestamp() - interval '1 h', 'work', '{}', "
        )
        many = " FROM generate_series(1, %s) AS n RETURNING id"
        self._ids(jobs + "gen_random_uuid(), false, NULL, 0" + many, rows)
        self._ids(jobs + "'hot', true, NULL, 0" + many, rows)
        self._ids(jobs + "'hot', false, %s, 3" + many, WORKERS["keyed"], 1)
        self.keyed = self._ids(jobs + "gen_random_uuid(), false, %s, 3" + many, WORKERS["keyed"], rows // 4)
        self._ids(jobs + "gen_random_uuid(), false, %s, 3" + many, WORKERS["dead with keys"], ASKED)
        self.sql.execute(
            "INSERT INTO concurrency_keys (queue, concurrency_key, running) SELECT queue, concurrency_key, "
            "array_agg(id) FROM jobs WHERE concurrency_key IS NOT NULL AND worker_id IS NOT NULL GROUP BY 1, 2 "
            "ON CONFLICT DO NOTHING"
        )
        self.sql.execute(
            "INSERT INTO jobs (id, run_at, job_type, config, concurrency_key, parked) SELECT gen_random_uuid(), "
            "clock_timestamp() - interval '1 h', 'work', '{}', concurrency_key, true FROM jobs WHERE id = ANY (%s)",
            [self.keyed],
        )

    def _ids(self, statement: str, *params: object) -> list[UUID]:
        return [id for (id,) in self.sql.execute(statement, params).fetchall()]

    def counters(self) -> Work:
        row = self.session.execute(
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

    def measure(self, call: Call, kind: Kind) -> Work:
        """Count what a call does, and undo it."""
        with self.session.transaction(force_rollback=True):
            before = self.counters()
            self.session.execute(call.statement(kind), call.params(self))
            after = self.counters()
        return Work(
            after.sequential_scans - before.sequential_scans,
            after.index_scans - before.index_scans,
            after.touched - before.touched,
        )


@dataclass(frozen=True)
class Call:
    """A statement with how much is asked of it."""

    name: str
    statement_name: str
    params: Callable[[Tables], list[object]]
    share: int = 5
    """How many index entries it may touch for each job that it is asked for."""
    keyed: bool = False
    """Whether it is about jobs with concurrency keys."""

    def statement(self, kind: Kind) -> bytes:
        return re.sub(rb"(\w+_1)\(", rf"{PREFIXES[kind]}\1(".encode(), STATEMENTS.sql(self.statement_name))


DETAILS = "[" + ", ".join(['{"attempt": 2, "failures": 1, "crashes": 0, "delay": 0}'] * ASKED) + "]"


def completions(t: Tables) -> list[object]:
    claims = [(str(id), 3, "complete", 1, None) for id in t.mine[t.some]]
    return [msgspec.json.encode({"worker": WORKERS["mine"], "claims": claims}).decode()]


def saved_state(t: Tables) -> list[object]:
    save = {"worker": WORKERS["mine"], "id": str(t.mine[t.some][0]), "claim_no": 3, "state": 1, "inherits": False}
    return [msgspec.json.encode(save).decode()]


def settle(ids: Callable[[Tables], list[UUID]], move: str) -> Callable[[Tables], list[object]]:
    return lambda t: [
        WORKERS["mine"], ids(t)[t.some], [3] * ASKED, [move] * ASKED, [1] * ASKED,
        DETAILS if move == "retry" else None,
    ]  # fmt: skip


def settle_keyed(move: str) -> Callable[[Tables], list[object]]:
    def params(t: Tables) -> list[object]:
        ids = t.keyed[t.some]
        query = "SELECT id, concurrency_key FROM piecework.jobs WHERE id = ANY ($1)"
        keys = dict(t.session.execute(query, [ids]).fetchall())
        _, *params = settle(lambda t: t.keyed, move)(t)
        return [WORKERS["keyed"], *params, ["default"] * ASKED, [keys.get(id, "k") for id in ids]]

    return params


def requested(t: Tables) -> list[object]:
    insert = "INSERT INTO piecework.cancel_requests (job_id, claim_no) SELECT u, 3 FROM unnest($1::uuid[]) AS u"
    t.session.execute(insert, [t.mine[t.some]])
    return [WORKERS["mine"], False, ["work"], None]


CALLS = [
    Call("claim", "claim", lambda t: [WORKERS["other"], ["default"], ["work"], [0], [ASKED], ASKED]),
    Call("claim from lanes", "claim", lambda t: [
        WORKERS["other"], ["default"] * 20, ["none"] * 19 + ["work"], [*range(19), 0], [ASKED] * 20, ASKED]),
    Call("complete", "settle", settle(lambda t: t.mine, "complete")),
    Call("retry", "settle", settle(lambda t: t.mine, "retry")),
    Call("complete again", "settle", settle(lambda t: t.ended, "complete")),
    Call("complete what is lost", "settle", settle(lambda t: t.waiting, "complete"), share=6),
    Call("complete in a transaction", "complete", completions, share=10),
    Call("save state", "save_state", saved_state),
    Call("rescue", "rescue", lambda t: [WORKERS["dead"], 0, "18 s"], share=7),
    Call("rescue with concurrency keys", "rescue",
         lambda t: [WORKERS["dead with keys"], 0, "18 s"], share=24, keyed=True),
    Call("leave", "leave", lambda t: [WORKERS["gone"]]),
    Call("owned", "owned_jobs", lambda t: [WORKERS["dead"]]),
    Call("look", "look", lambda t: [WORKERS["dead"], ["default"], ["work"]]),
    Call("load", "load_jobs", lambda t: [(t.mine[t.some] + t.ended[t.some])[::2], "-infinity"]),
    Call("cancel", "cancel_jobs", lambda t: [t.waiting[t.some]]),
    Call("cancel what runs", "cancel_jobs", lambda t: [t.mine[t.some]], share=6),
    Call("beat with requests", "beat", requested),
    Call("retry by an operator", "retry_jobs", lambda t: [t.ended[t.some], "-infinity"]),
    Call("spawn with chosen ids", "spawn", lambda t: [chosen(ASKED)]),
    Call("spawn with keys", "spawn", lambda t: [with_keys(ASKED)]),
    Call("claim of jobs with concurrency keys", "claim_keyed",
         lambda t: [WORKERS["other"], ["default"], ["work"], [0], [ASKED], ASKED, 0], share=20, keyed=True),
    Call("complete with concurrency keys", "settle_keyed", settle_keyed("complete"), share=20, keyed=True),
    Call("retry with concurrency keys", "settle_keyed", settle_keyed("retry"), share=20, keyed=True),
]  # fmt: skip


def chosen(count: int) -> str:
    jobs = [{"id": str(new_id()), "job_type": "work", "config": {}, "chosen": True} for _ in range(count)]
    return msgspec.json.encode(jobs).decode()


def with_keys(count: int) -> str:
    jobs = [{"id": str(new_id()), "job_type": "work", "config": {}, "key": f"k{n % 40}"} for n in range(count)]
    return msgspec.json.encode(jobs).decode()


@contextmanager
def tables(server: Server, *, with_keys: bool = False) -> Iterator[Tables]:
    """A fresh database with all kinds of functions, whose statistics nobody makes but the test."""
    with server.database(migrated=True) as dsn, psycopg.connect(dsn, autocommit=True) as sql:
        sql.execute("SET search_path = piecework")
        names = re.compile(rf"\b({'|'.join(file.name for file in sql_files('functions'))})\(")
        for file in sql_files("functions"):
            for prefix, text in (
                ("bare_", re.sub(r"^SET (enable_\w+|plan_cache_mode) = .*\n", "", file.text, flags=re.MULTILINE)),
                ("indexable_", file.text.replace(FENCE, INDEXABLE_FENCE).replace(ORDER, INDEXABLE_ORDER)),
            ):
                sql.execute(STATEMENTS.render(names.sub(rf"{prefix}\1(", text)))
        for (table,) in sql.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = "
                                    "'piecework'::regnamespace").fetchall():  # fmt: skip
            sql.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        for id in WORKERS.values():
            sql.execute("INSERT INTO workers (id, pid, host, lease, stop, exit, queues, job_types, version) "
                        "VALUES (%s, 1, 'h', '1 s', '1 s', '1 s', '{}', '{}', '0')", [id])  # fmt: skip
            sleeps = "INSERT INTO idle_workers (worker_id, queues, job_types) VALUES (%s, '{default}', '{work}')"
            sql.execute(sleeps, [id])
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
    believe(t, 0)
    warm_all(t)


def believed_huge(t: Tables) -> None:
    t.fill(1000)
    believe(t, 10_000_000)
    warm_all(t)


def believe(t: Tables, rows: int) -> None:
    """Make the planner think that there are so many rows on each page."""
    t.sql.execute("ANALYZE jobs, finished_jobs, attempts, concurrency_keys")
    t.sql.execute(
        "UPDATE pg_class SET reltuples = %s, relpages = 1 WHERE relnamespace = 'piecework'::regnamespace "
        "AND relkind = 'r' AND relname ~ '^(jobs|finished_jobs|attempts|concurrency_keys)'",
        [rows],
    )


SCENARIOS = [never_analyzed, vacuumed_while_empty, analyzed_in_mid_run, believed_empty, believed_huge]


def flat(work: Work, share: int) -> bool:
    return work.sequential_scans == 0 and work.touched <= share * ASKED and work.index_scans <= 4 * share * ASKED


def excesses(t: Tables, kind: Kind) -> dict[str, Work]:
    """The calls that did more than their share."""
    t.some = slice(-ASKED, None)
    measured = {call: t.measure(call, kind) for call in calls(kind, keyed=t.with_keys)}
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
                believe(t, rows)
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
            t.measure(call, "own")
    own = [plan for plan in plans if "pg_stat_get_xact" not in plan]
    assert len(own) > len(CALLS)
    assert [plan for plan in own if "Disabled" in plan or re.search(r"cost=\d{9}", plan)] == []
