"""Cancelling in a transaction of the caller's: what is sent, and what the answer means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from piecework.base.ids import JobId
from piecework.store.run_writes import Request

CancelAnswer: TypeAlias = Literal["cancelled", "requested", "finished", "unknown"]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[CancelAnswer]).decode


def request(ids: Sequence[JobId]) -> Request:
    """Return the statement that cancels these jobs."""
    return Request("cancel_joined", _encode(ids).decode())


def answers(text: str | None) -> list[CancelAnswer]:
    """Return what became of each, in the order of the ids."""
    assert text is not None, "there is an answer for each id"
    return _decode(text)
