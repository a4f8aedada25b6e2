"""Cancelling: what `cancel_1` and `requests_1` do."""

from __future__ import annotations

import msgspec
import psycopg

from piecework.testing.memory import keys
from piecework.testing.memory.database import Database, text, upsert
from piecework.testing.memory.rows import Row, Steps, Transaction, Values

_A_NOTICE = 100


def cancel_jobs(db: Database, txn: Transaction, ids: list[object]) -> Steps[list[tuple[object, ...]]]:
    """End the jobs that no worker holds, and request it of the workers of the others."""
    return (yield from cancel(db, txn, [str(id) for id in ids], joined=False))


def cancel(db: Database, txn: Transaction, ids: list[str], *, joined: bool) -> Steps[list[tuple[object, ...]]]:
    """Cancel jobs; with `joined` their concurrency keys are left alone."""
    locked, held = yield from _lock(db, txn, sorted(set(ids)))
    yield None
    names: set[keys.Name] = set()
    rows: list[Row] = []
    if not joined and next(db.keys.seen(txn), None) is not None:
        jobs = [db.jobs.find(txn, id) for id in locked]
        names = {
            (job["queue"], job["concurrency_key"]) for job in jobs
            if job is not None and job["worker_id"] is None and job["concurrency_key"] is not None
        }  # fmt: skip
        rows = yield from keys.lock_all(db, txn, names)
        yield None
    answers: list[tuple[object, ...]] = []
    for id in sorted(locked):
        job = db.jobs.find(txn, id)
        if job is not None and job["worker_id"] is None:
            _end(db, txn, job)
            answers.append((id, "cancelled"))
    yield None
    yield from keys.free(db, txn, rows, (), ended=True)
    for request in list(db.cancels.seen(txn)):
        if request["job_id"] in ids and db.jobs.find(txn, request["job_id"]) is None:
            row = db.cancels.rows[request["job_id"]]
            if (yield from txn.lock(row, "update")) is not None:
                txn.delete(row)
    yield None
    running = [job for id in sorted([*locked, *held]) if (job := db.jobs.find(txn, id)) is not None]
    yield from _request(db, txn, running)
    return answers + [(job["id"], "requested") for job in running]


def _lock(db: Database, txn: Transaction, ids: list[str]) -> Steps[tuple[list[str], list[str]]]:
    locked: list[str] = []
    held: list[str] = []
    for id in ids:
        row = db.jobs.rows.get(id)
        if row is not None and (yield from txn.lock(row, "update", skip=True)) is not None:
            locked.append(id)
    before, txn.lock_timeout = txn.lock_timeout, 1.0
    for id in ids:
        row = db.jobs.rows.get(id)
        if id in locked or row is None or row.seen_by(txn) is None:
            continue
        if held:
            held.append(id)
            continue
        try:
            if (yield from txn.lock(row, "update")) is not None:
                locked.append(id)
        except psycopg.errors.LockNotAvailable:
            held.append(id)
    txn.lock_timeout = before
    return locked, held


def _end(db: Database, txn: Transaction, job: Values) -> None:
    id = job["id"]
    reported = db.progress.find(txn, id)
    txn.delete(db.jobs.rows[id])
    db.append(txn, db.finished, id, {
        **job, "started_at": None, "worker_id": None, "finished_at": db.clock(), "status": "cancelled",
        "result": None if reported is None else reported["result"], "error": None,
    })  # fmt: skip
    for table, key in ((db.progress, id), (db.states, ("job", id))):
        row = table.rows.get(key)
        if row is not None and row.seen_by(txn) is not None:
            txn.delete(row)


def _request(db: Database, txn: Transaction, running: list[Values]) -> Steps[None]:
    for job in running:
        stands = db.cancels.find(txn, job["id"])
        if stands is None or stands["claim_no"] != job["claim_no"]:
            new = {"job_id": job["id"], "claim_no": job["claim_no"]}
            yield from upsert(txn, db.cancels, job["id"], new, {"claim_no": job["claim_no"]})
    by_worker: dict[str, list[object]] = {}
    for job in running:
        if job["worker_id"] is not None:
            by_worker.setdefault(job["worker_id"], []).append([job["id"], job["claim_no"]])
    for worker, claims in by_worker.items():
        for first in range(0, len(claims), _A_NOTICE):
            txn.notices[text({"worker": worker, "cancel": claims[first : first + _A_NOTICE]})] = None


def requests(db: Database, txn: Transaction, worker: str) -> Steps[msgspec.Raw | None]:
    """Return which of a worker's jobs are to be cancelled."""
    found: list[object] = []
    for request in sorted(db.cancels.seen(txn), key=lambda each: str(each["job_id"])):
        job = db.jobs.find(txn, request["job_id"])
        if job is None:
            row = db.cancels.rows[request["job_id"]]
            if (yield from txn.lock(row, "update", skip=True)) is not None:
                txn.delete(row)
        elif job["worker_id"] == worker:
            found.append([job["id"], job["claim_no"]])
    return msgspec.Raw(text(found).encode()) if found else None
