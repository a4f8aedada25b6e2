"""What keeps vacuum from removing dead rows: who it is, in words, and what to do about it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, TypeAlias

import msgspec

from piecework.base.texts import moment, quiet_text, span

PinKind: TypeAlias = Literal["session", "standby", "slot", "prepared transaction"]


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction, or whatever else keeps vacuum from removing dead rows."""

    kind: PinKind
    name: str
    """The application, the slot or the prepared transaction."""
    pid: int | None
    role: str | None
    state: str | None
    seconds: float | None
    """Since it began; None: unknown, or the role may not see it."""
    query_start: datetime | None
    xids: int | None
    """Transactions begun since; None: it pins nothing."""
    pinned: str | None = None
    """The transaction id that it holds on to: as long as that stays, so does the pin."""
    query: str | None = None
    """The first 200 characters of what the session runs, or ran last."""
    catalog_only: bool = False
    """It keeps dead rows of the system catalogs, and none of a queue's: a slot of logical replication."""

    @property
    def keeps_rows(self) -> bool:
        """Whether dead rows of a table stay because of it."""
        return self.xids is not None and not self.catalog_only

    def is_of(self, other: Pin) -> bool:
        """Whether this is the other one, seen at another time."""
        # A session may change its name, and a slot its reader.
        by = "pid" if self.kind in ("session", "standby") else "name"
        return (self.kind, self.pinned, getattr(self, by)) == (other.kind, other.pinned, getattr(other, by))


def described(pin: Pin) -> str:
    """Say who it is, on one line."""
    since = "" if pin.seconds is None else f" for {span(timedelta(seconds=pin.seconds))}"
    pid = "" if pin.pid is None else f" pid {pin.pid}"
    role = f" of role {quiet_text(pin.role)!r}" if pin.role else ""
    asked = "" if pin.query_start is None else f", last statement {moment(pin.query_start)}"
    query = f": {' '.join(quiet_text(pin.query).split())}" if pin.query else ""
    behind = ", pins nothing yet" if pin.xids is None else f", {pin.xids} transactions back"
    of = " in the system catalogs" if pin.catalog_only else ""
    name = f"{pin.kind}{pid} {quiet_text(pin.name)!r}{role}"
    return f"{name} ({pin.state or 'state unknown'}){since}{asked}{query}{behind}{of}"


def remedy(pin: Pin) -> str:
    """Say what ends it, and what prevents the next one."""
    if pin.kind == "session":
        prevents = (
            "idle_in_transaction_session_timeout prevents it"
            if (pin.state or "").startswith("idle")
            else "statement_timeout bounds what runs, idle_in_transaction_session_timeout what waits"
        )
        return f"end that session: SELECT pg_terminate_backend({pin.pid}); {prevents}"
    if pin.kind == "prepared transaction":
        gid = pin.name.replace("'", "''")
        return f"end it, in this database: ROLLBACK PREPARED '{gid}', or COMMIT PREPARED '{gid}'"
    if pin.kind == "slot" and pin.state != "active":
        return (
            f"if nobody comes back to it, drop the slot: SELECT pg_drop_replication_slot('{pin.name}'); "
            "idle_replication_slot_timeout (PostgreSQL 18) prevents it"
        )
    if pin.catalog_only:
        return f"who reads the slot {pin.name!r} lags behind: look at that process"
    return (
        "an old query runs on that standby: end it there, or let it be cancelled instead of waited for, by "
        "hot_standby_feedback = off on the standby"
    )
