"""Settling: writing how attempts ended, many at once, each fenced."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

import msgspec
import psycopg

from piecework.model.lanes import Lane
from piecework.model.settlement import Settlement
from piecework.model.snapshot import ErrorInfo
from piecework.store.connection import LIMIT_ERRORS
from piecework.store.link import Link

Answer: TypeAlias = Literal["landed", "landed before", "locked", "lost"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# PostgreSQL adds microseconds in floating point: datetime.max would become the year 10000, which no driver reads.
_LATEST = datetime(9999, 12, 31, tzinfo=UTC)
_DAYS_AHEAD = 7
_LONGEST = timedelta(days=36_500)
_decode = msgspec.json.Decoder(list[tuple[int, Answer]]).decode
_decode_keyed = msgspec.json.Decoder(
    tuple[list[tuple[int, Answer]] | None, list[tuple[str, str, int]] | None]
).decode
_encode = msgspec.json.Encoder().encode


class _Detail(msgspec.Struct, omit_defaults=True):
    attempt: int
    failures: int
    crashes: int
    delay: int | None = None
    run_at: int | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: ErrorInfo | None = None


async def settle(
    link: Link, worker_id: str, settlements: Sequence[Settlement], now: float
) -> tuple[list[Answer], list[Lane]]:
    """Write the settlements in one call; the same ones may be sent again after a lost answer.

    The jobs of all of them have a concurrency key, or none has.

    Args:
        now: the moment on the clock that the settlements' `started` was read from, seconds.

    Returns:
        One answer per settlement: `landed`; `landed before`, by an earlier sending; `locked`, an open transaction holds
        the job's row, so send it again; `lost`, the claim is another's or nobody's now, and nothing was changed. And
        the lanes into which jobs came back that had waited for a key.

    Raises:
        DatabaseUnreachable: whether it landed is unknown.
        psycopg.DataError: a value is refused by the database; nothing landed.
    """
    ids = "{" + ",".join([s.job.id for s in settlements]) + "}"
    claim_nos = "{" + ",".join([str(s.job.claim_no) for s in settlements]) + "}"
    moves = "{" + ",".join([s.move for s in settlements]) + "}"
    ages = (
        "{" + ",".join(["null" if s.started is None else str(int((now - s.started) * 1e6)) for s in settlements]) + "}"
    )
    details = [detail_of(s) for s in settlements]
    text = None if not any(details) else _encode(details).decode()
    params = worker_id, ids, claim_nos, moves, ages, text
    try:
        try:
            answered, lanes = await _send(link, settlements, params)
        except psycopg.errors.CheckViolation as error:
            if "no partition" not in str(error):
                raise
            await link.value("add_partitions", _DAYS_AHEAD)
            answered, lanes = await _send(link, settlements, params)
    except LIMIT_ERRORS as error:
        raise psycopg.DataError(str(error)) from error
    answers: list[Answer] = ["landed"] * len(settlements)
    for position, word in answered:
        answers[position - 1] = word
    return answers, lanes


async def _send(
    link: Link, settlements: Sequence[Settlement], params: tuple[object, ...]
) -> tuple[list[tuple[int, Answer]], list[Lane]]:
    if settlements[0].job.concurrency_key is None:
        answer = await link.value("settle", *params)
        return ([] if answer is None else _decode(str(answer))), []
    queues = [settlement.job.queue for settlement in settlements]
    keys = [settlement.job.concurrency_key for settlement in settlements]
    answered, lanes = _decode_keyed(str(await link.value("settle_keyed", *params, queues, keys)))
    return answered or [], [Lane(*lane, keyed=True) for lane in lanes or ()]


def detail_of(settlement: Settlement) -> msgspec.Struct | None:
    """Return what the database is told of a settlement besides its move, in JSON; None for a plain completion."""
    if settlement.move == "complete" and settlement.result is None:
        return None
    detail = _Detail(settlement.attempt, settlement.failures, settlement.crashes, error=settlement.error)
    if settlement.result is not None:
        detail.result = settlement.result
    if settlement.run_at is not None:
        detail.run_at = (min(settlement.run_at, _LATEST) - _EPOCH) // _MICROSECOND
    elif settlement.delay is not None:
        detail.delay = min(settlement.delay, _LONGEST) // _MICROSECOND
    return detail
