"""The embedded server of a run, databases in it, and what its processes, its statements and its log cost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg.conninfo import make_conninfo

from piecework.store.embedded.server import EmbeddedServer, acquire, remove

TICKS = os.sysconf("SC_CLK_TCK")
RESTARTS_WITHIN = 60.0


class Reading(NamedTuple):
    """Counters of the server, as they stand or as they grew between two readings."""

    statements: int
    """Statements that clients sent to the database."""
    wal: int
    """Bytes of write-ahead log, of the whole server."""
    cpu: float
    """Seconds of CPU of all processes of the server."""

    def since(self, before: Reading) -> Reading:
        """How much each grew since an earlier reading."""
        return Reading(self.statements - before.statements, self.wal - before.wal, self.cpu - before.cpu)


class Statement(NamedTuple):
    """What all executions of a statement took together."""

    name: str
    calls: int
    milliseconds: float


class Server:
    """An embedded server as `Jobs()` would use it, with its default settings; only pg_stat_statements is added."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lease = _acquire_counting(home)
        self._admin = psycopg.connect(self._lease.dsn, autocommit=True)
        self._admin.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        backend = self._number("SELECT pg_backend_pid()")
        self._postmaster = int(_fields(backend)[1])
        self.version = str(self._value("SHOW server_version"))

    def crash(self) -> float:
        """Have it lose all sessions and recover from its log; return the clock at which it accepted a write again."""
        with psycopg.connect(self._lease.dsn, autocommit=True) as victim:
            os.kill(victim.info.backend_pid, signal.SIGKILL)
            deadline = time.monotonic() + RESTARTS_WITHIN
            # The sessions are gone as soon as the postmaster has noticed; until then it would answer as before.
            while _answers(self._admin):
                time.sleep(0.01)
        self._admin.close()
        while True:
            try:
                self._admin = psycopg.connect(self._lease.dsn, autocommit=True)
                self._admin.execute("SELECT pg_current_xact_id()")
                return time.monotonic()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def close(self) -> None:
        """Stop the server and delete its data."""
        self._admin.close()
        self._lease.close()
        remove(self._home)

    def create(self, name: str, template: str = "template1") -> str:
        """Make a database that stays until the server goes, and return its DSN."""
        self._admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
        return make_conninfo(self._lease.dsn, dbname=name)

    @contextmanager
    def database(self, name: str, template: str = "template1") -> Generator[str]:
        """Lend the DSN of a fresh database, without statistics of any kind."""
        dsn = self.create(name, template)
        self._admin.execute("CHECKPOINT")
        self._admin.execute("SELECT pg_stat_statements_reset()")
        try:
            yield dsn
        finally:
            self._admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())

    def read(self, database: str) -> Reading:
        """Read the counters."""
        statements = (
            "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid "
            "WHERE datname = %s"
        )
        return Reading(
            self._number(statements, database),
            self._number("SELECT pg_current_wal_insert_lsn() - '0/0'"),
            self.cpu(),
        )

    @contextmanager
    def without_autovacuum(self) -> Generator[None]:
        """Turn autovacuum off, whose transactions count like those of a client."""
        try:
            self._admin.execute("ALTER SYSTEM SET autovacuum = off")
            self._admin.execute("SELECT pg_reload_conf()")
            yield
        finally:
            self._admin.execute("ALTER SYSTEM RESET autovacuum")
            self._admin.execute("SELECT pg_reload_conf()")

    def transactions(self, database: str) -> int:
        """Transactions of the database, committed and rolled back, as far as its sessions have told."""
        counted = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s"
        return self._number(counted, database)

    def statements(self, database: str, most: int = 8) -> list[Statement]:
        """The statements that took the server longest, named by their first words."""
        rows = self._admin.execute(
            "SELECT query, calls, total_exec_time FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid "
            "WHERE datname = %s ORDER BY total_exec_time DESC LIMIT %s", [database, most]
        ).fetchall()  # fmt: skip
        return [Statement(" ".join(str(query).split())[:60], calls, round(ms, 1)) for query, calls, ms in rows]

    def cpu(self) -> float:
        """Seconds of CPU of all processes: the postmaster, those it has waited for, and those that live."""
        own = _fields(self._postmaster)
        return sum(map(int, own[11:15])) / TICKS + sum(self.processes().values())

    def processes(self) -> dict[int, float]:
        """Seconds of CPU of each process of the server that lives, but for the postmaster."""
        found: dict[int, float] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    fields = _fields(int(entry))
                except OSError:
                    continue
                if int(fields[1]) == self._postmaster:
                    found[int(entry)] = (int(fields[11]) + int(fields[12])) / TICKS
        return found

    def buffers(self, database: str, word: str) -> int:
        """Pages that the statements with a word in them have looked at, in memory or not."""
        looked_at = (
            "SELECT coalesce(sum(shared_blks_hit + shared_blks_read), 0) FROM pg_stat_statements s "
            "JOIN pg_database d ON d.oid = s.dbid WHERE datname = %s AND query LIKE %s"
        )
        return self._number(looked_at, database, f"%{word}%")

    def flushes(self) -> int:
        """How often the log was flushed to the disk, as far as the sessions have told: when they end, they do."""
        return self._number("SELECT coalesce(sum(fsyncs), 0)::bigint FROM pg_stat_io WHERE object = 'wal'")

    def _number(self, query: str, *params: object) -> int:
        return int(str(self._value(query, *params)))

    def _value(self, query: str, *params: object) -> object:
        row = self._admin.execute(query.encode(), params).fetchone()
        assert row is not None
        return row[0]


def _acquire_counting(home: Path) -> EmbeddedServer:
    """Lease the server, started anew once if it does not load pg_stat_statements yet."""
    deadline = time.monotonic() + RESTARTS_WITHIN
    while True:
        lease = acquire(home, grace=timedelta(0))
        with psycopg.connect(lease.dsn, autocommit=True) as conn:
            row = conn.execute("SHOW shared_preload_libraries").fetchone()
            if row is not None and "pg_stat_statements" in str(row[0]):
                return lease
            conn.execute("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
        lease.close()
        if time.monotonic() > deadline:
            raise TimeoutError(f"the embedded server was not started anew within {RESTARTS_WITHIN:.0f} s")
        time.sleep(0.5)


def _answers(conn: psycopg.Connection) -> bool:
    try:
        conn.execute("SELECT")
    except psycopg.OperationalError:
        return False
    return True


def _fields(process: int) -> list[str]:
    """The fields of /proc/PID/stat from the process's state on: [1] is its parent, [11:15] CPU ticks."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
