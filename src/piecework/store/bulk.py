"""Spawning many jobs: one part is made and encoded while the server inserts the one before, all in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from piecework.model.job import NewJob
from piecework.store import spawning
from piecework.store.connection import AsyncConnection

_TURNS = 3
"""Of the loop until a statement is on its way: it waits for the connection, for a place to write to, and is written."""


class NotPlain(Exception):
    """A job has a key or an id of the caller's: all have to be inserted in one order, by one statement."""


async def insert_parts(
    conn: AsyncConnection, statement: bytes, parts: Iterator[Sequence[NewJob]], sent: list[NewJob]
) -> None:
    """Insert all parts or nothing. What was taken from `parts` is in `sent`, whatever happens.

    Raises:
        NotPlain: nothing was inserted.
        psycopg.Error
    """
    under_way: asyncio.Task[object] | None = None
    async with conn.transaction():
        try:
            for part in parts:
                sent.extend(part)
                if any(job.chosen or job.key is not None for job in part):
                    raise NotPlain
                payload = spawning.payload(part)
                if under_way is not None:
                    await under_way
                under_way = asyncio.create_task(conn.execute(statement, [payload]), name="job-spawn-part")
                for _ in range(_TURNS):
                    await asyncio.sleep(0)
            if under_way is not None:
                await under_way
        finally:
            if under_way is not None:
                await asyncio.wait({under_way})
                if not under_way.cancelled():
                    under_way.exception()  # seen: where two things went wrong, the first is raised
