"""Hints from the database: a LISTEN connection of its own. A lost hint costs a look, never a job (invariant F)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import NamedTuple

import msgspec

from piecework.base.errors import DatabaseError
from piecework.model.lanes import Lane
from piecework.store.connection import is_pooled, translated
from piecework.store.link import Link


class _Payload(msgspec.Struct, array_like=True, gc=False):
    queue: str
    job_type: str
    priority: int
    targets: list[str] = []
    keyed: bool = False


class CancelHint(msgspec.Struct, gc=False):
    """Jobs in the hands of this worker are to be cancelled."""

    worker: str
    cancel: list[tuple[str, int]]
    """Their ids, and the numbers of the claims that are meant."""


class LookHint(NamedTuple):
    """The time was turned: jobs of any lane may be due."""


_LOOK = '"look"'
_decode_lane = msgspec.json.Decoder(_Payload).decode
_decode_cancel = msgspec.json.Decoder(CancelHint).decode


class Hint(NamedTuple):
    """A job of this lane may be due."""

    lane: Lane
    targets: Sequence[str]
    """The workers that are to look at once; empty: all."""


class Deaf(Exception):
    """A pooler stands in between: who listens in one of its sessions hears nothing, or what is another's."""


async def hints(
    link: Link, listening: Callable[[], None], probe_every: float
) -> AsyncGenerator[Hint | CancelHint | LookHint, None]:
    """Yield what the database hints at, from the moment the LISTEN is answered until the connection breaks.

    Where the link is one that may listen through a pooler, what is heard is yielded, and `listening` is never called:
    whether it is all cannot be known.

    Args:
        listening: called once the LISTEN is answered; what happened before has to be looked for.
        probe_every: seconds between two questions to the server. A connection that only listens would not notice that
            the other end has gone.

    Raises:
        Deaf: nothing would be heard.
        DatabaseError: the connection cannot be opened, or broke.
    """
    conn = await link.connection()
    try:
        if is_pooled(conn) and not link.listens_anyway:
            link.works()
            raise Deaf
        with translated(link.dsn):
            with link.deadline(conn):
                await conn.execute(b"LISTEN " + link.statements.channel.encode())
            link.works()
            if not is_pooled(conn):
                listening()
            while not link.distrusted:
                async for notice in conn.notifies(timeout=probe_every):
                    try:
                        hint = _read(notice.payload)
                    except (msgspec.MsgspecError, RecursionError):  # whoever is connected may send anything
                        continue
                    yield hint
                with link.deadline(conn):
                    await conn.execute(b"SELECT 1")
    except DatabaseError as error:
        link.health.lost(link, error)
        raise
    finally:
        await link.drop()


def _read(payload: str) -> Hint | CancelHint | LookHint:
    if payload.startswith("{"):
        return _decode_cancel(payload)
    if payload == _LOOK:
        return LookHint()
    lane = _decode_lane(payload)
    return Hint(Lane(lane.queue, lane.job_type, lane.priority, lane.keyed), lane.targets)
