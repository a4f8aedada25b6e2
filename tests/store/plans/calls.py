"""The statements whose plans are looked at, each with how much is asked of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import msgspec
from store.plans.tables import ASKED, STATEMENTS, WORKERS, Tables

from piecework.base.ids import new_id

Kind = Literal["own", "bare", "indexable"]
PREFIXES: dict[Kind, str] = {"own": "", "bare": "bare_", "indexable": "indexable_"}


@dataclass(frozen=True)
class Call:
    """A statement with how much is asked of it."""

    name: str
    statement_name: str
    params: Callable[[Tables], list[object]]
    share: int = 5
    """How many index entries it may touch for each job that it is asked for."""
    keyed: bool = False
    """Whether it is about jobs with concurrency keys."""

    def statement(self, kind: Kind = "own") -> bytes:
        return re.sub(rb"(\w+_1)\(", rf"{PREFIXES[kind]}\1(".encode(), STATEMENTS.sql(self.statement_name))


DETAILS = "[" + ", ".join(['{"attempt": 2, "failures": 1, "crashes": 0, "delay": 0}'] * ASKED) + "]"
GOES_ON = ("retry", "reschedule", "release")


def completions(t: Tables) -> list[object]:
    claims = [(str(id), 3, "complete", 1, None) for id in t.mine[t.some]]
    return [msgspec.json.encode({"worker": WORKERS["mine"], "claims": claims}).decode()]


def saved_state(t: Tables) -> list[object]:
    save = {"worker": WORKERS["mine"], "id": str(t.mine[t.some][0]), "claim_no": 3, "state": 1, "inherits": False}
    return [msgspec.json.encode(save).decode()]


def settle(ids: Callable[[Tables], list[UUID]], move: str) -> Callable[[Tables], list[object]]:
    return lambda t: [
        WORKERS["mine"], ids(t)[t.some], [3] * ASKED, [move] * ASKED, [1] * ASKED,
        DETAILS if move in GOES_ON else None,
    ]  # fmt: skip


def settle_keyed(move: str) -> Callable[[Tables], list[object]]:
    def params(t: Tables) -> list[object]:
        ids = t.keyed[t.some]
        query = "SELECT id, concurrency_key FROM piecework.jobs WHERE id = ANY ($1)"
        keys = dict(t.session.execute(query, [ids]).fetchall())
        _, *params = settle(lambda t: t.keyed, move)(t)
        return [WORKERS["keyed"], *params, ["default"] * ASKED, [keys.get(id, "k") for id in ids]]

    return params


def requested(t: Tables) -> list[object]:
    insert = "INSERT INTO piecework.cancel_requests (job_id, claim_no) SELECT u, 3 FROM unnest($1::uuid[]) AS u"
    t.session.execute(insert, [t.mine[t.some]])
    return [WORKERS["mine"], False, ["work"], None]


CALLS = [
    Call("claim", "claim", lambda t: [WORKERS["other"], ["default"], ["work"], [0], [ASKED], ASKED]),
    Call("claim from lanes", "claim", lambda t: [
        WORKERS["other"], ["default"] * 20, ["none"] * 19 + ["work"], [*range(19), 0], [ASKED] * 20, ASKED]),
    Call("complete", "settle", settle(lambda t: t.mine, "complete")),
    Call("fail", "settle", settle(lambda t: t.mine, "fail")),
    Call("cancel by its worker", "settle", settle(lambda t: t.mine, "cancel")),
    Call("retry", "settle", settle(lambda t: t.mine, "retry")),
    Call("reschedule", "settle", settle(lambda t: t.mine, "reschedule")),
    Call("release", "settle", settle(lambda t: t.mine, "release")),
    Call("complete again", "settle", settle(lambda t: t.ended, "complete")),
    Call("complete what is lost", "settle", settle(lambda t: t.waiting, "complete"), share=6),
    Call("complete in a transaction", "complete", completions, share=10),
    Call("save state", "save_state", saved_state),
    Call("rescue", "rescue", lambda t: [WORKERS["dead"], 0, "18 s"], share=7),
    Call("rescue with concurrency keys", "rescue",
         lambda t: [WORKERS["dead with keys"], 0, "18 s"], share=24, keyed=True),
    Call("leave", "leave", lambda t: [WORKERS["gone"]]),
    Call("owned", "owned_jobs", lambda t: [WORKERS["dead"]]),
    Call("look", "look", lambda t: [WORKERS["dead"], ["default"], ["work"]]),
    Call("load", "load_jobs", lambda t: [(t.mine[t.some] + t.ended[t.some])[::2], "-infinity"]),
    Call("cancel", "cancel_jobs", lambda t: [t.waiting[t.some]]),
    Call("cancel what runs", "cancel_jobs", lambda t: [t.mine[t.some]], share=6),
    Call("beat with requests", "beat", requested),
    Call("retry by an operator", "retry_jobs", lambda t: [t.ended[t.some], "-infinity"]),
    Call("spawn with chosen ids", "spawn", lambda t: [new_jobs(ASKED, chosen=True)]),
    Call("spawn with keys", "spawn", lambda t: [with_keys(ASKED)]),
    Call("claim of jobs with concurrency keys", "claim_keyed",
         lambda t: [WORKERS["other"], ["default"], ["work"], [0], [ASKED], [1], ASKED, 0, 0], share=20, keyed=True),
    Call("complete with concurrency keys", "settle_keyed", settle_keyed("complete"), share=20, keyed=True),
    Call("retry with concurrency keys", "settle_keyed", settle_keyed("retry"), share=20, keyed=True),
]  # fmt: skip


def new_jobs(count: int, **fields: object) -> str:
    jobs = [{"id": str(new_id()), "job_type": "work", "config": {}, **fields} for _ in range(count)]
    return msgspec.json.encode(jobs).decode()


def with_keys(count: int) -> str:
    jobs = [{"id": str(new_id()), "job_type": "work", "config": {}, "key": f"k{n % 40}"} for n in range(count)]
    return msgspec.json.encode(jobs).decode()
