"""Looking for work and claiming it: what `claim_1`, `claim_keyed_1`, `look_1` and `owned_1` do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg

from piecework.testing.memory import keys
from piecework.testing.memory.database import Database, text, upsert
from piecework.testing.memory.rows import Steps, Transaction, Values

_Lane = tuple[str, str, int]
_Answer = list[tuple[object, ...]]
_Asked = list[tuple[_Lane, int]]


def _of_lane(job: Values) -> _Lane:
    return job["queue"], job["job_type"], job["priority"]


def in_turn(job: Values) -> tuple[int, str]:
    """The order within a lane."""
    return job["run_at"], job["id"]


def _told(db: Database, txn: Transaction, job: Values, kind: Sequence[object], *, whole: bool) -> list[object]:
    row: list[object] = [
        job["id"], job["claim_no"], *kind, job["run_at"], job["attempt"], job["failures"], job["crashes"],
        msgspec.Raw(job["config"]),
    ]  # fmt: skip
    if whole:
        own = db.states.find(txn, ("job", job["id"]))
        inherited = None if job["key"] is None else db.states.find(txn, ("key", job["job_type"], job["key"]))
        trace = job["trace_context"]
        row += [None if trace is None else msgspec.Raw(trace), job["created_at"]]
        row += [None if each is None else msgspec.Raw(each["state"]) for each in (own, inherited)]
    return row


def _stands(db: Database, txn: Transaction, worker: str) -> Steps[None]:
    row = db.workers.rows.get(worker)
    found = None
    if row is not None and row.committed is not None and row.committed["given_up_at"] is None:
        found = yield from txn.lock(row, "key share")
    if found is None or found["given_up_at"] is not None:
        raise psycopg.errors.NoDataFound(f"worker {worker} was given up for dead")


def _lanes(
    db: Database, txn: Transaction, lanes: Sequence[tuple[_Lane, int]], now: int, *, keyed: bool
) -> list[tuple[list[Values], int]]:
    found: defaultdict[_Lane, list[Values]] = defaultdict(list)
    for job in db.jobs.seen(txn):
        if (
            job["worker_id"] is None and not job["parked"] and job["run_at"] <= now
            and (job["concurrency_key"] is not None) is keyed
        ):  # fmt: skip
            found[_of_lane(job)].append(job)
    return [(sorted(found.get(lane, ()), key=in_turn), count) for lane, count in lanes]


def _asked(queues: Sequence[str], job_types: Sequence[str], priorities: Sequence[int], counts: Sequence[int]) -> _Asked:
    return list(zip(zip(queues, job_types, priorities, strict=True), counts, strict=True))


def claim(db: Database, txn: Transaction, worker: str, *asked: Any) -> Steps[_Answer]:
    """Claim due jobs lane by lane; with a place besides, in the only lane what comes after that."""
    now = db.due_now(txn)
    place: list[Any] = list(asked)[5:]
    after = (int(place[0]), str(place[1])) if place and int(place[0]) <= now else None
    stateful = next(db.states.seen(txn), None) is not None
    lanes, most = _asked(*asked[:4]), int(asked[4])
    yield from _stands(db, txn, worker)
    yield None
    snapshot = _lanes(db, txn, lanes, now, keyed=False)
    yield None
    taken: list[Values] = []
    left = most
    for jobs, count in snapshot:
        beyond = [job for job in jobs if after is None or in_turn(job) > after]
        took, locked = yield from _take(db, txn, worker, beyond, min(count, left))
        taken += took
        left -= locked
    passed, lasted = db.walk(after is None)
    if not taken and not passed:
        return [(None,)]
    places = {lane: place for place, (lane, _) in enumerate(lanes, 1)}
    told = [
        _told(db, txn, job, [places[_of_lane(job)]], whole=job["trace_context"] is not None
              or (stateful and (job["claim_no"] > 1 or job["key"] is not None)))
        for job in taken
    ]  # fmt: skip
    return [(text([passed, lasted, told]),)]


def _take(
    db: Database, txn: Transaction, worker: str, due: Sequence[Values], most: int
) -> Steps[tuple[list[Values], int]]:
    """Lock the first jobs that can be had, and claim them; one that changed after the snapshot is only locked."""
    now = db.due_now(txn)
    taken: list[Values] = []
    locked = 0
    for job in due:
        if locked >= most:
            break
        row = db.jobs.rows.get(job["id"])
        found = None if row is None else (yield from txn.lock(row, "update", skip=True))
        if row is None or found is None or found["worker_id"] is not None or found["parked"]:
            continue
        if found["run_at"] > now or _of_lane(found) != _of_lane(job):
            continue
        locked += 1
        if found is job:
            taken.append(txn.put(row, worker_id=worker, claim_no=job["claim_no"] + 1, claimed_at=db.clock()))
    return taken, locked


def claim_keyed(db: Database, txn: Transaction, worker: str, *asked: Any) -> Steps[_Answer]:
    """Claim due jobs with a concurrency key: of each key as many as its limit leaves room for."""
    now = db.due_now(txn)
    lanes, most, beyond = _asked(*asked[:4]), int(asked[4]), int(asked[5])
    yield from _stands(db, txn, worker)
    yield None
    candidates: list[Values] = []
    for jobs, count in _lanes(db, txn, lanes, now, keyed=True):
        candidates += jobs[: count + beyond]
    candidates = candidates[: most + beyond]
    if not candidates:
        return [(None,)]
    yield None
    names = sorted({_key_of(job) for job in candidates})
    held = yield from _hold_keys(db, txn, names)
    if not held:
        return [(text([None, True, 0]),)]
    yield None
    startable = yield from _startable(db, txn, held, now)
    chosen = _chosen(startable, lanes, most)
    claimed: list[Values] = []
    if chosen:
        yield None
        claimed = _start(db, txn, worker, chosen, held)
    yield None
    in_hand = {_key_of(key) for key in held}
    late = [job for job in candidates if job["id"] not in startable and _key_of(job) in in_hand]
    parked = yield from _park(db, txn, late)
    passed = len(late) - parked
    keys.drop_unused(db, txn, sorted(in_hand))
    again = parked > 0 or bool(chosen) or passed * 2 > beyond or len(in_hand) < len(names)
    told: list[list[object]] = []
    for job in claimed:
        row_told = _told(db, txn, job, (job["job_type"], job["queue"], job["priority"]), whole=True)
        told.append([*row_told[:10], job["concurrency_key"], *row_told[10:]])
    return [(text([told or None, again, passed]),)]


def _hold_keys(db: Database, txn: Transaction, names: Sequence[keys.Name]) -> Steps[list[Values]]:
    """Make the rows of these keys where they are missing, and lock those that can be had."""
    for queue, key in names:
        yield from upsert(txn, db.keys, (queue, key), {"queue": queue, "concurrency_key": key, "running": ()})
    yield None
    held: list[Values] = []
    for name in names:
        row = db.keys.rows.get(name)
        found = None if row is None else (yield from txn.lock(row, "no key update", skip=True))
        if found is not None:
            held.append(found)
    return held


def _start(
    db: Database, txn: Transaction, worker: str, chosen: Sequence[str], held: Sequence[Values]
) -> list[Values]:
    """Claim these jobs, and write them into the rows of their keys."""
    claimed: list[Values] = []
    for id in chosen:
        row = db.jobs.rows[id]
        before = row.seen_by(txn)
        assert before is not None, "it is locked"
        claim_no = before["claim_no"] + 1
        claimed.append(txn.put(row, worker_id=worker, claim_no=claim_no, claimed_at=db.clock(), parked=False))
    for key in held:
        new = tuple(job["id"] for job in claimed if _key_of(job) == _key_of(key))
        if new:
            row = db.keys.rows[_key_of(key)]
            txn.put(row, running=(*(id for id in key["running"] if id not in new), *new))
    return claimed


def _key_of(job: Values) -> tuple[str, str]:
    return job["queue"], job["concurrency_key"]


def _startable(db: Database, txn: Transaction, held: Sequence[Values], now: int) -> Steps[dict[str, Values]]:
    startable: dict[str, Values] = {}
    for key in held:
        line = keys.line(db, txn, key["queue"], key["concurrency_key"], now)
        room = keys.limit(db, txn, key["queue"], key["concurrency_key"], line) - len(key["running"])
        for job in line:
            if room <= 0:
                break
            row = db.jobs.rows[job["id"]]
            found = yield from txn.lock(row, "update", skip=True)
            if found is not None:
                startable[job["id"]] = found
                room -= 1
    return startable


def _chosen(startable: dict[str, Values], lanes: Sequence[tuple[_Lane, int]], most: int) -> list[str]:
    ranked: list[tuple[int, str]] = []
    for lane, count in lanes:
        of_lane = sorted((job for job in startable.values() if _of_lane(job) == lane), key=in_turn)
        ranked += [(rank, job["id"]) for rank, job in enumerate(of_lane[:count])]
    return [id for _, id in sorted(ranked)[:most]]


def _park(db: Database, txn: Transaction, late: Sequence[Values]) -> Steps[int]:
    parked = 0
    for id in sorted(job["id"] for job in late):
        row = db.jobs.rows.get(id)
        seen = None if row is None else row.seen_by(txn)
        if row is None or seen is None or seen["worker_id"] is not None or seen["parked"]:
            continue
        found = yield from txn.lock(row, "update", skip=True)
        if found is not None:
            txn.put(row, parked=True)
            parked += 1
    return parked


def look(
    db: Database, txn: Transaction, worker: str | None, queues: Sequence[str], job_types: Sequence[str]
) -> Steps[_Answer]:
    """Say which lanes have claimable jobs, what cannot have been missed, and how many jobs the worker owns."""
    manual = db.manual.find(txn, True)
    now = db.due_now(txn)
    yield None
    horizon = db.oldest_open
    yield None
    first: dict[tuple[str, str, int, bool], int] = {}
    owned = 0
    for job in db.jobs.seen(txn):
        if job["worker_id"] is not None:
            owned += worker is not None and job["worker_id"] == worker
        elif not job["parked"] and job["queue"] in queues and job["job_type"] in job_types:
            lane = (*_of_lane(job), job["concurrency_key"] is not None)
            first[lane] = min(job["run_at"], first.get(lane, job["run_at"]))
    lanes = [[*lane, at - now] for lane, at in first.items() if manual is None or at <= now]
    return [(text([lanes or None, horizon, owned, *db.walk(True)]),)]


def owned_jobs(db: Database, txn: Transaction, worker: str) -> Steps[_Answer]:
    """Say what a worker owns."""
    yield None
    owned = [job for job in db.jobs.seen(txn) if job["worker_id"] == worker]
    told = [
        [*_told(db, txn, job, (job["job_type"], job["queue"], job["priority"]), whole=False)[:9], None] for job in owned
    ]
    return [(text(told) if told else None,)]


def declare_idle(
    db: Database, txn: Transaction, worker: str, queues: Sequence[str], job_types: Sequence[str]
) -> Steps[_Answer]:
    """Have spawns send hints to this worker."""
    values = {"worker_id": worker, "queues": list(queues), "job_types": list(job_types)}
    yield from upsert(txn, db.idle, worker, values, values)
    return []


def declare_busy(db: Database, txn: Transaction, worker: str) -> Steps[_Answer]:
    """Take a declaration back."""
    row = db.idle.rows.get(worker)
    if row is not None and (yield from txn.lock(row, "update")) is not None:
        txn.delete(row)
    return []


def take_horizon(db: Database, txn: Transaction) -> Steps[_Answer]:
    """Take a transaction number."""
    yield None
    return [(txn.take_number(),)]
