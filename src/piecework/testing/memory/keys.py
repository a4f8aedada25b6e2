"""Concurrency keys: their locks, their limits, handing them on, and sweeping what a race has left."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from piecework.testing.memory.database import Database, text, upsert
from piecework.testing.memory.rows import Row, Steps, Transaction, Values

Name = tuple[str, str]


def line(db: Database, txn: Transaction, queue: str, key: str, now: int) -> list[Values]:
    """Return the due jobs of a key that do not run, in their order."""
    return sorted(
        (
            job for job in db.jobs.seen(txn)
            if job["concurrency_key"] == key and job["queue"] == queue and job["worker_id"] is None
            and job["run_at"] <= now
        ),
        key=lambda job: (job["priority"], job["run_at"], job["id"]),
    )  # fmt: skip


def limit(db: Database, txn: Transaction, queue: str, key: str, due: Sequence[Values]) -> int:
    """Return how many jobs of a key may run at once: what operators say, else what the first in line brings along."""
    said = operators_limit(db, txn, queue, key)
    if said is not None:
        return said
    brought = due[0]["concurrency_limit"] if due else None
    return 1 if brought is None else int(brought)


def operators_limit(db: Database, txn: Transaction, queue: str, key: str) -> int | None:
    """Return what operators say of a key; None: nothing."""
    found = [
        row for row in db.limits.seen(txn)
        if row["queue"] in (queue, "")
        and (row["name"] == key or (row["name"].endswith("*") and key.startswith(row["name"][:-1])))
    ]  # fmt: skip
    if not found:
        return None
    best = max(found, key=lambda row: (row["name"] == key, len(row["name"]), row["queue"]))
    return 0 if best["paused"] else best["max_running"]


def lock_all(db: Database, txn: Transaction, names: Iterable[Name]) -> Steps[list[Row]]:
    """Lock the rows of keys, in the one order, and return those that there are."""
    seen = [row for name in sorted(set(names)) if (row := db.keys.rows.get(name)) and row.seen_by(txn) is not None]
    held: list[Row] = []
    for row in seen:
        if (yield from txn.lock(row, "no key update")) is not None:
            held.append(row)
    return held


def free(
    db: Database, txn: Transaction, rows: Iterable[Row], gone: Iterable[str], *, ended: bool
) -> Steps[list[list[object]] | None]:
    """Bring keys in line after jobs have left them; return the lanes into which jobs came back.

    Args:
        rows: locked, and not written since.
        gone: no longer holders, unless they run.
        ended: none of these runs.
    """
    now = db.due_now(txn)
    left = {id for id in gone if ended or (job := db.jobs.find(txn, id)) is None or job["worker_id"] is None}
    parked = {(job["queue"], job["concurrency_key"]) for job in db.jobs.seen(txn) if job["parked"]}
    waited_for: list[tuple[str, str, int]] = []
    for row in rows:
        found = row.seen_by(txn)
        if found is None:
            continue
        staying = tuple(id for id in found["running"] if id not in left)
        name = (found["queue"], found["concurrency_key"])
        if name in parked:
            waited_for.append((*name, len(staying)))
        elif not staying:
            txn.delete(row)
            continue
        if staying != found["running"]:
            txn.put(row, running=staying)
    if not waited_for:
        return None
    yield None
    lanes = yield from _unpark(db, txn, waited_for, now)
    yield None
    if lanes:
        nobody: list[str] = []
        tell_sleepers(db, txn, [text([*lane, nobody, True]) for lane in lanes])
    return lanes or None


def _unpark(
    db: Database, txn: Transaction, waited_for: Sequence[tuple[str, str, int]], now: int
) -> Steps[list[list[object]]]:
    lanes: dict[tuple[str, str, int], None] = {}
    for queue, key, running in waited_for:
        due = line(db, txn, queue, key, now)
        room = limit(db, txn, queue, key, due) - running
        for job in due:
            if room <= 0:
                break
            place = db.jobs.rows[job["id"]]
            found = yield from txn.lock(place, "update", skip=True)
            if found is None:
                continue
            room -= 1
            if found["parked"]:
                txn.put(place, parked=False)
                lanes[found["queue"], found["job_type"], found["priority"]] = None
    return [list(lane) for lane in lanes]


def hint(job: Values) -> str:
    """Return the notice that a job of this lane may be due, to all."""
    nobody: list[str] = []
    return text([job["queue"], job["job_type"], job["priority"], nobody, job["concurrency_key"] is not None])


def tell_sleepers(db: Database, txn: Transaction, notices: Iterable[str]) -> None:
    """Send hints, if anybody is declared idle."""
    if next(db.idle.seen(txn), None) is not None:
        txn.notices.update(dict.fromkeys(notices))


def sweep_keys(db: Database, txn: Transaction) -> Steps[list[tuple[object, ...]]]:
    """Repair what a race, or a transaction of the user's, has left."""
    now = db.due_now(txn)
    yield None
    wrong = sorted(
        (key["queue"], key["concurrency_key"]) for key in db.keys.seen(txn) if _is_wrong(db, txn, key, now)
    )
    count = 0
    for name in wrong:
        row = db.keys.rows.get(name)
        found = None if row is None else (yield from txn.lock(row, "no key update", skip=True))
        if row is not None and found is not None:
            yield from free(db, txn, [row], found["running"], ended=False)
            count += 1
    return [(count,)]


def _is_wrong(db: Database, txn: Transaction, key: Values, now: int) -> bool:
    running = [db.jobs.find(txn, id) for id in key["running"]]
    if not running or any(job is None or job["worker_id"] is None for job in running):
        return True
    due = line(db, txn, key["queue"], key["concurrency_key"], now)
    room = limit(db, txn, key["queue"], key["concurrency_key"], due) - len(running)
    return any(job["parked"] for job in due[: max(room, 0)])


def set_limit(db: Database, txn: Transaction, said: str) -> Steps[list[tuple[object, ...]]]:
    """Say how many jobs of a key may run at once."""
    given = json.loads(said)
    name, queue = given["name"], given.get("queue") or ""
    new = {"queue": queue, "name": name, "max_running": given.get("max_running"), "paused": bool(given.get("paused"))}
    changes = {field: new[field] for field in ("max_running", "paused") if field in given}
    yield from upsert(txn, db.limits, (queue, name), new, changes)
    row = db.limits.rows[queue, name]
    found = row.seen_by(txn)
    if found is not None and found["max_running"] is None and not found["paused"]:
        txn.delete(row)
    yield None
    names = [
        (key["queue"], key["concurrency_key"]) for key in db.keys.seen(txn)
        if queue in (key["queue"], "")
        and (key["concurrency_key"] == name or (name.endswith("*") and key["concurrency_key"].startswith(name[:-1])))
    ]  # fmt: skip
    if names:
        rows = yield from lock_all(db, txn, names)
        yield None
        yield from free(db, txn, rows, (), ended=True)
    return [(None,)]


def list_limits(db: Database, txn: Transaction) -> Steps[list[tuple[object, ...]]]:
    """Say what operators said."""
    yield None
    return sorted((row["name"], row["queue"], row["max_running"], row["paused"]) for row in db.limits.seen(txn))
