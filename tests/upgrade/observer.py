"""Looks who waits for which lock, every 20 ms, from outside."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import psycopg

EVERY = 0.02
QUERY = """
SELECT l.pid, extract(epoch FROM l.waitstart)::float8, a.application_name, l.locktype, l.mode,
       coalesce(l.relation::regclass::text, ''), extract(epoch FROM clock_timestamp() - l.waitstart)::float8
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE NOT l.granted AND a.datname = current_database() AND l.waitstart IS NOT NULL
"""


@dataclass
class Wait:
    """A session that waited for a lock."""

    application: str
    locktype: str
    mode: str
    table: str
    seconds: float
    """For how long, when it was last seen waiting."""

    def __str__(self) -> str:
        return f"{self.application}: {self.mode} on {self.table or self.locktype}, {self.seconds * 1000:.0f} ms"


class Observer(threading.Thread):
    """Observes the database while it is entered."""

    def __init__(self, dsn: str) -> None:
        super().__init__(name="observer", daemon=True)
        self._conn = psycopg.connect(dsn, autocommit=True, application_name="observer")
        self._ending = threading.Event()
        self._waits: dict[tuple[int, float, str], Wait] = {}
        self.looks = 0

    def __enter__(self) -> Observer:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ending.set()
        self.join()
        self._conn.close()

    def run(self) -> None:
        while not self._ending.is_set():
            began = time.monotonic()
            for pid, since, application, locktype, mode, table, seconds in self._conn.execute(QUERY):
                self._waits[pid, since, mode] = Wait(application, locktype, mode, table, seconds)
            self.looks += 1
            self._ending.wait(max(0.0, began + EVERY - time.monotonic()))

    def waits(self, role: str = "") -> list[Wait]:
        """Who waited, longest first; `role`: only those whose application's name ends so."""
        found = [wait for wait in self._waits.values() if wait.application.endswith(role)]
        return sorted(found, key=lambda wait: -wait.seconds)

    def others(self) -> list[Wait]:
        """The waits of all but the migrator, longest first."""
        return [wait for wait in self.waits() if not wait.application.endswith("migrator")]
