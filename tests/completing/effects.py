"""The application's own writes, which commit with the job or not at all."""

from __future__ import annotations

from engine.helpers import count, moves, query, value

from piecework import JobHandle

PAY = "INSERT INTO effects VALUES ('paid')"
OWE = "INSERT INTO debts VALUES (1)"
"""Refused when it is committed: there is no such account."""


class Effects:
    """What an onlooker sees."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    @property
    def all(self) -> list[object]:
        """The effects that were committed."""
        return [row[0] for row in query(self.dsn, "SELECT what FROM effects ORDER BY what")]

    def moves(self, handle: JobHandle[object]) -> list[object]:
        """How the attempts of a job ended that did not complete it."""
        return moves(self.dsn, handle.id)

    @property
    def guards(self) -> int:
        return count(self.dsn, "guards")

    @property
    def open_transactions(self) -> int:
        """How many sessions of piecework's are in a transaction."""
        return int(str(value(
            self.dsn,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%%' "
            "AND application_name = 'piecework'",
        )))  # fmt: skip
