"""Signs of life, rescue, and housekeeping: what `beat`, `rescue_1`, `leave_1` and the duties do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import msgspec

from piecework.testing.memory import cancels, keys
from piecework.testing.memory.database import Database, one_more, text
from piecework.testing.memory.rows import Row, Steps, Transaction, Values

_Answer = list[tuple[object, ...]]


def register_worker(db: Database, txn: Transaction, id: str, *told: object) -> Steps[_Answer]:
    """Enter a worker; its lease starts here."""
    names = ("pid", "host", "lease", "stop", "exit", "queues", "job_types", "version", "settings")
    row: Values = {"id": id, "beat_no": 0, "draining": False, "given_up_at": None, "counters": None}
    row |= dict(zip(names, told, strict=True))
    yield from txn.insert(db.workers, id, row)
    return []


def beat(
    db: Database, txn: Transaction, id: str, draining: bool, job_types: Sequence[str], counters: str | None
) -> Steps[_Answer]:
    """Give a sign of life, and say what an observer sees of the others."""
    others = sorted(
        [w["id"], w["beat_no"], w["lease"].total_seconds()] for w in db.workers.seen(txn) if w["id"] != id
    )
    asked = next(db.cancels.seen(txn), None) is not None
    beat_no = None
    row = db.workers.rows.get(id)
    own = None if row is None else row.seen_by(txn)
    if row is not None and own is not None and own["given_up_at"] is None:
        own = yield from txn.lock(row, "no key update")
        if own is not None and own["given_up_at"] is None:
            beat_no = own["beat_no"] + 1
            kept = own["counters"] if counters is None else counters
            txn.put(row, beat_no=beat_no, draining=draining, job_types=list(job_types), counters=kept)
    told: msgspec.Raw | None = None
    if asked:
        yield None
        told = yield from cancels.requests(db, txn, id)
    return [(beat_no, text(others), None if told is None else bytes(told).decode())]


def rescue(db: Database, txn: Transaction, dead: str, beat_no: int, lease: timedelta) -> Steps[_Answer]:
    """Take back the jobs of a dead worker, and strike it off."""
    now = db.clock()
    due = db.due_now(txn)
    row = db.workers.rows.get(dead)
    seen = None if row is None else row.seen_by(txn)
    if row is None or seen is None or seen["beat_no"] != beat_no:
        return [(None,)]
    yield None
    found = yield from txn.lock(row, "update", skip=True)
    if found is None or found["beat_no"] != beat_no:
        return [(None,)]
    yield None
    rows: list[Row] = []
    if next(db.keys.seen(txn), None) is not None:
        names = {
            (job["queue"], job["concurrency_key"]) for job in db.jobs.seen(txn)
            if job["worker_id"] == dead and job["concurrency_key"] is not None
        }  # fmt: skip
        rows = yield from keys.lock_all(db, txn, names)
        yield None
    rescued: list[list[object]] = []
    for job in sorted((j for j in db.jobs.seen(txn) if j["worker_id"] == dead), key=lambda each: str(each["id"])):
        held = yield from txn.lock(db.jobs.rows[job["id"]], "update", skip=True)
        if held is not None and held["worker_id"] == dead:
            _take_back(db, txn, held, now, due, lease)
            rescued.append([held["id"], held["job_type"]])
            yield None
    ids = [str(id) for id, _ in rescued]
    requested = sorted(r["job_id"] for r in db.cancels.seen(txn) if r["job_id"] in ids)
    if requested:
        yield from cancels.cancel(db, txn, requested, joined=True)
    yield from keys.free(db, txn, rows, ids, ended=True)
    yield None
    yield from _strike_off(db, txn, dead, now)
    return [(text(rescued),)]


def _take_back(db: Database, txn: Transaction, job: Values, now: int, due: int, lease: timedelta) -> None:
    later = db.chance.random() * job["crashes"] * lease.total_seconds() * 1e6
    run_at = due + int(later)
    txn.put(
        db.jobs.rows[job["id"]], worker_id=None, claimed_at=None, parked=False, run_at=run_at,
        attempt=one_more(job["attempt"]), failures=one_more(job["failures"]), crashes=one_more(job["crashes"]),
    )  # fmt: skip
    error = {"type": "worker lost", "message": f"the worker gave no sign of life for {lease}"}
    db.append(txn, db.attempts, job["id"], {
        "job_id": job["id"], "claim_no": job["claim_no"], "worker_id": job["worker_id"], "attempt": job["attempt"],
        "move": "rescue", "started_at": job["claimed_at"], "ended_at": now, "error": text(error).encode(),
        "next_run_at": run_at,
    })  # fmt: skip
    txn.notices[keys.hint(job)] = None


def _strike_off(db: Database, txn: Transaction, dead: str, now: int) -> Steps[None]:
    idle = db.idle.rows.get(dead)
    if idle is not None and (yield from txn.lock(idle, "update")) is not None:
        txn.delete(idle)
    row = db.workers.rows[dead]
    if any(job["worker_id"] == dead for job in db.jobs.seen(txn)):
        values = row.seen_by(txn)
        if values is not None and values["given_up_at"] is None:
            txn.put(row, given_up_at=now)
    else:
        txn.delete(row)


def leave(db: Database, txn: Transaction, worker: str) -> Steps[_Answer]:
    """Strike off a worker that stops in order."""
    idle = db.idle.rows.get(worker)
    if idle is not None and (yield from txn.lock(idle, "update")) is not None:
        txn.delete(idle)
    yield None
    row = db.workers.rows.get(worker)
    if row is None or (yield from txn.lock(row, "update", skip=True)) is None:
        return [(False,)]
    yield None
    if any(job["worker_id"] == worker for job in db.jobs.seen(txn)):
        return [(False,)]
    txn.delete(row)
    return [(True,)]


def take_duty(db: Database, txn: Transaction, worker: str) -> Steps[_Answer]:
    """Take one housekeeping duty that is due."""
    now = db.clock()
    keyed = next(db.keys.seen(txn), None) is not None
    due = sorted(
        (duty["next_at"], duty["name"]) for duty in db.duties.seen(txn)
        if duty["next_at"] <= now and (keyed or duty["name"] != "concurrency_keys")
    )  # fmt: skip
    for _, name in due:
        row = db.duties.rows[name]
        duty = yield from txn.lock(row, "update", skip=True)
        if duty is not None and duty["next_at"] <= now:
            txn.put(row, next_at=now + duty["every"], ran_by=worker)
            return [(name,)]
    return []


def add_partitions(db: Database, txn: Transaction, days: int) -> Steps[_Answer]:
    """Make no leaves: the history here has none."""
    yield None
    return [(0,)]


def sample_horizon(db: Database, txn: Transaction) -> Steps[_Answer]:
    """Say that there are no dead rows."""
    yield None
    claims = {"calls": 0, "jobs": 0, "seconds": 0.0, "worst": 0.0, "slow": 0}
    return [(text({
        "at": db.clock() / 1e6, "sees_all": True, "dead": 0, "dead_keys": 0, "vacuumed": None, "claims": claims,
        "watch": None,
    }),)]  # fmt: skip


def examine_pins(db: Database, txn: Transaction) -> Steps[_Answer]:
    """Say that nobody keeps dead rows."""
    yield None
    return []
