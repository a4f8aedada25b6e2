"""Which function answers which statement of `store/sql`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from piecework.store.migrating import migrations
from piecework.store.statements import sql_files
from piecework.testing.memory import cancels, claims, keyed_claims, keys, reads, settles, spawns, workers
from piecework.testing.memory.database import Database
from piecework.testing.memory.rows import Steps, Transaction

Rows: TypeAlias = list[tuple[object, ...]]


def _nothing(db: Database, txn: Transaction) -> Steps[Rows]:
    yield None
    return []


def _schema_state(db: Database, txn: Transaction) -> Steps[Rows]:
    yield None
    return [(True, True, True, True, True, True)]


def _applied(db: Database, txn: Transaction) -> Steps[Rows]:
    yield None
    return [(each.version, each.name, each.file.checksum, each.supports) for each in migrations()]


def _installed(db: Database, txn: Transaction) -> Steps[Rows]:
    yield None
    return [(file.name, file.checksum) for file in sql_files("functions")]


STATEMENTS: dict[str, Callable[..., Steps[Any]]] = {
    **dict.fromkeys(("pin_session", "pin_completing"), _nothing),
    "claim_after": claims.claim,
    "schema_state": _schema_state,
    "applied_migrations": _applied,
    "installed_functions": _installed,
    **{each.__name__: each for each in (
        claims.claim, keyed_claims.claim_keyed, claims.look, claims.owned_jobs, claims.declare_idle,
        claims.declare_busy,
        claims.take_horizon, settles.settle, settles.settle_keyed, settles.guard, settles.complete, spawns.spawn,
        spawns.retry_jobs, cancels.cancel_jobs, workers.register_worker, workers.beat, workers.rescue, workers.leave,
        workers.take_duty, workers.add_partitions, workers.sample_horizon, workers.examine_pins, keys.sweep_keys,
        keys.set_limit, keys.list_limits, reads.load_jobs, reads.list_jobs, reads.find_keyed, reads.list_keyed,
        reads.list_attempts, reads.count_jobs, reads.explain,
        reads.save_state, reads.report, reads.read_clock, reads.turn_clock, reads.turn_clock_to_next,
        reads.clear_clock,
    )},
}  # fmt: skip
"""By name of the statement: takes the database, a transaction and the parameters, and yields where others come in."""
