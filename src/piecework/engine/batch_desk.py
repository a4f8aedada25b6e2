"""How a batch ends its jobs in its own transaction, while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import psycopg

from piecework.base.errors import ClaimLost
from piecework.engine.held import HeldBatch
from piecework.engine.stopping import late
from piecework.engine.verdicts import judge_end
from piecework.model.settlement import Settlement
from piecework.store.joining import joined
from piecework.store.lending import Lending
from piecework.store.run_writes import answers, completions
from piecework.store.savepoints import is_conflict, rolled_back
from piecework.store.statements import Statements


class BatchDesk:
    """The `Desk` of one batch.

    What was settled here is settled once more by the completer, which is answered that it landed before: so capacity
    and concurrency keys come free, and it is known whether the transaction was committed.
    """

    def __init__(self, batch: HeldBatch, lending: Lending, statements: Statements) -> None:
        self._batch = batch
        self._lending = lending
        self._statements = statements
        self.sent: dict[str, Settlement] = {}
        """How the jobs ended, by their ids, in a transaction that was committed, or may have been."""
        self.gives_back = False
        """Whether the claims are to be released: the transaction failed at its end, and by no fault of the jobs."""

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[psycopg.AsyncConnection]:
        """Lend a connection in a transaction, which is committed in the end."""
        try:
            async with self._lending.transaction() as conn:
                yield conn
        except BaseException as error:
            if rolled_back(error):
                self.gives_back |= bool(self.sent) and is_conflict(error)
                self.sent = {}
            raise

    def check_result(self, value: object) -> None:
        """Raise what storing this result would raise."""
        self._batch.registered.encode_result(value)

    async def complete(self, conn: psycopg.AsyncConnection, outcomes: Mapping[str, object]) -> None:
        """Write how the jobs end, in the transaction."""
        if self._batch.stop == "timeout":
            raise late(self._batch, None)
        now = asyncio.get_running_loop().time()
        settlements: list[Settlement] = []
        for item in self._batch.items:
            outcome = outcomes[item.job.id]
            value, error = (None, outcome) if isinstance(outcome, BaseException) else (outcome, None)
            settlements.append(judge_end(item, value, error, now))
        request = completions(self._batch.worker_id, settlements, now)
        answer = await joined(conn, self._statements, request.statement, request.payload)
        lost = [
            settlement.job.id
            for settlement, found in zip(settlements, answers(answer, len(settlements)), strict=True)
            if found != "landed"
        ]
        if lost:
            self.gives_back = True
            raise ClaimLost(
                f"the claims of {len(lost)} of {len(settlements)} jobs of the batch were lost, so nothing of it is "
                f"committed and the others run again: {', '.join(lost)}"
            )
        self.sent = {settlement.job.id: settlement for settlement in settlements}
        for item in self._batch.items:
            item.ended = True
