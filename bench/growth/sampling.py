"""What the sessions of a server do while workers run: who they are, and what they wait for."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import psycopg

EVERY = 0.02  # seconds
LOAD = Path("/proc/loadavg")
SAMPLE = """
SELECT pid, backend_type, state, coalesce(wait_event_type || ' ' || wait_event, 'running'), left(query, 1000)
FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND (datname = current_database() OR datname IS NULL)
"""
CALLED = re.compile(r"\.(claim|settle)\w*\(")
KINDS = ("claim", "settle", "other sessions", "background")


class Seen(NamedTuple):
    """All samples of a run."""

    samples: int
    kinds: Mapping[int, str]
    """One of KINDS for each process of the server that was seen."""
    waiting: Mapping[str, float]
    """How many sessions, on average, were in the middle of a statement, by what they waited for or `running`."""
    runnable: float
    """How many processes of the machine, on average, ran or waited for a core."""


def kind(backend_type: str, query: str) -> str:
    """What a process of the server is there for, by the last statement of its session."""
    if backend_type != "client backend":
        return "background"
    found = CALLED.search(query)
    return found[1] if found else "other sessions"


class Sampler:
    """Samples until it is stopped, on a session and a thread of its own."""

    def __init__(self, dsn: str) -> None:
        self._conn = psycopg.connect(dsn, autocommit=True)
        self._stop = threading.Event()
        self._samples = 0
        self._kinds: dict[int, str] = {}
        self._waiting: Counter[str] = Counter()
        self._runnable = 0
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> Seen:
        """End, and say what was seen."""
        self._stop.set()
        self._thread.join()
        self._conn.close()
        samples = max(self._samples, 1)
        waiting = {what: count / samples for what, count in self._waiting.items()}
        return Seen(self._samples, self._kinds, waiting, self._runnable / samples)

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            for pid, backend_type, state, what, query in self._conn.execute(SAMPLE).fetchall():
                found = kind(backend_type, query)
                # A session that has claimed or settled once is there for that.
                if self._kinds.get(pid) not in ("claim", "settle"):
                    self._kinds[pid] = found
                if state == "active":
                    self._waiting[what] += 1
            # Less the thread that asks.
            self._runnable += int(LOAD.read_text().split()[3].partition("/")[0]) - 1
            self._samples += 1
