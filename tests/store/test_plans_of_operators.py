"""What operators ask looks at few pages of huge tables; what has to walk does so once, over what it is about."""

from __future__ import annotations

import pytest
from store.plans.calls import Call
from store.plans.explained import Explained, Explainer
from store.plans.sizes import HUGE, SMALL, tables_of
from store.plans.states import analyzed
from store.plans.tables import Tables

from support.databases import Server

pytestmark = pytest.mark.timeout(600)


def ask(name: str, statement: str, *params: object) -> Call:
    return Call(name, statement, lambda _: [*params])


# The newest jobs, as `piecework jobs list` asks for them; and what `piecework doctor` and the horizon guard ask.
BOUNDED = [
    ask("list", "list_jobs", None, None, None, 20),
    ask("list of a queue", "list_jobs", None, "default", None, 20),
    ask("list of what runs", "list_jobs", "running", None, None, 20),
    ask("list of what failed", "list_jobs", "errored", None, None, 20),
    ask("list of what completed", "list_jobs", "completed", None, None, 20),
    ask("limits", "list_limits"),
    ask("keys of a type", "list_keyed", ["work"]),
    ask("server", "examine_server"),
    ask("privileges", "examine_privileges"),
    ask("partitions", "examine_partitions", 7),
    ask("pins", "examine_pins"),
    ask("horizon", "sample_horizon"),
    ask("schema", "schema_state"),
    ask("clock", "read_clock"),
]
ALL_THAT_IS_KEPT = [
    ask("counts of all jobs", "count_jobs"),
    ask("list of few among many", "list_jobs", None, None, "none", 20),
    ask("next due time of a manual clock", "turn_clock_to_next"),
]
WHAT_RUNS = [ask("what runs", "list_running", 20), ask("workers", "list_workers")]
KEYS_IN_USE = [ask("sweep", "sweep_keys"), ask("limit", "set_limit", '{"name": "work 5", "max_running": 2}')]
ATTEMPTS = [ask("rescues", "count_rescues"), ask("counts of attempts", "count_attempts")]


def test_what_operators_ask_looks_at_as_many_pages_whatever_there_is_or_at_each_of_them_once(server: Server) -> None:
    with tables_of(server, SMALL) as t:
        analyzed(t)
        small = explain(t, BOUNDED)
    with tables_of(server, HUGE[server.major]) as t:
        analyzed(t)
        huge = explain(t, BOUNDED)
        walks = {
            "all that is kept": (explain(t, ALL_THAT_IS_KEPT), 1.1 * pages(t, "jobs", "finished_jobs")),
            "what runs": (explain(t, WHAT_RUNS), count(t, "jobs", "worker_id IS NOT NULL") / 10),
            "keys in use": (explain(t, KEYS_IN_USE), 12 * count(t, "concurrency_keys", "true")),
            "attempts": (explain(t, ATTEMPTS), 1.1 * pages(t, "attempts")),
        }
    assert {name: (small[name].buffers, each.buffers) for name, each in huge.items()
            if each.buffers > small[name].buffers + 20} == {}  # fmt: skip
    assert {name: (each.buffers, most) for asked, most in walks.values() for name, each in asked.items()
            if each.buffers > most + 50} == {}  # fmt: skip


def explain(t: Tables, calls: list[Call]) -> dict[str, Explained]:
    for call in calls:
        with t.session.transaction(force_rollback=True):
            t.session.execute(call.statement(), call.params(t))
    explainer = Explainer(t)
    return {call.name: explainer.explain(call) for call in calls}


def pages(t: Tables, *tables: str) -> int:
    """How many pages these have, with their partitions and the indexes of their ids: a walk by id looks at both."""
    named = f"relnamespace = 'piecework'::regnamespace AND relname ~ '^({'|'.join(tables)})(_[^_]+)?(_pkey|_id_idx)?$'"
    walked = f"{named} AND (relkind = 'r' OR relname ~ '_(pkey|id_idx)$')"
    return size(t, f"SELECT sum(relpages) FROM pg_class WHERE {walked}")


def count(t: Tables, table: str, which: str) -> int:
    return size(t, f"SELECT count(*) FROM {table} WHERE {which}")


def size(t: Tables, query: str, *params: object) -> int:
    row = t.sql.execute(query, params).fetchone()
    assert row is not None
    return int(row[0])
