"""Rows, their locks and transactions, with the visibility of READ COMMITTED.

A statement is made of Python between two `yield`s: nothing else happens meanwhile, so what is committed when it begins
is its snapshot. Whoever writes a row has locked it, so a row has one version that is committed and at most one besides.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterator
from typing import Any, Literal, TypeAlias, TypeVar

T = TypeVar("T")
Values: TypeAlias = dict[str, Any]
Mode: TypeAlias = Literal["key share", "no key update", "update"]

_CONFLICTS: dict[Mode, frozenset[Mode]] = {
    "key share": frozenset({"update"}),
    "no key update": frozenset({"no key update", "update"}),
    "update": frozenset({"key share", "no key update", "update"}),
}
_STRENGTH: dict[Mode, int] = {"key share": 0, "no key update": 1, "update": 2}


class Waits:
    """What a statement yields when it has to wait for other transactions to end, or for a lock of theirs to go."""

    __slots__ = ("holders",)

    def __init__(self, holders: tuple[Transaction, ...]) -> None:
        self.holders = holders


Steps: TypeAlias = Generator[Waits | None, None, T]
"""A statement or a function of several. It yields None between two statements, where others may come in between."""


class Row:
    """One row: what is committed, what a transaction has made of it, and who has locked it."""

    __slots__ = ("committed", "key", "locks", "pending", "table", "writer")

    def __init__(self, table: Table, key: Hashable) -> None:
        self.table = table
        self.key = key
        self.committed: Values | None = None
        self.pending: Values | None = None
        self.writer: Transaction | None = None
        self.locks: dict[Transaction, Mode] = {}

    def seen_by(self, txn: Transaction) -> Values | None:
        """Return the row as a statement of this transaction finds it; None: it is not there."""
        return self.pending if self.writer is txn else self.committed

    def in_the_way(self, txn: Transaction, mode: Mode) -> tuple[Transaction, ...]:
        """Return who else has locked it so that it cannot be locked in this mode."""
        if not self.locks:
            return ()
        conflicts = _CONFLICTS[mode]
        return tuple(other for other, held in self.locks.items() if other is not txn and held in conflicts)


class Table:
    """Rows by their primary key.

    Args:
        unique: returns what no two live rows may have in common; None: the row takes no part.
        by: a column whose values never change, to find rows by.
    """

    def __init__(self, unique: Callable[[Values], Hashable | None] | None = None, by: str | None = None) -> None:
        self.rows: dict[Hashable, Row] = {}
        self._unique = unique
        self._by = by
        self._alike: dict[Hashable, list[Row]] = {}

    def find(self, txn: Transaction, key: Hashable) -> Values | None:
        """Return the row of this key, as the transaction sees it."""
        row = self.rows.get(key)
        return None if row is None else row.seen_by(txn)

    def seen(self, txn: Transaction) -> Iterator[Values]:
        """Return all rows that the transaction sees."""
        for row in list(self.rows.values()):
            values = row.pending if row.writer is txn else row.committed
            if values is not None:
                yield values

    def alike(self, txn: Transaction, value: Hashable) -> Iterator[Values]:
        """Return the rows with this value in the column `by`, or in what is `unique`."""
        for row in list(self._alike.get(value, ())):
            values = row.seen_by(txn)
            if values is not None:
                yield values

    def rivals(self, values: Values) -> list[Row]:
        """Return the rows, seen or not, that have in common with these what is unique."""
        same = None if self._unique is None else self._unique(values)
        return [] if same is None else self._alike.get(same, [])

    def enter(self, row: Row, values: Values) -> None:
        """Make a row known, before anybody but its writer sees it."""
        self.rows[row.key] = row
        group = self._group(values)
        if group is not None:
            self._alike.setdefault(group, []).append(row)

    def leave(self, row: Row, values: Values) -> None:
        """Forget a row that nobody sees any more."""
        if self.rows.get(row.key) is row:
            del self.rows[row.key]
        group = self._group(values)
        if group is not None:
            alike = self._alike[group]
            alike.remove(row)
            if not alike:
                del self._alike[group]

    def _group(self, values: Values) -> Hashable | None:
        if self._by is not None:
            by: Hashable = values[self._by]
            return by
        same: Hashable | None = None if self._unique is None else self._unique(values)
        return same


class Transaction:
    """One transaction. `number` is its id, from its first write on."""

    __slots__ = ("_locked", "_number", "_written", "at_commit", "lock_timeout", "notices", "number", "over", "waiters")

    def __init__(self, number: Callable[[Transaction], int]) -> None:
        self._number = number
        self.number: int | None = None
        self.over = False
        self.lock_timeout: float | None = None
        """Seconds that it waits for a lock at most."""
        self.notices: dict[str, None] = {}
        """What it tells those who listen, once each."""
        self.at_commit: list[Callable[[Transaction], None]] = []
        """Checks that may refuse the commit."""
        self.waiters: list[Callable[[], None]] = []
        """Called when it is over."""
        self._written: dict[Row, None] = {}
        self._locked: dict[Row, None] = {}

    def take_number(self) -> int:
        """Return its id, taking one where it has none yet."""
        if self.number is None:
            self.number = self._number(self)
        return self.number

    def lock(self, row: Row, mode: Mode, *, skip: bool = False) -> Steps[Values | None]:
        """Lock a row, and return what it is then; None if it is gone, or with `skip` if it cannot be locked now.

        A lock is granted as soon as nobody is in the way: what was decided before has to be looked at again.
        """
        while others := row.in_the_way(self, mode):
            if skip:
                return None
            yield Waits(others)
        values = row.seen_by(self)
        if values is not None:
            self._hold(row, mode)
        return values

    def _hold(self, row: Row, mode: Mode) -> None:
        held = row.locks.get(self)
        if held is None or _STRENGTH[held] < _STRENGTH[mode]:
            row.locks[self] = mode
        self._locked[row] = None
        if self.number is None:
            self.number = self._number(self)

    def put(self, row: Row, **changes: object) -> Values:
        """Change a row that nobody else has locked."""
        values = row.seen_by(self)
        assert values is not None, "a row that is changed is there"
        self._write(row, {**values, **changes}, "no key update")
        assert row.pending is not None
        return row.pending

    def delete(self, row: Row) -> None:
        """Delete a row that nobody else has locked."""
        self._write(row, None, "update")

    def _write(self, row: Row, values: Values | None, mode: Mode) -> None:
        assert not row.in_the_way(self, mode), f"{row.key} is locked by another transaction"
        self._hold(row, mode)
        row.pending, row.writer = values, self
        self._written[row] = None

    def insert(self, table: Table, key: Hashable, values: Values) -> Steps[Row | None]:
        """Insert a row; None, where one with this key, or with what is unique, is there or has just come."""
        while True:
            rivals = [row for row in table.rivals(values) if row.key != key]
            here = table.rows.get(key)
            if here is not None:
                rivals.append(here)
            others = tuple(r.writer for r in rivals if r.writer is not None and r.writer is not self)
            if not others:
                break
            yield Waits(others)
        if any(row.seen_by(self) is not None for row in rivals):
            return None
        # Deleted by this very transaction, the row is still known.
        row = here if here is not None else Row(table, key)
        if here is None:
            table.enter(row, values)
        self._write(row, values, "update")
        return row

    def commit(self) -> None:
        """Make all that was written seen, at one moment.

        Raises:
            Exception: a check refuses; then it is aborted.
        """
        try:
            for check in self.at_commit:
                check(self)
        except BaseException:
            self.abort()
            raise
        for row in self._written:
            before = row.committed
            row.committed, row.pending, row.writer = row.pending, None, None
            if row.committed is None:
                assert before is not None or row.committed is None
                if before is not None:
                    row.table.leave(row, before)
                else:
                    self._forget(row)
        self._end()

    def abort(self) -> None:
        """Undo all of it."""
        for row in self._written:
            pending, row.pending, row.writer = row.pending, None, None
            if row.committed is None:
                if pending is not None:
                    row.table.leave(row, pending)
                else:
                    self._forget(row)
        self.notices.clear()
        self._end()

    def _forget(self, row: Row) -> None:
        """Drop a row that was inserted and deleted by one transaction: its values are known no more."""
        row.table.rows.pop(row.key, None)
        for group, alike in list(row.table._alike.items()):  # pyright: ignore[reportPrivateUsage]
            if row in alike:
                alike.remove(row)
                if not alike:
                    del row.table._alike[group]  # pyright: ignore[reportPrivateUsage]

    def _end(self) -> None:
        self.over = True
        for row in self._locked:
            row.locks.pop(self, None)
        waiters, self.waiters = self.waiters, []
        for wake in waiters:
            wake()
