"""Signs of life, seen and given. Blocking: a thread of its own calls it, which a busy event loop cannot stop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

import msgspec
import psycopg

from piecework.base.errors import DatabaseUnreachable
from piecework.base.surroundings import SURROUNDINGS, Surroundings
from piecework.model.horizon import Claims, Sample, Watch
from piecework.model.pins import Pin
from piecework.store.connection import WIRE, Connection, Wire, condition, pinned_sync, translated
from piecework.store.examination import as_pin
from piecework.store.statements import Statements

_DAYS_AHEAD = 7
_decode_others = msgspec.json.Decoder(list[tuple[str, int, float]]).decode
_decode_requests = msgspec.json.Decoder(list[tuple[str, int]]).decode
_decode_sample = msgspec.json.Decoder(Sample).decode
_decode_rescued = msgspec.json.Decoder(list[tuple[str, str]]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """What a worker says of itself."""

    id: str
    pid: int
    host: str
    lease: timedelta
    stop: timedelta
    exit: timedelta
    queues: Sequence[str]
    job_types: Sequence[str]
    version: str
    timeouts: Mapping[str, timedelta] = field(default_factory=dict[str, timedelta])
    """Of the job types that have one when the worker is entered: for whoever looks."""


@dataclass(slots=True)
class Counters:
    """What a worker counts of itself since its process began; written with its beats, so it costs no statement."""

    lost_settles: int = 0
    """Settles that changed nothing: their claims were another's by then."""
    stops: int = 0
    """How often it stopped its runs, since its heartbeats had no answer."""
    claims: Claims = field(default_factory=Claims)
    horizon: Watch | None = None
    """What the horizon guard knows, if this worker was the one to look of late."""


class Beat(NamedTuple):
    """What the answer to a sign of life tells."""

    others: list[tuple[str, int, float]]
    """Id, beat number and lease (seconds) of every other worker."""
    requests: list[tuple[str, int]]
    """Id and claim number of the jobs in this worker's hands that are to be cancelled."""


def _settings(row: WorkerRow) -> str | None:
    if not row.timeouts:
        return None
    seconds = {name: timeout.total_seconds() for name, timeout in row.timeouts.items()}
    return msgspec.json.encode({"timeouts": seconds}).decode()


class Pulse:
    """The reserved connection of the heartbeat (invariant H). Used by one thread.

    A statement that fails, or has no answer within `deadline` seconds, drops the connection; the next one opens
    another. Every method raises DatabaseUnreachable.

    Args:
        wire: opens the connection.
        surroundings: where the timer of the deadline comes from, and all that the heartbeat needs.
    """

    def __init__(
        self,
        dsn: str,
        statements: Statements,
        deadline: float = 4.0,
        wire: Wire = WIRE,
        surroundings: Surroundings = SURROUNDINGS,
    ) -> None:
        self._deadline = deadline
        self._dsn = dsn
        self._statements = statements
        self._wire = wire
        self.surroundings = surroundings
        self._conn: Connection | None = None

    def register(self, row: WorkerRow) -> None:
        """Enter the worker. Its lease starts here."""
        self._run(
            "register_worker",
            row.id,
            row.pid,
            row.host,
            row.lease,
            row.stop,
            row.exit,
            list(row.queues),
            list(row.job_types),
            row.version,
            _settings(row),
        )

    def beat(
        self, worker_id: str, *, draining: bool, job_types: Sequence[str], counters: Counters | None = None
    ) -> Beat | None:
        """Give a sign of life, look at the others, and at what is requested.

        Returns:
            None when this worker has no row any more: it was given up for dead, and what it holds is another's.
        """
        counts = None if counters is None else msgspec.json.encode(counters).decode()
        beat_no, others, requests = self._run("beat", worker_id, draining, list(job_types), counts)[0]
        if beat_no is None:
            return None
        found = [] if requests is None else _decode_requests(str(requests))
        return Beat(_decode_others(str(others)), found)

    def rescue(self, dead: str, beat_no: int, lease: float) -> list[tuple[str, str]] | None:
        """Take back what a dead worker holds.

        Returns:
            Id and job type of each rescued job; None when the worker gave a sign of life since, or is gone.
        """
        params = dead, beat_no, timedelta(seconds=lease)
        try:
            [[answer]] = self._run("rescue", *params)
        except psycopg.errors.CheckViolation as error:
            if "no partition" not in str(error):
                raise
            self.add_partitions()
            [[answer]] = self._run("rescue", *params)
        return None if answer is None else _decode_rescued(str(answer))

    def do_duties(
        self, worker_id: str, watch_horizon: Callable[[], None] = lambda: None, sweep: Callable[[], None] | None = None
    ) -> list[str]:
        """Do the housekeeping that is due and in nobody else's hands; returns the names of the duties done.

        Args:
            watch_horizon: called when that duty is taken.
            sweep: called in the place of `sweep_keys` when that duty is taken.
        """
        done: list[str] = []
        while rows := self._run("take_duty", worker_id):
            name = str(rows[0][0])
            if name == "partitions":
                self._run("add_partitions", _DAYS_AHEAD)
            elif name == "concurrency_keys":
                (sweep or self.sweep_keys)()
            elif name == "horizon":
                watch_horizon()
            done.append(name)
        return done

    def sweep_keys(self) -> int:
        """Free concurrency keys whose holders are gone, and the jobs that wait for them (A2).

        Returns:
            How many keys were not in line. What somebody had locked was passed over.
        """
        return int(str(self._run("sweep_keys")[0][0]))

    def add_partitions(self) -> None:
        """Make the leaves of the history that are missing."""
        self._run("add_partitions", _DAYS_AHEAD)

    def sample_horizon(self) -> Sample:
        """Return how many dead rows there are, what claims have cost, and what the guard wrote down last."""
        [[answer]] = self._run("sample_horizon")
        return _decode_sample(str(answer))

    def pins(self) -> list[Pin]:
        """Return what may keep dead rows from being removed, those that hold the horizon back most first."""
        return [as_pin(row) for row in self._run("examine_pins")]

    def leave(self, worker_id: str) -> bool:
        """Strike the worker off; False when it still owns jobs, which others will rescue when its lease is over."""
        try:
            return bool(self._run("leave", worker_id)[0][0])
        except DatabaseUnreachable:  # the connection may have broken in an outage that is over
            return bool(self._run("leave", worker_id)[0][0])

    @property
    def condition(self) -> str:
        """The state of the connection."""
        return condition(self._conn)

    def close(self) -> None:
        """Close the connection."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _run(self, statement: str, *params: object) -> list[tuple[object, ...]]:
        try:
            with translated(self._dsn):
                if self._conn is None or self._conn.closed:
                    self._conn = self._wire.connect_sync(self._dsn, self._statements.pins)
                sever = functools.partial(self._wire.sever, self._conn)
                given_up = self.surroundings.start_timer("job-heartbeat-deadline", self._deadline, sever)
                try:
                    with pinned_sync(self._conn):
                        cursor = self._conn.execute(self._statements.sql(statement), params)
                    return cursor.fetchall() if cursor.description is not None else []
                finally:
                    given_up.cancel()
        except BaseException:
            self.close()
            raise
