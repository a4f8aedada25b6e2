"""Both stores under whatever sequence of steps hypothesis thinks of, shrunk to the shortest where they differ."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from conformance.conftest import open_memory, open_postgres
from hypothesis.stateful import run_state_machine_as_test

from hostile.machine import BothStores
from piecework.base.ids import new_id
from piecework.model.job import NewJob
from piecework.model.lanes import Lane
from piecework.model.settlement import released
from piecework.store.claiming import NO_CHAINS
from support.examples import examples


def test_whatever_is_done_both_stores_answer_alike_and_keep_the_rules_of_a_history(shared_dsn: str) -> None:
    with asyncio.Runner() as runner:
        opened = open_postgres(shared_dsn)
        postgres = runner.run(opened.__aenter__())
        try:
            run_state_machine_as_test(
                lambda: BothStores(runner, postgres), settings=examples(30, stateful_step_count=25)
            )
        finally:
            runner.run(opened.__aexit__(None, None, None))


LARGEST = 2**31 - 1


@pytest.mark.parametrize("keyed", [False, True])
async def test_both_stores_count_alike_at_the_end_of_their_range(shared_dsn: str, keyed: bool) -> None:
    """Claims begin anew, failures stay where they are: by a claim, a release, a claim, and the loss of the worker."""
    id, worker, lane = str(new_id()), str(new_id()), Lane("default", "a", 0, keyed)
    job = NewJob(id=id, job_type="a", config=msgspec.Raw(b"{}"), concurrency_key="k" if keyed else None)  # type: ignore[arg-type]
    found: list[list[object]] = []
    async with open_memory() as memory, open_postgres(shared_dsn) as postgres:
        for side in (memory, postgres):
            await side.begin()
            await side.spawn([job])
            await side.register(worker)
        row = memory.server.database.jobs.rows[id]
        counters = {"claim_no": LARGEST - 1, "attempt": LARGEST, "failures": LARGEST, "crashes": LARGEST}
        row.committed = {**(row.committed or {}), **counters}
        values = ", ".join(f"{name} = {value}" for name, value in counters.items())
        postgres.scene.sql.execute(f"UPDATE jobs SET {values}".encode())
        for side in (memory, postgres):
            seen: list[object] = []
            for _ in range(2):
                call = (worker, [(lane, 1)], 1)
                seen.append(await (side.claim_keyed(*call, NO_CHAINS, 0) if keyed else side.claim(*call)))
                seen.append(side.taken[0].claim_no)
                if len(seen) == 2:
                    seen.append(await side.settle(worker, [released(side.taken[0])]))
            seen += [await side.rescue(worker, 0, 0.0), side.state()["jobs"]]
            found.append(seen)
    assert found[0] == found[1]
    assert [found[0][1], found[0][4]] == [LARGEST, 1]
