"""What the facts of an examination mean to an operator: pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Literal, NamedTuple, TypeAlias

from piecework.base.errors import PieceworkError
from piecework.cli.horizon_report import BLIND
from piecework.cli.output import moment, span
from piecework.model.cursors import named
from piecework.model.horizon import Sample, foretold
from piecework.model.pins import Pin, described, remedy
from piecework.store import migrating
from piecework.store.examination import Pooling, Server
from piecework.store.migrating import SchemaState
from piecework.store.turning import DueClock

Status: TypeAlias = Literal["ok", "warning", "failed"]

OLDEST = 15
CLEAR_CLOCK = "It is for tests: end it by ManualClock(jobs).clear(), or delete the row of the table clock"
_FEW_CONNECTIONS, _NO_CONNECTIONS = 20, 5
_OLD, _VERY_OLD = 60.0, 3600.0
_MANY_XIDS = 1_000_000
_CLOCK = 60.0
_MOST_NAMED = 5


class Verdict(NamedTuple):
    """What a check found."""

    status: Status
    text: str
    advice: str = ""
    """What to do; empty where nothing is to be done."""


class Past(NamedTuple):
    """What was found where workers listen."""

    pooling: Pooling
    same: bool
    """Whether it is the same database."""
    heard: bool


def version(server: Server) -> Verdict:
    """Judge the server's version."""
    text = f"PostgreSQL {server.version}, database {server.database!r}, role {server.role!r}"
    if server.version_num < OLDEST * 10_000:
        return Verdict("failed", text, f"piecework needs PostgreSQL {OLDEST} or newer: upgrade the server")
    return Verdict("ok", text)


def standby(server: Server) -> Verdict:
    """Judge whether the server can write."""
    if server.standby:
        advice = "connect to the primary: name all hosts in the DSN, with target_session_attrs=read-write"
        return Verdict("failed", "this server is a standby, or in recovery: it cannot write", advice)
    return Verdict("ok", "this server is the primary")


def schema(state: SchemaState, name: str) -> Verdict:
    """Judge the schema's version and functions."""
    try:
        migrating.check(state, name)
    except PieceworkError as error:
        role = "" if state.may_create else "; this role may not, take one that has CREATE"
        lacks_it = state.readable and not state.version
        return Verdict("failed", str(error), f"run `piecework migrate`{role}" if lacks_it else "")
    ours = migrating.code_version()
    newer = f" (this piecework is written for {ours}, which it supports)" if state.version > ours else ""
    text = f"schema {name!r} is at version {state.version}{newer}, {len(state.functions)} functions are installed"
    return Verdict("ok", text)


def permissions(lacking: Sequence[str], role: str) -> Verdict:
    """Judge what the role may do."""
    if lacking:
        return Verdict(
            "failed", f"the role {role!r} lacks {_some(lacking)}",
            "grant it: USAGE on the schema, SELECT, INSERT, UPDATE and DELETE on its tables, EXECUTE on its functions; "
            "docs/security.md has the SQL",
        )  # fmt: skip
    return Verdict("ok", f"the role {role!r} may do all that piecework asks")


def partitions(missing: Mapping[str, int], days: int) -> Verdict:
    """Judge the daily leaves of the history, from today to `days` ahead."""
    if not missing:
        return Verdict("ok", f"the history has partitions for today and {days} days ahead")
    advice = "a worker makes them when it starts, and every hour"
    return Verdict("warning", f"partitions are missing: {_some(list(missing))}", advice)


def due_times(clock: DueClock) -> Verdict:
    """Judge whether due times go by the real time."""
    if clock.manual:
        text = f"a manual clock is set: jobs are due as of {moment(clock.now)}, and that stands still"
        return Verdict("warning", text, CLEAR_CLOCK)
    return Verdict("ok", "jobs become due by the server's clock")


_PAST_IT = (
    "workers look twice a second instead of being told: name the server's own address, by Jobs(listen_dsn=…) or "
    "PIECEWORK_LISTEN_URL, and here by --listen-url"
)


def pooler(pooling: Pooling, past: Past | None) -> Verdict:
    """Judge what stands between here and the server.

    Args:
        past: what was found where workers listen, if that is elsewhere.
    """
    if past is not None and not past.same:
        advice = "workers refuse to start: name the database of --database-url, past the pooler"
        return Verdict("failed", "--listen-url leads to another database or server", advice)
    if not pooling.pooler:
        return Verdict("ok", "nothing stands between here and the server")
    text = "a pooler shares sessions (transaction or statement mode)"
    if not pooling.shared:
        text = "a pooler or proxy stands in between; sessions seem to be this client's own"
    if past is None:
        return Verdict("warning", text, _PAST_IT)
    if past.pooling.pooler:
        return Verdict("warning", f"{text}, and before --listen-url as well", _PAST_IT)
    return Verdict("ok", f"{text}; workers listen and beat past it")


