"""The statements whose plans are looked at, each with how much is asked of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

import msgspec
from store.plans.tables import ASKED, STATEMENTS, WORKERS, Tables

from piecework.base.ids import new_id
from piecework.model.lanes import Lane
from piecework.store import claiming
from piecework.store.claiming import Chains
from piecework.store.link import Link
from support.scene import KEYED_LANE, LANE

Kind = Literal["own", "bare", "indexable"]
CHAINED_LANE = Lane("default", "chained", 0, keyed=True)
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
    ways: str = ""
    """The indexes by which it may go into jobs, besides their ids, with blanks between; by the first it has to."""
    asked: int = ASKED
    """For how many jobs."""
    first_row_of: str = ""
    """A table of which it may read what comes before the first row."""
    higher: int = 5
    """How many more pages it may look at for each of them where the indexes are higher: by their height."""

    def statement(self, kind: Kind = "own") -> bytes:
        return re.sub(rb"(\w+_1)\(", rf"{PREFIXES[kind]}\1(".encode(), STATEMENTS.sql(self.statement_name))


class _Sent(Exception):
    """A statement as the store sends it."""


class _Wire:
    """In the place of a worker's connection: nothing is sent."""

    async def value(self, *sent: object) -> object:
        raise _Sent(*sent)


def through(ask: Callable[[Link], Coroutine[object, None, object]]) -> Callable[[Tables], list[object]]:
    """The parameters that a function of the store sends along with its statement."""

    def params(_: Tables) -> list[object]:
        try:
            ask(_Wire()).send(None)  # type: ignore[arg-type]
        except _Sent as sent:
            return list(sent.args[1:])
        raise AssertionError("nothing was sent")

    return params


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
    Call("claim", "claim", through(lambda link: claiming.claim(link, WORKERS["other"], [(LANE, ASKED)], ASKED)),
         ways="jobs_lane"),
    Call("claim from lanes", "claim", through(lambda link: claiming.claim(
        link, WORKERS["other"], [*((Lane("default", "none", n), ASKED) for n in range(19)), (LANE, ASKED)], ASKED)),
        ways="jobs_lane"),
    Call("complete", "settle", settle(lambda t: t.mine, "complete")),
    Call("fail", "settle", settle(lambda t: t.mine, "fail")),
    Call("cancel by its worker", "settle", settle(lambda t: t.mine, "cancel")),
    Call("retry", "settle", settle(lambda t: t.mine, "retry")),
    Call("reschedule", "settle", settle(lambda t: t.mine, "reschedule")),
    Call("release", "settle", settle(lambda t: t.mine, "release")),
    Call("complete again", "settle", settle(lambda t: t.ended, "complete")),
    Call("complete what is lost", "settle", settle(lambda t: t.waiting, "complete"), share=6, higher=10),
    Call("complete in a transaction", "complete", completions, share=10),
    Call("save state", "save_state", saved_state, asked=1),
    Call("rescue", "rescue", lambda t: [WORKERS["dead"], 0, "18 s"], share=7, ways="jobs_owner"),
    Call("rescue with concurrency keys", "rescue",
         lambda t: [WORKERS["dead with keys"], 0, "18 s"], share=24, keyed=True,
         ways="jobs_owner jobs_parked"),
    Call("leave", "leave", lambda t: [WORKERS["gone"]], ways="jobs_owner", asked=1),
    Call("owned", "owned_jobs", lambda t: [WORKERS["dead"]], ways="jobs_owner", higher=1),
    Call("look", "look", through(lambda link: claiming.look(link, WORKERS["dead"], ["default"], ["work"])), asked=1,
         ways="jobs_lane jobs_key_lane jobs_owner"),
    Call("load", "load_jobs", lambda t: [(t.mine[t.some] + t.ended[t.some])[::2], "-infinity"]),
    Call("cancel", "cancel_jobs", lambda t: [t.waiting[t.some]]),
    Call("cancel what runs", "cancel_jobs", lambda t: [t.mine[t.some]], share=6),
    Call("beat with requests", "beat", requested),
    Call("retry by an operator", "retry_jobs", lambda t: [t.ended[t.some], "-infinity"]),
    Call("spawn with chosen ids", "spawn", lambda t: [new_jobs(ASKED, chosen=True)]),
    Call("spawn with keys", "spawn", lambda t: [with_keys(ASKED)], ways="jobs_unique_key"),
    Call("claim of jobs with concurrency keys", "claim_keyed", through(lambda link: claiming.claim_keyed(
        link, WORKERS["other"], [(KEYED_LANE, ASKED)], ASKED)), share=20, keyed=True, higher=10,
        ways="jobs_key_lane jobs_key_order jobs_parked"),
    Call("claim of a chain", "claim_keyed", through(lambda link: claiming.claim_keyed(
        link, WORKERS["other"], [(CHAINED_LANE, 1)], 1, Chains({"chained": ASKED}, ASKED))), keyed=True, higher=10,
        ways="jobs_key_lane jobs_key_order jobs_parked"),
    Call("complete with concurrency keys", "settle_keyed", settle_keyed("complete"), share=20, keyed=True, higher=20,
         ways="jobs_key_order jobs_parked"),
    Call("retry with concurrency keys", "settle_keyed", settle_keyed("retry"), share=20, keyed=True, higher=20,
         ways="jobs_key_order jobs_parked"),
]  # fmt: skip


