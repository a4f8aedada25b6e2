"""What a run writes of its own job, as the verbs of `CurrentJob` ask for it: made, sent, and judged by the answer."""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import NamedTuple, Protocol, TypeVar, cast

import msgspec
import psycopg

from piecework.base.errors import ClaimLost, UndecodableState
from piecework.base.serialization import decoder, encode, qualified_name
from piecework.base.texts import shown
from piecework.model.completion import Reschedule
from piecework.model.job import ClaimedJob
from piecework.model.settlement import Settlement, completed, rescheduled
from piecework.store import run_writes
from piecework.store.run_writes import Request

S = TypeVar("S")
_log = logging.getLogger("piecework.job")
_LONG = 5.0
_MOST_SHOWN = 200


class Kind(Protocol):
    """What a run's writes depend on of its job type."""

    @property
    def resident(self) -> bool:
        """Whether its job never ends."""
        ...

    @property
    def inherits_state(self) -> bool:
        """Whether a job begins with the state of the job before it with its key."""
        ...

    def encode_result(self, value: object) -> msgspec.Raw | None:
        """Return a result as it is stored."""
        ...


class Write(NamedTuple):
    """One write of a run, before it is sent."""

    verb: str
    """The method of `CurrentJob` that asked for it."""
    value: object
    """What that was given."""
    request: Request
    ends: Settlement | None = None
    """How the write ends the claim, if it does."""
    state: msgspec.Raw | None = None
    """The execution state that it saves, if it does."""
    result: object = None
    """The result that it ends the claim with, if it does."""
    joins: bool = False
    """Whether it means nothing without a transaction of the caller's."""


