"""Creating jobs and bringing them back: what `spawn_1`, `spawn_keyed_1` and `retry_1` do."""

from __future__ import annotations

import math
from datetime import datetime
from uuid import UUID

import msgspec
import psycopg

from piecework.testing.memory import keys
from piecework.testing.memory.database import Database, following, refuse_nul, text
from piecework.testing.memory.rows import Steps, Transaction, Values

_PER_SLEEPER = 100


class _Job(msgspec.Struct):
    id: str
    job_type: str
    config: msgspec.Raw
    queue: str = "default"
    priority: int = 0
    run_at: int | None = None
    delay: int | None = None
    tags: list[str] | None = None
    chosen: bool = False
    key: str | None = None
    concurrency_key: str | None = None
    concurrency_limit: int | None = None
    trace_context: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(list[_Job]).decode


def _row(db: Database, txn: Transaction, job: _Job) -> Values:
    run_at = db.due_now(txn) + (job.delay or 0) if job.run_at is None else job.run_at
    return {
        "id": job.id, "run_at": run_at, "created_at": db.clock(), "claimed_at": None, "worker_id": None, "claim_no": 0,
        "attempt": 1, "failures": 0, "crashes": 0, "priority": job.priority,
        "concurrency_limit": job.concurrency_limit, "parked": False, "queue": job.queue, "job_type": job.job_type,
        "config": bytes(job.config), "concurrency_key": job.concurrency_key, "key": job.key, "timeout": None,
        "tags": job.tags, "metadata": None, "trace_context": bytes(job.trace_context) or None,
    }  # fmt: skip


def spawn(db: Database, txn: Transaction, payload: str) -> Steps[list[tuple[object, ...]]]:
    """Create jobs; of those with a key each unless a live job of its type holds it."""
    refuse_nul(payload)
    jobs = _decode(payload)
    holders = yield from _spawn_keyed(db, txn, jobs)
    for job in sorted((each for each in jobs if each.key is None), key=lambda each: each.id):
        if (yield from txn.insert(db.jobs, job.id, _row(db, txn, job))) is None:
            raise psycopg.errors.UniqueViolation(f"duplicate key: Key (id)=({job.id}) already exists.")
    yield None
    for job in jobs:
        if job.chosen and next(db.finished.alike(txn, job.id), None) is not None:
            raise psycopg.errors.UniqueViolation(f"a job with this id has ended: {job.id}")
    yield None
    _tell(db, txn, jobs)
    return [(text(holders) if holders else None,)]


def _tell(db: Database, txn: Transaction, jobs: list[_Job]) -> None:
    lanes: dict[tuple[str, str, int, bool], int] = {}
    for job in jobs:
        lane = job.queue, job.job_type, job.priority, job.concurrency_key is not None
        lanes[lane] = lanes.get(lane, 0) + 1
    sleepers = list(db.idle.seen(txn))
    for (queue, job_type, priority, keyed), count in lanes.items():
        asleep = [s["worker_id"] for s in sleepers if queue in s["queues"] and job_type in s["job_types"]]
        most = min(math.ceil(count / _PER_SLEEPER), 100)
        if asleep:
            targets = db.chance.sample(asleep, min(most, len(asleep)))
            txn.notices[text([queue, job_type, priority, targets, keyed])] = None


def _spawn_keyed(db: Database, txn: Transaction, jobs: list[_Job]) -> Steps[list[tuple[int, str]]]:
    left = [(job.job_type, job.key, position) for position, job in enumerate(jobs) if job.key is not None]
    holders: list[tuple[int, str]] = []
    made: set[str] = set()
    before, txn.lock_timeout = txn.lock_timeout, txn.lock_timeout or 5.0
    for _ in range(3):
        for _, _, position in sorted(left):
            job = jobs[position]
            new = _row(db, txn, job)
            if (yield from txn.insert(db.jobs, job.id, new)) is not None:
                made.add(job.id)
            elif db.jobs.find(txn, job.id) is not None and not list(db.jobs.alike(txn, (job.job_type, job.key))):
                raise psycopg.errors.UniqueViolation(f"duplicate key: Key (id)=({job.id}) already exists.")
        yield None
        for entry in list(left):
            job_type, key, position = entry
            holder = next(db.jobs.alike(txn, (job_type, key)), None)
            if holder is None:
                continue
            left.remove(entry)
            if holder["id"] != jobs[position].id or jobs[position].id not in made:
                holders.append((position, holder["id"]))
        if not left:
            break
    txn.lock_timeout = before
    if left:
        raise psycopg.errors.SerializationFailure("live jobs with these keys came and went three times")
    return holders


def retry_jobs(db: Database, txn: Transaction, ids: list[UUID], since: datetime) -> Steps[list[tuple[object, ...]]]:
    """Bring finished jobs back, due now, their counters anew."""
    txn.lock_timeout = 5.0
    now = db.due_now(txn)
    wanted = {str(id) for id in ids}
    yield None
    ended = sorted(
        ((row.seen_by(txn), row) for row in list(db.finished.rows.values())),
        key=lambda each: _newest_first(each[0]),
    )
    answers: list[tuple[object, ...]] = []
    for seen, row in ended:
        if seen is None or seen["id"] not in wanted or seen["config"] is None or not _is_since(seen, since):
            continue
        job = yield from txn.lock(row, "update")
        if job is None:
            continue
        new: Values = {
            **{field: job[field] for field in _KEPT}, "run_at": now, "claim_no": following(job["claim_no"]),
            "attempt": 1, "failures": 0, "crashes": 0, "claimed_at": None, "worker_id": None, "parked": False,
        }  # fmt: skip
        if (yield from txn.insert(db.jobs, job["id"], new)) is None:
            holder = next(db.jobs.alike(txn, (job["job_type"], job["key"])), None)
            if holder is not None:
                answers.append((job["id"], holder["id"]))
            continue
        txn.delete(row)
        request = db.cancels.rows.get(job["id"])
        if request is not None and (yield from txn.lock(request, "update")) is not None:
            txn.delete(request)
        txn.notices[keys.hint(job)] = None
        answers.append((job["id"], None))
        yield None
    return answers


_KEPT = (
    "id", "created_at", "priority", "concurrency_limit", "queue", "job_type", "config", "concurrency_key", "key",
    "timeout", "tags", "metadata", "trace_context",
)  # fmt: skip


def _newest_first(job: Values | None) -> tuple[str, str, int]:
    if job is None:
        return "", "", 0
    return job["job_type"], job["key"] or "\U0010ffff", -UUID(job["id"]).int


def _is_since(job: Values, since: datetime) -> bool:
    return since.year < 2 or bool(job["finished_at"] >= since.timestamp() * 1e6)
