"""A `CurrentJob` without a worker and without a database: what a job function writes is recorded."""

from __future__ import annotations

import threading
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import Generic, TypedDict, cast, overload

import msgspec
import psycopg
from typing_extensions import TypeVar, Unpack

from piecework.base.ids import JobId, new_id
from piecework.base.latch import Latch
from piecework.base.serialization import encode
from piecework.model.completion import Reschedule
from piecework.model.job import ClaimedJob
from piecework.work.current_job import CurrentJob, give_config, request_cancel
from piecework.work.run_context import RunContext, Write

C = TypeVar("C", covariant=True, default=None)
D = TypeVar("D")


class _Kind:
    resident = False
    inherits_state = False

    def encode_result(self, value: object) -> msgspec.Raw | None:
        return None if value is None else msgspec.Raw(encode(value))


class _RecordedRun(RunContext):
    def __init__(self, job: ClaimedJob) -> None:
        super().__init__(job, _Kind(), str(new_id()), 0.0)
        self.writes: list[Write] = []
        self.lost = False
        self._lock = threading.Lock()

    def lent(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection]:
        raise self._no_database()

    def lent_sync(self) -> AbstractContextManager[psycopg.Connection]:
        raise self._no_database()

    async def _send(self, write: Write, conn: object) -> str | None:
        return self._send_sync(write, conn)

    def _send_sync(self, write: Write, conn: object) -> str | None:
        with self._lock:
            if self.lost:
                return '[[1, "lost"]]'
            self.writes.append(write)
            return None

    def _refusal_as_lost(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _no_database(self) -> RuntimeError:
        return RuntimeError("a job of testing.current_job(…) has no database, so completing() needs begin=…: what "
                            "opens the connection that the test is to use")

    def values(self, verb: str) -> list[object]:
        return [write.value for write in self.writes if write.verb == verb]


class RecordedJob(CurrentJob[C], Generic[C]):
    """A job in a test. Made by `current_job`.

    It checks and keeps what is written as a real one does, but nothing reaches a database, also where a connection is
    given: that is used by nobody but the function itself.
    """

    __slots__ = ("_latch", "_recorded")

    def __init__(self, claimed: ClaimedJob, config: C) -> None:
        self._latch = Latch()
        self._recorded = _RecordedRun(claimed)
        super().__init__(claimed, self._latch, lambda: self._recorded)
        give_config(self, config)

    @property
    def saved(self) -> list[object]:
        """What was given to `save_state`, in order."""
        return self._recorded.values("save_state")

    @property
    def results(self) -> list[object]:
        """What was given to `set_result`, and to `complete_in` as its result."""
        return self._recorded.values("set_result") + [
            write.result for write in self._recorded.writes if write.result is not None
        ]

    @property
    def reports(self) -> list[tuple[float, str]]:
        """What was given to `progress`, in order."""
        return cast("list[tuple[float, str]]", self._recorded.values("progress"))

    @property
    def completions(self) -> list[Reschedule | None]:
        """How the job was ended, by `complete_in` or by a `completing` block: None is completed."""
        ends = [write for write in self._recorded.writes if write.ends is not None]
        return [cast("Reschedule | None", write.value) for write in ends]

    def request_shutdown(self) -> None:
        """Have `shutdown_requested` answer True, and wake up whoever waits for it."""
        self._latch.set()

    def request_cancel(self) -> None:
        """Have `cancel_requested` answer True."""
        request_cancel(self)

    def lose_claim(self) -> None:
        """Have everything that the job writes from now on raise `ClaimLost`."""
        self._recorded.lost = True


class _Facts(TypedDict, total=False):
    id: JobId
    job_type: str
    queue: str
    attempt: int
    claim_no: int
    state: object


@overload
def current_job(**facts: Unpack[_Facts]) -> RecordedJob[None]: ...
@overload
def current_job(config: D, /, **facts: Unpack[_Facts]) -> RecordedJob[D]: ...
def current_job(config: object = None, /, **facts: Unpack[_Facts]) -> RecordedJob[object]:
    """Return a `CurrentJob` to call a job function with: `await send_email(testing.current_job(attempt=2), "a")`.

    Args:
        config: what `job.config` answers.
        facts: `id`, `job_type`, `queue` and `attempt` of the job, and its `claim_no`, the same as `attempt` unless said
            otherwise; `state`, what an earlier attempt saved.
    """
    attempt = facts.get("attempt", 1)
    claimed = ClaimedJob(
        id=str(facts.get("id") or new_id()), claim_no=facts.get("claim_no", attempt),
        job_type=facts.get("job_type", "test"), queue=facts.get("queue", "default"), priority=0, run_at=0,
        attempt=attempt, failures=attempt - 1, crashes=0, config=msgspec.Raw(b"null"),
        state=msgspec.Raw(encode(facts.get("state"))),
    )  # fmt: skip
    return RecordedJob(claimed, config)