def listen(heard: bool | None) -> Verdict:
    """Judge whether notifications arrive; None: workers would not listen."""
    if heard is None:
        return Verdict("warning", "workers do not listen through a pooler", _PAST_IT)
    if heard:
        return Verdict("ok", "a notification came through")
    return Verdict("warning", "a notification was sent and not heard", _PAST_IT)


def defaults(server: Server) -> Verdict:
    """Judge the defaults of the database and the role."""
    if server.read_only:
        return Verdict(
            "warning", "new sessions are read-only by default",
            "piecework's own sessions write all the same; yours cannot spawn: ALTER ROLE or ALTER DATABASE … SET "
            "default_transaction_read_only = off",
        )  # fmt: skip
    if server.isolation != "read committed":
        return Verdict(
            "warning", f"new transactions are {server.isolation!r} by default",
            "piecework's own sessions are READ COMMITTED all the same; spawns in transactions of yours may fail to "
            "serialize, and have to be tried again",
        )  # fmt: skip
    return Verdict("ok", "new transactions are READ COMMITTED and may write")


def horizon(pins: Sequence[Pin], sample: Sample | None, sees_all: bool) -> Verdict:
    """Judge who keeps vacuum from its work.

    Args:
        sample: how many dead rows there are, and what the workers know; None: not known.
        sees_all: whether the role may see what the sessions of others do.
    """
    old = [pin for pin in pins if _is_old(pin)]
    blind = "" if sees_all else f"; of others this role sees little: {BLIND}"
    dead = "" if sample is None else f"; dead rows of jobs: {sample.dead}"
    watch = None if sample is None else sample.watch
    if watch is not None and (comes := foretold(watch.forecast)):
        dead += f", {comes}"
    if sample is not None and (lanes := named(sample.claims.slow_lanes)):
        dead += f"; {lanes}"
    if not old:
        return Verdict("ok", f"no transaction is open for longer than {span(timedelta(seconds=_OLD))}{dead}{blind}")
    worst = max(pin.seconds or 0.0 for pin in old) >= _VERY_OLD
    remedies = [remedy(pin) for pin in old]
    return Verdict(
        "failed" if worst else "warning", _some([described(pin) for pin in old], "; ") + dead + blind,
        f"dead rows stay, and claims slow down: {_some(remedies, '; or ')}",
    )  # fmt: skip


def _is_old(pin: Pin) -> bool:
    return (pin.xids or 0) >= _MANY_XIDS if pin.seconds is None else pin.seconds >= _OLD


def connections(server: Server) -> Verdict:
    """Judge whether workers will find room."""
    free, most = server.free_connections, server.max_connections
    text = f"{server.connections} of {most} connections are taken, {free} are free for this role"
    advice = "a worker process takes 4 to 8: raise max_connections or the limit of the role, or run fewer processes"
    if free < _NO_CONNECTIONS:
        return Verdict("failed", text, advice)
    return Verdict("warning", text, advice) if free < min(_FEW_CONNECTIONS, most // 5) else Verdict("ok", text)


def autovacuum(server: Server) -> Verdict:
    """Judge whether dead rows are removed."""
    if server.autovacuum and server.track_counts:
        return Verdict("ok", "autovacuum is on")
    advice = "a queue needs it: set autovacuum = on and track_counts = on in the server's configuration"
    return Verdict("failed", "autovacuum is off", advice)


def clock(server: Server) -> Verdict:
    """Tell how far the clocks are apart; nothing depends on it."""
    apart = abs(server.ahead)
    where = "ahead of" if server.ahead > 0 else "behind"
    text = f"the server's clock is {span(timedelta(seconds=apart))} {where} the one here"
    if apart < _CLOCK:
        return Verdict("ok", text)
    return Verdict("ok", f"{text}; jobs go by the server's, times in logs will not match")


def encoding(server: Server) -> Verdict:
    """Judge the encoding, and tell how large values are compressed."""
    text = f"encoding {server.encoding}, large values are compressed by {server.toast_compression}"
    if server.encoding == "UTF8":
        return Verdict("ok", text)
    return Verdict("warning", text, "texts outside of this encoding are refused: use a database with encoding UTF8")


def _some(names: Sequence[str], separator: str = ", ") -> str:
    more = [f"and {len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
    return separator.join([*names[:_MOST_NAMED], *more])


OF_SERVER: dict[str, Callable[[Server], Verdict]] = {
    "version": version, "standby": standby, "defaults": defaults, "connections": connections, "autovacuum": autovacuum,
    "clock": clock, "encoding": encoding,
}  # fmt: skip
"""The checks that need nothing but what the server says of itself."""
