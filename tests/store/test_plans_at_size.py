"""Each hot statement goes the way it is meant to go, and looks at as many pages of huge tables as of small ones.

What the server says of each statement that ran is what is looked at, with those in functions: by which index it went
into which table, how many pages it looked at, how many rows it sorted or kept. The two sizes differ in everything at
once: in the backlog, in what is parked, in what runs, in the keys in use and in the history.
"""

from __future__ import annotations

import pytest
from store.plans.calls import CALLS, MORE_CALLS, Call
from store.plans.explained import Explained, Explainer
from store.plans.sizes import HUGE, SMALL, tables_of
from store.plans.states import STATES, State, analyzed, bloated
from store.plans.tables import ASKED, Tables

from support.databases import Server

pytestmark = [pytest.mark.postgres(18, 15), pytest.mark.timeout(600)]  # a million jobs are made, once

LARGE_TABLES = ("jobs", "finished_jobs", "attempts")
MAY_NOT_BE_READ_WHOLE = (*LARGE_TABLES, "concurrency_keys", "progress", "execution_states")
WAYS = {
    "jobs by tid", "jobs by jobs_pkey", "finished_jobs by finished_jobs_id", "finished_jobs by finished_jobs_key",
    "attempts by attempts_job",
}  # fmt: skip


@pytest.fixture(scope="module")
def small_ones() -> dict[int, dict[str, Explained]]:
    """What the calls do in small tables that are known well, by the version of PostgreSQL."""
    return {}


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_a_call_goes_by_its_indexes_and_looks_at_as_many_pages_whatever_there_is_besides(
    server: Server, state: State, small_ones: dict[int, dict[str, Explained]]
) -> None:
    if server.major not in small_ones:
        small_ones[server.major] = explained(server, SMALL, analyzed)
    small, huge = small_ones[server.major], explained(server, HUGE[server.major], state)
    assert {call.name: ways for call in [*CALLS, *MORE_CALLS] if (ways := astray(call, huge[call.name]))} == {}
    grown = {
        call.name: (small[call.name].buffers, huge[call.name].buffers)
        for call in [*CALLS, *MORE_CALLS]
        if huge[call.name].buffers > small[call.name].buffers + call.higher * call.asked + 30
    }
    assert grown == {}
    assert {name: each.kept_rows for name, each in huge.items() if each.kept_rows > 2 * ASKED} == {}


def explained(server: Server, backlog: int, state: State) -> dict[str, Explained]:
    with tables_of(server, backlog) as t:
        state(t)
        return explain_all(t)


def explain_all(t: Tables) -> dict[str, Explained]:
    """What each call does, when it was called once before for other jobs."""
    for call in [*CALLS, *MORE_CALLS]:
        with t.session.transaction(force_rollback=True):
            t.session.execute(call.statement(), call.params(t))
    explainer = Explainer(t)
    t.some = slice(-ASKED, None)
    return {call.name: explainer.explain(call) for call in [*CALLS, *MORE_CALLS]}


def astray(call: Call, each: Explained) -> set[str]:
    """The ways that it is not meant to go, and the first one if it has not gone that."""
    own = [f"jobs by {index}" for index in call.ways.split()]
    into_large = {way for way in each.paths if way.split()[0] in LARGE_TABLES}
    whole = {f"{table} by sequence" for table in MAY_NOT_BE_READ_WHOLE if table != call.first_row_of}
    return (
        (into_large - WAYS - {*own}) | (each.paths & whole) | {f"not {way}" for way in own[:1] if way not in each.paths}
    )


DEAD = {18: 10_000, 15: 2_000}
"""So many dead rows in front of each lane and of those that are parked, and in each table whose rows come and go."""
WALK_IN_FRONT = ("claim", "look", "owned", "rescue", "explain what is parked", "load what is recent")
"""How the names of the calls begin that go through such rows one after the other: those on one page are one page."""


def test_rows_that_nobody_may_remove_are_passed_over_by_pages_and_only_by_those_who_come_by(server: Server) -> None:
    dead = DEAD[server.major]
    with tables_of(server, HUGE[server.major]) as t:
        before = explain_all(t)
        with bloated(t, dead):
            t.some = slice(0, ASKED)
            after = explain_all(t)
    grown = {
        call.name: (before[call.name].buffers, after[call.name].buffers)
        for call in [*CALLS, *MORE_CALLS]
        if after[call.name].buffers - before[call.name].buffers
        > 2 * call.higher * call.asked + dead // (2 if call.name.startswith(WALK_IN_FRONT) else 10)
    }
    assert grown == {}
    # Whoever has a place in the lane does not come by.
    assert after["take from a place on"].buffers <= before["claim"].buffers + 50
