"""Time-ordered identifiers: UUID version 7 (RFC 9562 section 5.7), made by the client."""

from __future__ import annotations

import os
import struct
import threading
import time
from typing import TypeAlias
from uuid import UUID

JobId: TypeAlias = UUID

_lock = threading.Lock()
_last_ms = 0
_counter = 0
_tails: list[int] = []
"""Random numbers in store: asking the system for each takes half of the time of an id."""
_MANY = 256
os.register_at_fork(after_in_child=_tails.clear)


def new_id() -> UUID:
    """Return a fresh UUIDv7, greater than every one that this process made before.

    Within a millisecond the 12 bits of `rand_a` count up from a random start (RFC 9562 section 6.2, method 1); when
    they are spent, the timestamp runs ahead by a millisecond.
    """
    global _last_ms, _counter
    with _lock:
        if not _tails:
            _tails.extend(struct.unpack(f"{_MANY}Q", os.urandom(8 * _MANY)))
        tail = _tails.pop()
        now_ms = time.time_ns() // 1_000_000
        if now_ms > _last_ms:
            _last_ms = now_ms
            _counter = tail & 0x3FF
        else:
            _counter += 1
            if _counter > 0xFFF:
                _counter = 0
                _last_ms += 1
        ms, counter = _last_ms, _counter
    return UUID(int=(ms << 80) | (0x7 << 76) | (counter << 64) | (0x2 << 62) | (tail >> 2))
