"""Claiming jobs with concurrency keys, alone or in chains: what `claim_keyed_1` does, in the same steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from piecework.testing.memory import keys
from piecework.testing.memory.claims import Allotment, allotment, in_turn, lanes_of, of_lane, stands, told_of
from piecework.testing.memory.database import Database, following, text
from piecework.testing.memory.rows import Row, Steps, Transaction, Values

_FEW = 25


class _Asked(NamedTuple):
    lanes: Allotment
    chains: list[int]
    most: int
    chained: int
    beyond: int


class _Held(NamedTuple):
    """A key in hand."""

    row: Row
    name: keys.Name
    running: int
    guess: str | None
    """The job that its row was made for."""


class _Taken(NamedTuple):
    job: Values
    key: int
    """The place of its key among those in hand."""
    places: int | None
    """How many of the key may run at once; None: it waits for others of its chain."""


def claim_keyed(db: Database, txn: Transaction, worker: str, *params: Any) -> Steps[list[tuple[object, ...]]]:
    """Claim due jobs with a concurrency key: of each as many as its limit leaves room for, and those behind them."""
    now = db.due_now(txn)
    stateful = next(db.states.seen(txn), None) is not None
    asked = _Asked(allotment(*params[:4]), [int(chain) for chain in params[4]], *map(int, params[5:]))
    yield from stands(db, txn, worker)
    yield None
    candidates = _candidates(db, txn, asked, now)
    if not candidates:
        return [(None,)]
    yield None
    held, more = yield from _hold(db, txn, candidates, asked)
    if not held:
        return [(text([None, True, 0, None]),)]
    yield None
    startable = yield from _startable(db, txn, held, now)
    taken = _taken(startable, asked)
    behind: list[_Taken] = []
    if asked.chained > 0 and max(asked.chains) > 1 and taken:
        yield None
        behind = yield from _behind(db, txn, asked, held, taken, more, now)
    taken += behind
    claimed: list[Values] = []
    if taken:
        yield None
        claimed = _claim(db, txn, worker, held, taken)
    yield None
    late: list[Values] = []
    if len(behind) * 20 < len(candidates):
        kept, in_hand = {each.job["id"] for each in (*startable, *taken)}, {key.name for key in held}
        late = [job for job in candidates if job["id"] not in kept and _name(job) in in_hand]
    parked = yield from _park(db, txn, late)
    passed = len(late) - parked
    yield None
    used = {each.key for each in taken}
    idle = [key for number, key in enumerate(held) if key.running == 0 and number not in used]
    guesses = [key.guess for key in idle if key.guess is not None]
    yield from keys.free(db, txn, [key.row for key in idle], guesses, ended=True)
    again = parked > 0 or bool(taken) or passed * 2 > asked.beyond or len(held) < len({_name(j) for j in candidates})
    told = [_told(db, txn, job, stateful=stateful) for job in claimed]
    return [(text([told or None, again, passed, _places(held, taken) or None]),)]


def _told(db: Database, txn: Transaction, job: Values, *, stateful: bool) -> list[object]:
    whole = job["trace_context"] is not None or (stateful and (job["claim_no"] > 1 or job["key"] is not None))
    told = told_of(db, txn, job, (job["job_type"], job["queue"], job["priority"]), whole=whole)
    return [*told[:10], job["concurrency_key"], *told[10:]]


def _name(job: Values) -> keys.Name:
    return job["queue"], job["concurrency_key"]


def _candidates(db: Database, txn: Transaction, asked: _Asked, now: int) -> list[Values]:
    most = max(asked.most, asked.chained)
    candidates: list[Values] = []
    found = lanes_of(db, txn, asked.lanes, now, keyed=True)
    for (jobs, count), chain in zip(found, asked.chains, strict=True):
        candidates += jobs[: min(count * chain, most) + asked.beyond]
    return candidates[: most + asked.beyond]


def _wanted(
    db: Database, txn: Transaction, candidates: Sequence[Values], asked: _Asked
) -> tuple[dict[keys.Name, str], set[str]]:
    """Return the first candidate of each key that is wanted, and of which of these there are more."""
    many = asked.chained > 0 and asked.most < len(candidates)
    of_key: dict[keys.Name, list[str]] = {}
    for job in candidates:
        of_key.setdefault(_name(job), []).append(job["id"])
    busy = {name for name in of_key if many and (key := db.keys.find(txn, name)) is not None and key["running"]}
    free = sum(len(ids) for name, ids in of_key.items() if name not in busy)
    wanted: dict[keys.Name, str] = {}
    more: set[str] = set()
    rank = 0
    for name, ids in of_key.items():
        rank += name not in busy
        if (free * 4 < len(candidates)) if name in busy else (not many or rank <= asked.most):
            wanted[name] = ids[0]
            if len(ids) > 1:
                more.add(ids[0])
    return wanted, more


def _hold(
    db: Database, txn: Transaction, candidates: Sequence[Values], asked: _Asked
) -> Steps[tuple[list[_Held], set[str]]]:
    wanted, more = _wanted(db, txn, candidates, asked)
    yield None
    made: list[_Held] = []
    others: list[keys.Name] = []
    for name in sorted(wanted):
        queue, key = name
        values = {"queue": queue, "concurrency_key": key, "running": (wanted[name],)}
        row = yield from txn.insert(db.keys, name, values)
        if row is None:
            others.append(name)
        else:
            made.append(_Held(row, name, 0, wanted[name]))
    yield None
    held: list[_Held] = []
    for name in others:
        row = db.keys.rows.get(name)
        found = None if row is None else (yield from txn.lock(row, "no key update", skip=True))
        if row is not None and found is not None:
            held.append(_Held(row, name, len(found["running"]), None))
    return made + held, more


def _startable(db: Database, txn: Transaction, held: Sequence[_Held], now: int) -> Steps[list[_Taken]]:
    startable: list[_Taken] = []
    for number, key in enumerate(held):
        line = keys.line(db, txn, *key.name, now)
        places = room = max(keys.limit(db, txn, *key.name, line) - key.running, 0)
        for job in line:
            if room <= 0:
                break
            found = yield from txn.lock(db.jobs.rows[job["id"]], "update", skip=True)
            if found is not None:
                startable.append(_Taken(found, number, places))
                room -= 1
    return startable


def _taken(startable: Sequence[_Taken], asked: _Asked) -> list[_Taken]:
    ranked: list[tuple[int, str, _Taken]] = []
    for lane, count in asked.lanes:
        of = sorted((each for each in startable if of_lane(each.job) == lane), key=lambda each: in_turn(each.job))
        ranked += [(rank, each.job["id"], each) for rank, each in enumerate(of[:count])]
    return [each for _, _, each in sorted(ranked, key=lambda each: each[:2])[: asked.most]]


def _behind(
    db: Database, txn: Transaction, asked: _Asked, held: Sequence[_Held], taken: Sequence[_Taken], more: set[str],
    now: int,
) -> Steps[list[_Taken]]:  # fmt: skip
    """Take what stands right behind the jobs that were taken, for the same worker to run after them."""
    chains = {lane: chain for (lane, _), chain in zip(asked.lanes, asked.chains, strict=True)}
    of_key: dict[int, list[_Taken]] = {}
    for position, each in enumerate(taken):
        key = held[each.key]
        if key.running == 0 and (position < _FEW or key.guess is None or key.guess in more):
            of_key.setdefault(each.key, []).append(each)
    found: list[tuple[_Taken, bool]] = []
    for number, heads in of_key.items():
        if not _may_lead(heads):
            continue
        last = max((each.job for each in heads), key=in_turn)
        room = chains[of_lane(last)] - len(heads)
        for job in keys.line(db, txn, *held[number].name, now):
            if room <= 0 or len(found) >= asked.chained:
                break
            if job["priority"] != last["priority"] or in_turn(job) <= in_turn(last):
                continue
            locked = yield from txn.lock(db.jobs.rows[job["id"]], "update", skip=True)
            if locked is not None:
                room -= 1
                found.append((_Taken(locked, number, None), _kind(locked) == _kind(last)))
    return [
        each for number in of_key
        for each, _ in takewhile(lambda pair: pair[1], [pair for pair in found if pair[0].key == number])
    ]  # fmt: skip


def _kind(job: Values) -> tuple[object, ...]:
    """What the jobs of a chain have in common."""
    most = 1 if job["concurrency_limit"] is None else job["concurrency_limit"]
    return job["job_type"], job["priority"], most, job["crashes"] == 0


def _may_lead(heads: Sequence[_Taken]) -> bool:
    kinds = {_kind(each.job) for each in heads}
    return len(heads) == heads[0].places and len(kinds) == 1 and heads[0].job["crashes"] == 0


def _claim(
    db: Database, txn: Transaction, worker: str, held: Sequence[_Held], taken: Sequence[_Taken]
) -> list[Values]:
    claimed: list[Values] = []
    for job, _, _ in taken:
        claim_no = following(job["claim_no"])
        row = db.jobs.rows[job["id"]]
        claimed.append(txn.put(row, worker_id=worker, claim_no=claim_no, claimed_at=db.clock(), parked=False))
    for number, key in enumerate(held):
        new = tuple(each.job["id"] for each in taken if each.key == number)
        before = key.row.seen_by(txn)
        if new and before is not None and before["running"] != new:
            staying = (id for id in before["running"] if id not in new and id != key.guess)
            txn.put(key.row, running=(*staying, *new))
    return claimed


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


def _places(held: Sequence[_Held], taken: Sequence[_Taken]) -> list[list[object]]:
    found: list[list[object]] = []
    for number, key in enumerate(held):
        of_key = [each for each in taken if each.key == number]
        places = min((each.places for each in of_key if each.places is not None), default=0)
        if places > 1 and len(of_key) > 1:
            found.append([*key.name, places])
    return found
