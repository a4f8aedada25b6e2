"""The tables, the clock, the transactions and those who listen."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable
from uuid import UUID

import msgspec
import psycopg

from piecework.testing.memory.rows import Row, Steps, Table, Transaction, Values

encode = msgspec.json.Encoder().encode
_SECOND = 1_000_000
_LARGEST = 2**31 - 1


def text(value: object) -> str:
    """Return a value as JSON."""
    return encode(value).decode()


def array(value: object) -> list[str | None]:
    """Return the elements of an array, given as a list or in PostgreSQL's notation."""
    if isinstance(value, str):
        inner = value[1:-1]
        return [None if each == "null" else each for each in inner.split(",")] if inner else []
    assert isinstance(value, list | tuple)
    return [None if each is None else str(each) for each in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def following(claim_no: int) -> int:
    """Return the claim number after this one: behind the largest that an integer holds they begin anew."""
    return claim_no % _LARGEST + 1


def one_more(count: int) -> int:
    """Count on, as far as an integer goes."""
    return min(count + 1, _LARGEST)


class Database:
    """Everything of one schema.

    Args:
        clock: returns the server's time, microseconds since the epoch.
        chance: what PostgreSQL's random() draws from.
    """

    def __init__(self, clock: Callable[[], int] | None = None, chance: random.Random | None = None) -> None:
        self.clock = clock or (lambda: time.time_ns() // 1000)
        self.chance = chance or random.Random()
        self.jobs = Table(unique=_type_and_key)
        self.keys = Table()
        self.finished = Table(by="id")
        self.attempts = Table(by="job_id")
        self.states = Table()
        self.cancels = Table()
        self.progress = Table()
        self.guards = Table()
        self.workers = Table()
        self.idle = Table()
        self.limits = Table()
        self.duties = Table()
        self.manual = Table()
        self.listeners: list[Callable[[str], None]] = []
        """Called with each notice of a transaction that was committed."""
        self.walk: Callable[[bool], tuple[int, int]] = lambda whole: (0, 0)
        """Says how many entries of rows that are gone a claim or a look passes over, and how long that takes (us); it
        is told whether it starts at the very start."""
        self._next = 1000
        self._open: set[Transaction] = set()
        self._rows = 0
        start = self.begin()
        for name, every in (("partitions", 3600), ("concurrency_keys", 10), ("horizon", 60)):
            first = self.clock() + (60 * _SECOND if name == "horizon" else 0)
            self._add_now(start, self.duties, name, {"name": name, "every": every * _SECOND, "next_at": first})
        self.commit(start)

    def begin(self) -> Transaction:
        """Begin a transaction."""
        return Transaction(self._number)

    def _number(self, txn: Transaction) -> int:
        self._open.add(txn)
        self._next += 1
        return self._next - 1

    def commit(self, txn: Transaction) -> None:
        """Commit, and tell those who listen."""
        try:
            txn.commit()
        finally:
            self._open.discard(txn)
        for notice in txn.notices:
            for listener in list(self.listeners):
                listener(notice)

    def abort(self, txn: Transaction) -> None:
        """Roll back."""
        txn.abort()
        self._open.discard(txn)

    @property
    def oldest_open(self) -> int:
        """The number before which every transaction has ended."""
        return min((txn.number for txn in self._open if txn.number is not None), default=self._next)

    def due_now(self, txn: Transaction) -> int:
        """The moment by which jobs are due: the manual clock's, else the server's."""
        manual = self.manual.find(txn, True)
        return self.clock() if manual is None else int(manual["now"])

    def history_key(self, id: str) -> tuple[str, int]:
        """Return a key for a row of the history."""
        self._rows += 1
        return id, self._rows

    def _add_now(self, txn: Transaction, table: Table, key: Hashable, values: Values) -> None:
        made = run_at_once(txn.insert(table, key, values))
        assert made is not None

    def append(self, txn: Transaction, table: Table, id: str, values: Values) -> None:
        """Add a row to the history."""
        self._add_now(txn, table, self.history_key(id), values)

    def row(self, table: Table, key: Hashable) -> Row:
        """Return the row that holds this key."""
        return table.rows[key]


def run_at_once(steps: Steps[Row | None]) -> Row | None:
    """Run what waits for nobody."""
    try:
        while True:
            wait = next(steps)
            assert wait is None, "nobody is in the way"
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def _type_and_key(job: Values) -> Hashable | None:
    return None if job["key"] is None else (job["job_type"], job["key"])


def upsert(txn: Transaction, table: Table, key: Hashable, new: Values, changes: Values | None = None) -> Steps[None]:
    """Insert a row; where it is there, make `changes` to it, none without."""
    while (yield from txn.insert(table, key, new)) is None:
        if changes is None:
            return
        row = table.rows.get(key)
        if row is None:
            continue
        found = yield from txn.lock(row, "no key update")
        if found is not None:
            txn.put(row, **changes)
            return


def refuse_nul(json: str | None) -> None:
    """Refuse what PostgreSQL cannot store in a text.

    Raises:
        psycopg.DataError
    """
    if json is not None and "\\u0000" in json and "\0" in repr_of(json):
        raise psycopg.errors.UntranslatableCharacter("unsupported Unicode escape sequence")


def repr_of(json: str) -> str:
    """Return all texts that are in a JSON value."""
    parts: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, str):
            parts.append(value)
        elif isinstance(value, list):
            for each in value:  # pyright: ignore[reportUnknownVariableType]
                walk(each)  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(value, dict):
            for name, each in value.items():  # pyright: ignore[reportUnknownVariableType]
                walk(name)  # pyright: ignore[reportUnknownArgumentType]
                walk(each)  # pyright: ignore[reportUnknownArgumentType]

    walk(msgspec.json.decode(json))
    return "".join(parts)


def as_id(id: str | UUID | None) -> str | None:
    """Return an id as it is stored."""
    return None if id is None else str(id)
