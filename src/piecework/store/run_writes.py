"""What a run writes of its own claim, each write fenced: what is sent, and what is answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from piecework.model.job import ClaimedJob
from piecework.model.settlement import Settlement
from piecework.store.settling import Answer, detail_of

_encode = msgspec.json.Encoder().encode
_decode_answers = msgspec.json.Decoder(list[tuple[int, Answer]]).decode


class Request(NamedTuple):
    """A call of one of the database's functions with one text parameter."""

    statement: str
    payload: str


def saved_state(worker_id: str, job: ClaimedJob, state: msgspec.Raw, *, inherits: bool) -> Request:
    """Ask to save the execution state of a job; with `inherits` for all jobs with its key, if it has one."""
    return Request("save_state", _text({**_claim(worker_id, job), "state": state, "inherits": inherits}))


def reported_progress(worker_id: str, job: ClaimedJob, done: float, note: str) -> Request:
    """Ask to store how far a job is."""
    return Request("report", _text({**_claim(worker_id, job), "done": done, "note": note}))


def reported_result(worker_id: str, job: ClaimedJob, result: msgspec.Raw | None) -> Request:
    """Ask to store the result of a job so far; None takes it back."""
    return Request("report", _text({**_claim(worker_id, job), "result": result}))


def guarded(worker_id: str, jobs: Sequence[ClaimedJob]) -> Request:
    """Ask that the transaction cannot be committed unless it ends these claims."""
    return Request("guard", _text({"worker": worker_id, "claims": [(job.id, job.claim_no) for job in jobs]}))


def completions(worker_id: str, settlements: Sequence[Settlement], now: float) -> Request:
    """Ask to end claims in the transaction of whoever sends it, however each of them ends.

    Args:
        now: the moment on the clock that the settlements' `started` was read from, seconds.
    """
    claims = [
        (each.job.id, each.job.claim_no, each.move, _age(each.started, now), detail_of(each)) for each in settlements
    ]
    return Request("complete", _text({"worker": worker_id, "claims": claims}))


def answers(text: object, count: int) -> list[Answer]:
    """Return one answer per claim of a request: `landed` (or held), `landed before`, or `lost`."""
    found: list[Answer] = ["landed"] * count
    if text is not None:
        for position, answer in _decode_answers(str(text)):
            found[position - 1] = answer
    return found


def _claim(worker_id: str, job: ClaimedJob) -> dict[str, object]:
    return {"id": job.id, "claim_no": job.claim_no, "worker": worker_id}


def _age(started: float | None, now: float) -> int | None:
    return None if started is None else max(int((now - started) * 1e6), 0)


def _text(payload: dict[str, object]) -> str:
    return _encode(payload).decode()
