"""Reading jobs, what runs write of themselves, and the clock that tests turn."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from piecework.base.moments import EARLIEST, LATEST
from piecework.testing.memory import keys
from piecework.testing.memory.database import Database, encode, refuse_nul, upsert
from piecework.testing.memory.rows import Steps, Transaction, Values
from piecework.testing.memory.settles import fenced

_Answer = list[tuple[object, ...]]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(microseconds: int | None) -> datetime | None:
    """Return a stored moment as the driver does, as far as it can be read."""
    if microseconds is None:
        return None
    return _EPOCH + timedelta(microseconds=min(max(microseconds, _EARLIEST), _LATEST))


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


_EARLIEST, _LATEST = _microseconds(EARLIEST), _microseconds(LATEST)


def _text(stored: bytes | None) -> str | None:
    return None if stored is None else stored.decode()


def _uuid(id: str | None) -> UUID | None:
    return None if id is None else UUID(id)


def _live(db: Database, txn: Transaction, job: Values) -> tuple[object, ...]:
    reported = db.progress.find(txn, job["id"])
    state = db.states.find(txn, ("job", job["id"])) or db.states.find(txn, ("key", job["job_type"], job["key"]))
    failed = [a for a in db.attempts.alike(txn, job["id"]) if a["error"] is not None] if job["failures"] else []
    error = max(failed, key=lambda a: int(a["claim_no"]))["error"] if failed else None
    runs = job["worker_id"] is not None
    return (
        UUID(job["id"]), job["job_type"], "running" if runs else "pending", job["queue"], job["priority"],
        job["attempt"], job["failures"], job["crashes"], job["claim_no"], _uuid(job["worker_id"]),
        None if runs else moment(job["run_at"]), moment(job["created_at"]), moment(job["claimed_at"]),
        moment(job["claimed_at"]), None, job["tags"], _text(job["config"]),
        None if reported is None else _text(reported["result"]), _text(error), job["key"], job["concurrency_key"],
        job["parked"], None if state is None else _text(state["state"]),
        *((None,) * 3 if reported is None else (reported["done"], reported["note"], moment(reported["reported_at"]))),
    )  # fmt: skip


def _ended(db: Database, txn: Transaction, job: Values) -> tuple[object, ...]:
    state = db.states.find(txn, ("key", job["job_type"], job["key"]))
    left = None if state is None or state["saved_by"] != job["id"] else _text(state["state"])
    return (
        UUID(job["id"]), job["job_type"], job["status"], job["queue"], job["priority"], job["attempt"],
        job["failures"], job["crashes"], job["claim_no"], _uuid(job["worker_id"]), None, moment(job["created_at"]),
        moment(job["started_at"]), moment(job["started_at"]), moment(job["finished_at"]), job["tags"],
        _text(job["config"]), _text(job["result"]), _text(job["error"]), job["key"], job["concurrency_key"], False,
        left, None, None, None,
    )  # fmt: skip


def load_jobs(db: Database, txn: Transaction, ids: Sequence[UUID], since: datetime) -> Steps[_Answer]:
    """Return jobs by their ids, live or finished."""
    yield None
    rows: _Answer = []
    for id in map(str, ids):
        job = db.jobs.find(txn, id)
        if job is not None:
            rows.append(_live(db, txn, job))
        rows += [_ended(db, txn, ended) for ended in db.finished.alike(txn, id)]
    return rows


def list_jobs(
    db: Database, txn: Transaction, status: str | None, queue: str | None, job_type: str | None, most: int
) -> Steps[_Answer]:
    """Return the newest jobs first, live and finished."""
    yield None
    rows = [_live(db, txn, job) for job in db.jobs.seen(txn)]
    rows += [_ended(db, txn, job) for job in db.finished.seen(txn)]
    asked = ((status, 2), (queue, 3), (job_type, 1))
    wanted = [row for row in rows if all(each in (None, row[column]) for each, column in asked)]
    return sorted(wanted, key=lambda row: str(row[0]), reverse=True)[:most]


def find_keyed(db: Database, txn: Transaction, job_types: Sequence[str], key: str) -> Steps[_Answer]:
    """Return the live job of a key, else the one that was spawned last."""
    yield None
    live = [job["id"] for job_type in job_types for job in db.jobs.alike(txn, (job_type, key))]
    ended = [j["id"] for j in db.finished.seen(txn) if j["key"] == key and j["job_type"] in job_types]
    found = sorted(live)[-1:] or sorted(ended)[-1:]
    return [(UUID(id),) for id in found]


def list_keyed(db: Database, txn: Transaction, job_types: Sequence[str]) -> Steps[_Answer]:
    """Return the job of each key of a type."""
    yield None
    found: dict[str, tuple[bool, str]] = {}
    for live, table in ((False, db.finished), (True, db.jobs)):
        for job in table.seen(txn):
            if job["key"] is not None and job["job_type"] in job_types:
                found[job["key"]] = max(found.get(job["key"], (False, "")), (live, job["id"]))
    return [(key, UUID(id)) for key, (_, id) in sorted(found.items())]


def list_attempts(db: Database, txn: Transaction, id: UUID) -> Steps[_Answer]:
    """Return the attempts of a job that ended otherwise than in completion."""
    yield None
    return [
        (a["attempt"], a["claim_no"], UUID(a["worker_id"]), a["move"], moment(a["started_at"]), moment(a["ended_at"]),
         moment(a["next_run_at"]), _text(a["error"]))
        for a in sorted(db.attempts.alike(txn, str(id)), key=lambda a: int(a["claim_no"]))
    ]  # fmt: skip


def count_jobs(db: Database, txn: Transaction) -> Steps[_Answer]:
    """Say how many jobs there are of each kind."""
    yield None
    now = db.due_now(txn)
    counts: dict[tuple[str, str, str], tuple[int, int | None]] = {}
    for table in (db.jobs, db.finished):
        for job in table.seen(txn):
            live = "run_at" in job and "status" not in job
            status = job.get("status") or ("pending" if job["worker_id"] is None else "running")
            kind = job["queue"], job["job_type"], status
            count, oldest = counts.get(kind, (0, None))
            if live and job["worker_id"] is None and job["run_at"] <= now:
                oldest = min(job["run_at"], job["run_at"] if oldest is None else oldest)
            counts[kind] = count + 1, oldest
    return [(*kind, count, moment(oldest)) for kind, (count, oldest) in sorted(counts.items())]


def explain(db: Database, txn: Transaction, id: UUID) -> Steps[_Answer]:
    """Say what there is to know of why one job does not run."""
    yield None
    told: _Answer = []
    job = db.jobs.find(txn, str(id))
    if job is not None:
        told.append((encode(_facts(db, txn, job)).decode(),))
    for ended in db.finished.alike(txn, str(id)):
        error = None if ended["error"] is None else msgspec.Raw(ended["error"])
        facts = {name: ended[name] for name in (*_NAMED, "status")}
        told.append((encode({**facts, "at": moment(ended["finished_at"]), "error": error}).decode(),))
    return told


_NAMED = ("id", "job_type", "queue", "attempt")


def _facts(db: Database, txn: Transaction, job: Values) -> dict[str, object]:
    now, queue, key = db.due_now(txn), job["queue"], job["concurrency_key"]
    runs = job["worker_id"] is not None
    due = [] if key is None else keys.line(db, txn, queue, key, now)
    row = None if key is None else db.keys.find(txn, (queue, key))
    order = job["priority"], job["run_at"], job["id"]
    worker = db.workers.find(txn, job["worker_id"])
    workers = [w for w in db.workers.seen(txn) if w["given_up_at"] is None and not w["draining"]]
    nobody: list[str] = []
    of_queue = [w for w in workers if queue in w["queues"]]
    limit = None
    if key is not None:
        said = keys.operators_limit(db, txn, queue, key)
        limit = said if said is not None else 1 if job["concurrency_limit"] is None else job["concurrency_limit"]
    facts: dict[str, object] = {name: job[name] for name in _NAMED}
    return facts | {
        "status": "running" if runs else "pending", "at": moment(job["claimed_at"] if runs else job["run_at"]),
        "due_in": (job["run_at"] - now) / 1e6, "manual_clock": db.manual.find(txn, True) is not None,
        "concurrency_key": key, "parked": job["parked"], "limit": limit,
        "holders": nobody if row is None else row["running"],
        "before": len([d for d in due if (d["priority"], d["run_at"], d["id"]) < order]),
        "cancel_requested": db.cancels.find(txn, job["id"]) is not None, "worker_id": job["worker_id"],
        "worker": None if worker is None else f"{worker['host']} pid {worker['pid']}", "workers": len(workers),
        "workers_of_queue": len(of_queue),
        "workers_of_both": len([w for w in of_queue if job["job_type"] in w["job_types"]]),
    }  # fmt: skip


class _Save(msgspec.Struct):
    id: str
    claim_no: int
    worker: str
    state: msgspec.Raw
    inherits: bool


class _Report(msgspec.Struct):
    id: str
    claim_no: int
    worker: str
    done: float | msgspec.UnsetType | None = msgspec.UNSET
    note: str | msgspec.UnsetType = msgspec.UNSET
    result: msgspec.Raw = msgspec.Raw()


_save = msgspec.json.Decoder(_Save).decode
_report = msgspec.json.Decoder(_Report).decode


def _held(db: Database, txn: Transaction, claim: _Save | _Report) -> Steps[Values | None]:
    txn.lock_timeout = 5.0
    row = db.jobs.rows.get(claim.id)
    if row is None or not fenced(row.seen_by(txn), claim.claim_no, claim.worker):
        return None
    job = yield from txn.lock(row, "key share")
    return job if fenced(job, claim.claim_no, claim.worker) else None


def save_state(db: Database, txn: Transaction, said: str) -> Steps[_Answer]:
    """Save what the next attempt is to find."""
    refuse_nul(said)
    save = _save(said)
    job = yield from _held(db, txn, save)
    if job is None:
        return [('[[1, "lost"]]',)]
    yield None
    inherits = save.inherits and job["key"] is not None
    key = ("key", job["job_type"], job["key"]) if inherits else ("job", job["id"])
    new = {"saved_by": job["id"], "claim_no": save.claim_no, "state": bytes(save.state)}
    yield from upsert(txn, db.states, key, new, new)
    return [(None,)]


def report(db: Database, txn: Transaction, said: str) -> Steps[_Answer]:
    """Store what a run reports of itself."""
    refuse_nul(said)
    told = _report(said)
    job = yield from _held(db, txn, told)
    if job is None:
        return [('[[1, "lost"]]',)]
    yield None
    result = bytes(told.result) if bytes(told.result) not in (b"", b"null") else None
    said_of = {"done": told.done, "note": told.note, "result": bytes(told.result) or msgspec.UNSET}
    values = {"done": told.done, "note": told.note, "result": result}
    changes = {name: values[name] for name, given in said_of.items() if given is not msgspec.UNSET}
    base = {"done": None, "note": "", "result": None, "claim_no": told.claim_no, "reported_at": db.clock()}
    changes |= {"claim_no": told.claim_no, "reported_at": db.clock()}
    yield from upsert(txn, db.progress, told.id, base | changes, changes)
    return [(None,)]


def read_clock(db: Database, txn: Transaction) -> Steps[_Answer]:
    """Say by what due times go."""
    yield None
    return [(moment(db.due_now(txn)), db.manual.find(txn, True) is not None)]


def turn_clock(db: Database, txn: Transaction, to: datetime | None, by: timedelta) -> Steps[_Answer]:
    """Set the manual clock, or turn it on."""
    now = _microseconds(to) if to is not None else min(db.due_now(txn) + by // timedelta(microseconds=1), _LATEST)
    yield from upsert(txn, db.manual, True, {"now": now}, {"now": now})
    txn.notices['"look"'] = None
    return [(moment(now),)]


def turn_clock_to_next(db: Database, txn: Transaction) -> Steps[_Answer]:
    """Turn the manual clock to when the next pending job is due."""
    now = db.due_now(txn)
    later = [job["run_at"] for job in db.jobs.seen(txn) if job["worker_id"] is None and now < job["run_at"] <= _LATEST]
    if not later:
        return []
    return (yield from turn_clock(db, txn, moment(min(later)), timedelta(0)))


def clear_clock(db: Database, txn: Transaction) -> Steps[_Answer]:
    """Let due times go by the real time again."""
    row = db.manual.rows.get(True)
    if row is not None and (yield from txn.lock(row, "update")) is not None:
        txn.delete(row)
    txn.notices['"look"'] = None
    return []
