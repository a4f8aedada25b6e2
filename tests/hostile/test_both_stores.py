"""Both stores under whatever sequence of steps hypothesis thinks of, shrunk to the shortest where they differ."""

from __future__ import annotations

import asyncio

from conformance.conftest import open_postgres
from hypothesis.stateful import run_state_machine_as_test

from hostile.machine import BothStores
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
