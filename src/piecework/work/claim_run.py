"""A run's writes on their way to the database: by the store of the `Jobs`, or in a transaction of the caller's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager

import psycopg

from piecework.base.errors import ClaimLost, TransactionError
from piecework.model.job import ClaimedJob
from piecework.store.joining import joined, joined_sync
from piecework.store.refusals import state_of
from piecework.work.run_context import Kind, RunContext, Write
from piecework.work.service import Service

_REFUSED = "PW001"
_CHANGED = "40001"


class ClaimRun(RunContext):
    """The writes of a run that a worker holds."""

    def __init__(
        self, service: Service, job: ClaimedJob, kind: Kind, worker_id: str, started: float, now: Callable[[], float]
    ) -> None:
        super().__init__(job, kind, worker_id, started, now)
        self._service = service

    async def _send(self, write: Write, conn: object) -> str | None:
        request = write.request
        if conn is None and not write.joins:
            return await self._service.run(lambda store: store.write(request))
        with _change_as_lost():
            return await joined(conn, self._service.statements, request.statement, request.payload)

    def _send_sync(self, write: Write, conn: object) -> str | None:
        request = write.request
        if conn is None and not write.joins:
            return self._service.run_sync(lambda store: store.write(request), write.verb)
        with _change_as_lost():
            return joined_sync(conn, self._service.statements, request.statement, request.payload)

    @asynccontextmanager
    async def lent(self) -> AsyncGenerator[psycopg.AsyncConnection]:
        """Lend a connection of piecework's own, in a transaction, on the loop that opened the `Jobs`."""
        if not self._service.on_owning_loop:
            raise RuntimeError("`async with job.completing():` takes a connection of the event loop that opened the "
                               "Jobs: on another loop give begin=…, in a thread write `with job.completing():`")
        async with self._service.store.lending.transaction() as conn:
            yield conn

    @contextmanager
    def lent_sync(self) -> Generator[psycopg.Connection]:
        """Lend a blocking connection of piecework's own, in a transaction."""
        if self._service.on_owning_loop:
            raise RuntimeError("`with job.completing():` would block the event loop: write "
                               "`async with job.completing():` here")
        with self._service.store.lending.transaction_sync() as conn:
            yield conn

    @contextmanager
    def _refusal_as_lost(self) -> Generator[None]:
        try:
            yield
        except Exception as error:
            if state_of(error) != _REFUSED:
                raise
            raise ClaimLost(
                f"nothing of the completing block of job {self._named} is committed: its claim {self.job.claim_no} was "
                "lost, or its completion was rolled back to a savepoint"
            ) from error


@contextmanager
def _change_as_lost() -> Generator[None]:
    """Raise `ClaimLost` where the isolation level does not bear a concurrent change of the job's row: none but a rescue
    changes it."""
    try:
        yield
    except TransactionError as error:
        if error.__cause__ is None or state_of(error.__cause__) != _CHANGED:
            raise
        raise ClaimLost(f"the job was taken from this run after its transaction had begun: {error}") from error