def as_json(value: object) -> list[object]:
    return [msgspec.json.encode(value).decode()]


def of_run(t: Tables, **fields: object) -> list[object]:
    """A write of a run of the worker `mine`."""
    return as_json({"worker": WORKERS["mine"], "id": str(t.mine[t.some][0]), "claim_no": 3, **fields})


def guard(t: Tables) -> list[object]:
    return as_json({"worker": WORKERS["mine"], "claims": [[str(id), 3] for id in t.mine[t.some]]})


# What has one plan for certain, or no plan that its settings pin: looked at in tables of two sizes alone.
MORE_CALLS = [
    Call("take from a place on", "claim_after", lambda t: [
        WORKERS["other"], ["default"], ["work"], [0], [ASKED], ASKED, *t.place(t.waiting[t.some][0])],
         ways="jobs_lane"),
    Call("spawn one", "spawn", lambda t: [new_jobs(1)], asked=1),
    Call("spawn many", "spawn", lambda t: [new_jobs(ASKED)]),
    Call("spawn with concurrency keys", "spawn", lambda t: [new_jobs(ASKED, concurrency_key="hot")]),
    Call("spawn with one key", "spawn", lambda t: [new_jobs(1, key="new")], ways="jobs_unique_key", asked=1),
    Call("fail with concurrency keys", "settle_keyed", settle_keyed("fail"), higher=20,
         ways="jobs_key_order jobs_parked"),
    Call("reschedule with concurrency keys", "settle_keyed", settle_keyed("reschedule"), higher=20,
         ways="jobs_key_order jobs_parked"),
    Call("release with concurrency keys", "settle_keyed", settle_keyed("release"), higher=20,
         ways="jobs_key_order jobs_parked"),
    Call("declare idle", "declare_idle", lambda t: [WORKERS["mine"], ["default"], ["work"]], asked=1),
    Call("declare busy", "declare_busy", lambda t: [WORKERS["mine"]], asked=1),
    Call("register", "register_worker", lambda t: [
        new_id(), 1, "h", "1 s", "1 s", "1 s", ["default"], ["work"], "0", None], asked=1),
    Call("beat", "beat", lambda t: [WORKERS["mine"], False, ["work"], None], asked=1),
    Call("read clock", "read_clock", lambda t: [], asked=1),
    Call("take a duty", "take_duty", lambda t: [WORKERS["mine"]], asked=1,
         first_row_of="concurrency_keys"),
    Call("take the horizon", "take_horizon", lambda t: [], asked=1),
    Call("report", "report", lambda t: of_run(t, done=0.5), asked=1),
    Call("save state under a key", "save_state", lambda t: of_run(t, state=1, inherits=True), asked=1),
    Call("guard", "guard", guard),
    Call("cancel in a transaction", "cancel_joined", lambda t: as_json([str(id) for id in t.waiting[t.some]])),
    Call("load what is recent", "load_jobs", lambda t: [t.mine[t.some], datetime.now(UTC) - timedelta(hours=1)]),
    Call("load one", "load_jobs", lambda t: [t.mine[t.some][:1], "-infinity"], asked=1),
    Call("find by a key", "find_keyed", lambda t: [["work"], "none"], ways="jobs_unique_key", asked=1),
    Call("explain", "explain", lambda t: [t.waiting[t.some][0]], ways="jobs_key_order", asked=1),
    Call("explain what is parked", "explain", lambda t: t.newest("concurrency_key = 'hot' AND parked"),
         ways="jobs_key_order", asked=1),
    Call("list attempts", "list_attempts", lambda t: [t.ended[t.some][0]], asked=1),
]  # fmt: skip


def new_jobs(count: int, **fields: object) -> str:
    jobs = [{"id": str(new_id()), "job_type": "work", "config": {}, **fields} for _ in range(count)]
    return msgspec.json.encode(jobs).decode()


def with_keys(count: int) -> str:
    jobs = [{"id": str(new_id()), "job_type": "work", "config": {}, "key": f"k{n % 40}"} for n in range(count)]
    return msgspec.json.encode(jobs).decode()