class RunContext(ABC):
    """The writes of one run: the same whether they go to the database or are recorded in a test. For any thread.

    Args:
        job: the claim.
        kind: its job type.
        worker_id: who holds it.
        started: when the run began, on the clock `now`.
        now: the clock, in seconds.
    """

    def __init__(
        self, job: ClaimedJob, kind: Kind, worker_id: str, started: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.job = job
        self.sent: Settlement | None = None
        """How the run has ended its job in a transaction, which may or may not have been committed."""
        inherited = kind.inherits_state and bytes(job.inherited_state) != b"null"
        self._state = job.inherited_state if inherited else job.state
        self._kind = kind
        self._worker_id = worker_id
        self._started = started
        self._now = now
        self._in_block = False

    def execution_state(self, type: type[S]) -> S | None:
        """Return what was saved last, as a value of its own; None if that is nothing or None."""
        stored = self._state
        if bytes(stored) == b"null":
            return None
        try:
            return cast("S", decoder(type).decode(stored))
        except Exception as error:
            text = bytes(stored).decode()
            raise UndecodableState(
                f"the execution state of job {self._named} is no {qualified_name(type)}: {error}. It is "
                f"{text[:_MOST_SHOWN]}{'…' * (len(text) > _MOST_SHOWN)}. A field that is new needs a default"
            ) from error

    def saving(self, state: object) -> Write:
        """Make the write of `save_state`."""
        raw = _encoded(state, f"the execution state of job {self._named} cannot be stored")
        request = run_writes.saved_state(self._worker_id, self.job, raw, inherits=self._kind.inherits_state)
        return Write("save_state", state, request, state=raw)

    def setting_result(self, result: object) -> Write:
        """Make the write of `set_result`."""
        encoded = self._kind.encode_result(result)
        return Write("set_result", result, run_writes.reported_result(self._worker_id, self.job, encoded))

    def reporting(self, done: float, note: str) -> Write:
        """Make the write of `progress`."""
        if isinstance(done, bool) or not isinstance(done, int | float) or not _is_finite(done):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"progress({shown(done)}) takes a finite number: how much is done")
        if not isinstance(note, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"progress(…, {shown(note)}) takes a text as its note")
        _encoded(note, "the note of progress() cannot be stored")
        request = run_writes.reported_progress(self._worker_id, self.job, float(done), note)
        return Write("progress", (done, note), request)

    def guarding(self) -> Write:
        """Make the write of `guard`."""
        return Write("guard", None, run_writes.guarded(self._worker_id, [self.job]), joins=True)

    def completing(self, reschedule: Reschedule | None, result: object = None, verb: str = "complete_in") -> Write:
        """Make the write that ends the job in a transaction."""
        if not isinstance(reschedule, Reschedule | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"{verb}({reschedule!r}) takes Reschedule.now(), .after(…) or .at(…), or nothing where the "
                            "job is complete; its result is given by complete_in(…, result=…) or set_result")
        if reschedule is None:
            if self._kind.resident:
                raise TypeError(f"{verb}() would complete job {self._named}, and a resident job never ends: give it "
                                "Reschedule.now(), .after(…) or .at(…)")
            ends = completed(self.job, self._started, self._kind.encode_result(result))
        elif result is not None:
            raise TypeError(f"{verb}(…, result={shown(result)}): a job that runs again has no result yet: use "
                            "set_result for what it has so far")
        else:
            ends = rescheduled(self.job, self._started, reschedule)
        request = run_writes.completions(self._worker_id, [ends], self._now())
        return Write(verb, reschedule, request, ends=ends, result=result, joins=True)

    async def write(self, write: Write, conn: object = None) -> None:
        """Send a write, in the transaction that is open on `conn`, or in one of its own; and take note that it landed.

        Raises:
            ClaimLost: the claim is lost, nothing was written.
        """
        self._note_sending(write)
        self._take(write, await self._send(write, conn), conn)

    def write_sync(self, write: Write, conn: object = None) -> None:
        """Block as `write` waits."""
        self._note_sending(write)
        self._take(write, self._send_sync(write, conn), conn)

    @contextmanager
    def block(self) -> Generator[None]:
        """Stand for a block of `completing`, of which a run has one at a time.

        Raises:
            ClaimLost: the database refused to commit it.
        """
        if self._in_block:
            raise RuntimeError(f"job {self._named} is in a completing block already: these blocks do not nest")
        self._in_block, began = True, self._now()
        try:
            with self._refusal_as_lost():
                yield
        finally:
            self._in_block = False
            lasted = self._now() - began
            if lasted > _LONG:
                _log.warning(
                    "job %s (%s) had its completing block open for %.1f s: long transactions keep vacuum from its work",
                    self.job.id, self.job.job_type, lasted,
                )  # fmt: skip

    @abstractmethod
    def lent(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection]:
        """Lend a connection of piecework's own, in a transaction."""

    @abstractmethod
    def lent_sync(self) -> AbstractContextManager[psycopg.Connection]:
        """Lend a blocking one."""

    @abstractmethod
    async def _send(self, write: Write, conn: object) -> str | None: ...

    @abstractmethod
    def _send_sync(self, write: Write, conn: object) -> str | None: ...

    @abstractmethod
    def _refusal_as_lost(self) -> AbstractContextManager[None]:
        """Raise `ClaimLost` where a transaction is not committed since its guard refused it."""

    def _note_sending(self, write: Write) -> None:
        # Before it is sent: whatever comes of the answer, from now on only the database knows.
        if write.ends is not None:
            self.sent = write.ends

    def _take(self, write: Write, answer: str | None, conn: object) -> None:
        if run_writes.answers(answer, 1) == ["lost"]:
            already = self.sent is not None and write.ends is None
            why = "it has ended in this transaction, or its claim was lost" if already else "its claim was lost"
            raise ClaimLost(
                f"{write.verb} has no effect on job {self._named}: {why} (claim {self.job.claim_no}). When this worker "
                "was given up for dead, another runs the job: roll back, and end this run"
            )
        if write.state is not None and conn is None:
            self._state = write.state

    @property
    def _named(self) -> str:
        return f"{self.job.id} of type {self.job.job_type}"


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an int that no float holds
        return False


def _encoded(value: object, failing: str) -> msgspec.Raw:
    try:
        return msgspec.Raw(encode(value))
    except TypeError as error:
        raise TypeError(f"{failing}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{failing}: {error}") from error
