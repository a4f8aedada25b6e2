"""Settling: what `settle_1`, `settle_keyed_1`, `guard_1` and `complete_1` do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg

from piecework.testing.memory import cancels, keys
from piecework.testing.memory.database import Database, array, refuse_nul, text
from piecework.testing.memory.rows import Steps, Transaction, Values

_ENDS = {"complete": "completed", "fail": "errored", "cancel": "cancelled"}
_CLAIM = tuple[str, int, str, int | None, "_Detail | None", int]
_Claimed = Sequence[tuple[str, int, str, int | None, "_Detail | None"]]


_ABSENT = msgspec.Raw()


class _Detail(msgspec.Struct):
    attempt: int
    failures: int
    crashes: int
    delay: int | None = None
    run_at: int | None = None
    result: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT


class _Claims(msgspec.Struct):
    worker: str
    claims: list[tuple[str, int, str, int | None, _Detail | None]]


class _Guard(msgspec.Struct):
    worker: str
    claims: list[tuple[str, int]]


_details = msgspec.json.Decoder(list[_Detail | None]).decode
_claims = msgspec.json.Decoder(_Claims).decode
_guard = msgspec.json.Decoder(_Guard).decode


def _raw(value: msgspec.Raw) -> bytes | None:
    return bytes(value) or None


def fenced(job: Values | None, claim_no: int, worker: str) -> bool:
    """Whether this claim holds the job."""
    return job is not None and job["claim_no"] == claim_no and fenced_by(job, worker)


def fenced_by(job: Values | None, worker: str) -> bool:
    """Whether this worker holds the job."""
    return job is not None and job["worker_id"] == worker


def settle(db: Database, txn: Transaction, worker: str, *told: Any) -> Steps[list[tuple[object, ...]]]:
    """Write how claims ended, each fenced."""
    answer = yield from _settle(db, txn, worker, _told(*told))
    return [(answer,)]


def _told(ids: object, claim_nos: object, moves: object, ages: object, details: str | None) -> _Claimed:
    refuse_nul(details)
    named = array(ids)
    decoded = [None] * len(named) if details is None else _details(details)
    return [
        (str(id), int(str(claim_no)), str(move), None if age is None else int(age), detail)
        for id, claim_no, move, age, detail in zip(
            named, array(claim_nos), array(moves), array(ages), decoded, strict=True
        )
    ]


def _settle(db: Database, txn: Transaction, worker: str, claims: _Claimed) -> Steps[str | None]:
    now = db.clock()
    due = db.due_now(txn)
    asked = {request["job_id"] for request in db.cancels.seen(txn)}
    numbered: list[_CLAIM] = [
        (id, claim_no, "cancel" if move == "fail" and id in asked else move, age, detail, position)
        for position, (id, claim_no, move, age, detail) in enumerate(claims, 1)
    ]
    yield None
    landed: list[int] = []
    completed = [claim for claim in numbered if claim[2] == "complete"]
    if completed and (yield from _complete_all(db, txn, worker, completed, now)):
        landed += [claim[5] for claim in completed]
    left = [claim for claim in numbered if claim[2] in _ENDS and claim[5] not in landed]
    if left:
        landed += yield from _end(db, txn, worker, left, now)
    if landed:
        yield None
        _forget(db, txn, [claims[position - 1][0] for position in landed], now)
    if any(claim[2] not in _ENDS for claim in numbered):
        for claim in sorted((each for each in numbered if each[2] not in _ENDS), key=lambda each: each[0]):
            yield None
            if (yield from _go_on(db, txn, worker, claim, now, due)):
                landed.append(claim[5])
    yield None
    if landed:
        settled = {claims[position - 1][0] for position in landed}
        requested = sorted(r["job_id"] for r in db.cancels.seen(txn) if r["job_id"] in settled)
        if requested:
            yield from cancels.cancel(db, txn, requested, joined=True)
    if len(landed) == len(claims):
        return None
    yield None
    return text([
        [position, _became(db, txn, id, claim_no, worker)]
        for id, claim_no, _, _, _, position in numbered if position not in landed
    ])  # fmt: skip


def _became(db: Database, txn: Transaction, id: str, claim_no: int, worker: str) -> str:
    if fenced(db.jobs.find(txn, id), claim_no, worker):
        return "locked"
    if any(fenced(row, claim_no, worker) for row in db.finished.alike(txn, id)):
        return "landed before"
    if any(fenced(row, claim_no, worker) and row["move"] != "rescue" for row in db.attempts.alike(txn, id)):
        return "landed before"
    return "lost"


def _complete_all(db: Database, txn: Transaction, worker: str, claims: Sequence[_CLAIM], now: int) -> Steps[bool]:
    """Complete all of these claims, or none; wait for nobody but for a moment."""
    ids = {claim[0] for claim in claims}
    found = {id: row for id in ids if (row := db.jobs.rows.get(id)) and fenced_by(row.seen_by(txn), worker)}
    yield None
    before, txn.lock_timeout = txn.lock_timeout, 0.02
    try:
        for id in sorted(found):
            job = yield from txn.lock(found[id], "update")
            if not fenced_by(job, worker):
                return False
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        return False
    finally:
        txn.lock_timeout = before
    if len(found) < len(claims) or not all(
        fenced(found[claim[0]].seen_by(txn), claim[1], worker) for claim in claims
    ):
        return False
    for claim in claims:
        _write_end(db, txn, worker, claim, now)
    return True


def _end(db: Database, txn: Transaction, worker: str, claims: Sequence[_CLAIM], now: int) -> Steps[list[int]]:
    first: dict[str, _CLAIM] = {}
    for claim in claims:
        first.setdefault(claim[0], claim)
    snapshot = [
        (claim, row) for id, claim in sorted(first.items())
        if (row := db.jobs.rows.get(id)) is not None and fenced(row.seen_by(txn), claim[1], worker)
    ]  # fmt: skip
    yield None
    landed: list[int] = []
    for claim, row in snapshot:
        job = yield from txn.lock(row, "update", skip=True)
        if job is not None and fenced(job, claim[1], worker):
            landed.append(claim[5])
            _write_end(db, txn, worker, claim, now)
    return landed


def _write_end(db: Database, txn: Transaction, worker: str, claim: _CLAIM, now: int) -> None:
    id, claim_no, move, age, detail, _ = claim
    row = db.jobs.rows[id]
    job = row.seen_by(txn)
    assert job is not None, "it is locked"
    txn.delete(row)
    completes = move == "complete"
    started = None if age is None else now - age
    attempt = job["attempt"] if detail is None else detail.attempt
    db.append(txn, db.finished, id, {
        **job, "started_at": started, "finished_at": now, "status": _ENDS[move], "attempt": attempt,
        "failures": job["failures"] if completes or detail is None else detail.failures,
        "result": None if detail is None else _raw(detail.result),
        "error": _raw(detail.error) if detail is not None and move == "fail" else None,
    })  # fmt: skip
    if not completes:
        db.append(txn, db.attempts, id, {
            "job_id": id, "claim_no": claim_no, "worker_id": worker, "attempt": attempt, "move": move,
            "started_at": started, "ended_at": now, "error": None if detail is None else _raw(detail.error),
            "next_run_at": None,
        })  # fmt: skip


def _forget(db: Database, txn: Transaction, ids: Sequence[str], now: int) -> None:
    for id in ids:
        reported = db.progress.rows.get(id)
        found = None if reported is None else reported.seen_by(txn)
        if reported is not None and found is not None:
            txn.delete(reported)
            for key, row in list(db.finished.rows.items()):
                ended = row.seen_by(txn)
                if isinstance(key, tuple) and ended is not None and ended["id"] == id and ended["finished_at"] == now:
                    if ended["result"] is None and found["result"] is not None:
                        txn.put(row, result=found["result"])
        state = db.states.rows.get(("job", id))
        if state is not None and state.seen_by(txn) is not None:
            txn.delete(state)


def _go_on(db: Database, txn: Transaction, worker: str, claim: _CLAIM, now: int, due: int) -> Steps[bool]:
    id, claim_no, move, age, detail, _ = claim
    assert detail is not None, "what goes on says how"
    row = db.jobs.rows.get(id)
    if row is None or not fenced(row.seen_by(txn), claim_no, worker):
        return False
    job = yield from txn.lock(row, "update", skip=True)
    if job is None:
        return False
    if detail.run_at is not None:
        run_at = detail.run_at
    else:
        run_at = job["run_at"] if detail.delay is None else due + detail.delay
    txn.put(
        row, worker_id=None, claimed_at=None, parked=False, run_at=run_at, attempt=detail.attempt,
        failures=detail.failures, crashes=detail.crashes,
    )  # fmt: skip
    db.append(txn, db.attempts, id, {
        "job_id": id, "claim_no": claim_no, "worker_id": worker, "attempt": job["attempt"], "move": move,
        "started_at": None if age is None else now - age, "ended_at": now, "error": _raw(detail.error),
        "next_run_at": run_at,
    })  # fmt: skip
    yield None
    keys.tell_sleepers(db, txn, [keys.hint(job)])
    return True


def settle_keyed(db: Database, txn: Transaction, worker: str, *told: Any) -> Steps[list[tuple[object, ...]]]:
    """Settle jobs with a concurrency key under the locks of the keys, and hand the keys on."""
    queues, names = told[5:]
    rows = yield from keys.lock_all(db, txn, zip(queues, names, strict=True))
    yield None
    [[answers]] = yield from settle(db, txn, worker, *told[:5])
    yield None
    lanes = yield from keys.free(
        db, txn, rows, [str(id) for id in array(told[0])], ended=answers is None
    )  # fmt: skip
    return [(text([None if answers is None else msgspec.Raw(str(answers).encode()), lanes]),)]


def guard(db: Database, txn: Transaction, asked: str) -> Steps[list[tuple[object, ...]]]:
    """Let the transaction be committed only if it ends these claims."""
    given = _guard(asked)
    yield None
    txn.at_commit.append(lambda txn: _check(db, txn, given.worker, given.claims))
    lost = [
        [position, "lost"] for position, (id, claim_no) in enumerate(given.claims, 1)
        if not fenced(db.jobs.find(txn, id), claim_no, given.worker)
    ]  # fmt: skip
    return [(text(lost) if lost else None,)]


def _check(db: Database, txn: Transaction, worker: str, claims: Sequence[tuple[str, int]]) -> None:
    for id, claim_no in claims:
        if _became(db, txn, id, claim_no, worker) != "landed before":
            raise _Refused(f"the completion of job {id} is not in this transaction: its claim {claim_no} was lost, or "
                           "the completion was rolled back to a savepoint")


class _Refused(psycopg.errors.RaiseException):
    sqlstate = "PW001"


def complete(db: Database, txn: Transaction, asked: str) -> Steps[list[tuple[object, ...]]]:
    """End claims in the transaction of whoever calls."""
    refuse_nul(asked)
    given = _claims(asked)
    yield from guard(db, txn, text({"worker": given.worker, "claims": [claim[:2] for claim in given.claims]}))
    for id, claim_no in sorted(claim[:2] for claim in given.claims):
        row = db.jobs.rows.get(id)
        if row is not None and fenced(row.seen_by(txn), claim_no, given.worker):
            yield from txn.lock(row, "update")
    answer = yield from _settle(db, txn, given.worker, given.claims)
    return [(answer,)]
