"""When each of two servers took writes: asked of each all the time, by a connection of its own."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from types import TracebackType

import psycopg
from engine.helpers import query, until

EVERY = 0.03
WITHIN = 120.0
TABLE = "CREATE TABLE IF NOT EXISTS public.probe (at timestamptz DEFAULT clock_timestamp())"


class Probe:
    """Writes to each server while it is open.

    Args:
        dsns: of each alone.
        primary: of the one that writes now.
    """

    def __init__(self, dsns: Sequence[str], primary: str) -> None:
        query(primary, TABLE)
        self._written: list[list[float]] = [[] for _ in dsns]
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=[dsn, written], name="probe", daemon=True)
            for dsn, written in zip(dsns, self._written, strict=True)
        ]

    def __enter__(self) -> Probe:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join(2 * EVERY)  # one may wait for a server that never answers

    def last_write(self, server: int) -> float:
        """When this server took its last write, as far as was heard of."""
        return self._written[server][-1]

    async def first_write(self, server: int, since: float) -> float:
        """Wait for the first write that this server has taken since."""
        written = self._written[server]
        await until(lambda: written and written[-1] >= since, within=WITHIN)
        return written[bisect_left(written, since)]

    def _write(self, dsn: str, written: list[float]) -> None:
        while not self._closing.is_set():
            try:
                with psycopg.connect(dsn, autocommit=True, connect_timeout=2, application_name="probe") as conn:
                    while not self._closing.is_set():
                        self._write_once(conn, written)
                        self._closing.wait(EVERY)
            except psycopg.Error:
                self._closing.wait(EVERY)

    def _write_once(self, conn: psycopg.Connection, written: list[float]) -> None:
        try:
            conn.execute("INSERT INTO public.probe DEFAULT VALUES")
        except psycopg.errors.ReadOnlySqlTransaction:
            return
        written.append(time.monotonic())
