"""The ledger in the database: what test jobs enter there in transactions of their own, to be judged later."""

from __future__ import annotations

import os
import socket
from functools import cache

import msgspec

from piecework.store.history import create_ledger, write_ledger, write_ledger_sync
from piecework.testing.history.records import Event
from piecework.work.current_job import CurrentJob


class Ledger:
    """A table `history_ledger` in piecework's schema. `check` reads it where it is.

    Args:
        schema: holds piecework's tables.

    Example:
        ledger = Ledger()                      # once: await ledger.create(dsn)

        @jobs.job
        async def pay(job: CurrentJob, order: int) -> None:
            async with job.completing() as conn:
                await conn.execute("UPDATE …")
                await ledger.write(conn, job, "effect")    # there once, exactly if the job completed
    """

    def __init__(self, schema: str = "piecework") -> None:
        self._schema = schema

    async def create(self, dsn: str) -> None:
        """Make the table, unless it is there.

        Raises:
            DatabaseUnreachable, DatabaseError, PermissionDenied, MigrationsNeeded: the schema is not there.
        """
        await create_ledger(dsn, self._schema)

    async def write(self, conn: object, job: CurrentJob, event: Event, *, well: bool = True) -> None:
        """Enter something in the transaction that is open on `conn`.

        Args:
            conn: any connection that `options(conn=…)` takes. For `effect` the one in whose transaction the job is
                completed or rescheduled; for `began` and `ended` one whose transaction is committed at once.
            job: whose run it is.
            event: `began` as the first thing a run does, `ended` as the last, `effect` once per job.
            well: of an `ended`, whether the run returns, and does not raise.

        Raises:
            Whatever `spawn` with `conn` raises.
        """
        await write_ledger(conn, self._schema, _entry(job, event, well))

    def write_sync(self, conn: object, job: CurrentJob, event: Event, *, well: bool = True) -> None:
        """Enter something as `write` does, on a blocking connection."""
        write_ledger_sync(conn, self._schema, _entry(job, event, well))


def _entry(job: CurrentJob, event: Event, well: bool) -> str:
    return msgspec.json.encode((str(job.id), event, job.claim_no, this_process(), well)).decode()


def this_process(pid: int | None = None) -> str:
    """Return the name of this process in ledgers, or that of another one of this machine."""
    return f"{_host()}:{os.getpid() if pid is None else pid}"


@cache
def _host() -> str:
    return socket.gethostname()
