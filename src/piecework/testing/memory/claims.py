"""Looking for work and claiming it: what `claim_1`, `claim_keyed_1`, `look_1` and `owned_1` do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg

from piecework.testing.memory.database import Database, following, text, upsert
from piecework.testing.memory.rows import Steps, Transaction, Values

LaneName = tuple[str, str, int]
_Answer = list[tuple[object, ...]]
Allotment = list[tuple[LaneName, int]]


def of_lane(job: Values) -> LaneName:
    """Return the lane of a job."""
    return job["queue"], job["job_type"], job["priority"]


def in_turn(job: Values) -> tuple[int, str]:
    """The order within a lane."""
    return job["run_at"], job["id"]


def told_of(db: Database, txn: Transaction, job: Values, kind: Sequence[object], *, whole: bool) -> list[object]:
    """Return a job as a claim tells it; `whole`: with what few jobs have."""
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


def stands(db: Database, txn: Transaction, worker: str) -> Steps[None]:
    """Hold the row of a worker that may claim.

    Raises:
        psycopg.errors.NoDataFound: it may not.
    """
    row = db.workers.rows.get(worker)
    found = None
    if row is not None and row.committed is not None and row.committed["given_up_at"] is None:
        found = yield from txn.lock(row, "key share")
    if found is None or found["given_up_at"] is not None:
        raise psycopg.errors.NoDataFound(f"worker {worker} was given up for dead")


def lanes_of(
    db: Database, txn: Transaction, lanes: Sequence[tuple[LaneName, int]], now: int, *, keyed: bool
) -> list[tuple[list[Values], int]]:
    """Return the due jobs of each lane in their order, and how many are asked for."""
    found: defaultdict[LaneName, list[Values]] = defaultdict(list)
    for job in db.jobs.seen(txn):
        if (
            job["worker_id"] is None and not job["parked"] and job["run_at"] <= now
            and (job["concurrency_key"] is not None) is keyed
        ):  # fmt: skip
            found[of_lane(job)].append(job)
    return [(sorted(found.get(lane, ()), key=in_turn), count) for lane, count in lanes]


def allotment(
    queues: Sequence[str], job_types: Sequence[str], priorities: Sequence[int], counts: Sequence[int]
) -> Allotment:
    """Return lanes, and how many jobs are asked of each, from four arrays."""
    return list(zip(zip(queues, job_types, priorities, strict=True), counts, strict=True))


def claim(db: Database, txn: Transaction, worker: str, *asked: Any) -> Steps[_Answer]:
    """Claim due jobs lane by lane; with a place besides, in the only lane what comes after that."""
    now = db.due_now(txn)
    place: list[Any] = list(asked)[5:]
    after = (int(place[0]), str(place[1])) if place and int(place[0]) <= now else None
    stateful = next(db.states.seen(txn), None) is not None
    lanes, most = allotment(*asked[:4]), int(asked[4])
    yield from stands(db, txn, worker)
    yield None
    snapshot = lanes_of(db, txn, lanes, now, keyed=False)
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
        told_of(db, txn, job, [places[of_lane(job)]], whole=job["trace_context"] is not None
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
        if found["run_at"] > now or of_lane(found) != of_lane(job):
            continue
        locked += 1
        if found is job:
            taken.append(txn.put(row, worker_id=worker, claim_no=following(job["claim_no"]), claimed_at=db.clock()))
    return taken, locked


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
            lane = (*of_lane(job), job["concurrency_key"] is not None)
            first[lane] = min(job["run_at"], first.get(lane, job["run_at"]))
    lanes = [[*lane, at - now] for lane, at in first.items() if manual is None or at <= now]
    return [(text([lanes or None, horizon, owned, *db.walk(True)]),)]


def owned_jobs(db: Database, txn: Transaction, worker: str) -> Steps[_Answer]:
    """Say what a worker owns."""
    yield None
    owned = [job for job in db.jobs.seen(txn) if job["worker_id"] == worker]
    told = [
        [*told_of(db, txn, job, (job["job_type"], job["queue"], job["priority"]), whole=False)[:9], None]
        for job in owned
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
