"""Clients of an embedded server in processes of their own, and ways to look at the server from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from piecework.store.embedded.home import Home, Pointer
from piecework.store.embedded.locks import is_held

DEADLINE = 30.0  # seconds for anything that is to happen

CLIENT = """
import sys
from datetime import timedelta
from pathlib import Path
from piecework.store.embedded import acquire
home, programs = sys.argv[1:]
with acquire(Path(home), grace=timedelta(0), bin_dir=Path(programs) if programs else None) as server:
    print(server.dsn, flush=True)
    sys.stdin.read()
"""


class Client:
    """A process that holds a lease until it is told to leave, or killed."""

    def __init__(self, home: Path, programs: Path | None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(home), str(programs or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin = self._process.stdin
        self._stdout = self._process.stdout

    def dsn(self) -> str:
        """Waits until the client has its server."""
        return self._stdout.readline().strip()

    def kill(self) -> None:
        self._process.kill()
        self.leave()

    def leave(self) -> None:
        self._stdin.close()
        self._process.wait(DEADLINE)
        self._stdout.close()


def wait_until(what: Callable[[], object], within: float = DEADLINE) -> float:
    """Waits for the condition; returns how long that took, in seconds."""
    start = time.monotonic()
    while not what():
        if time.monotonic() - start > within:
            raise AssertionError(f"not within {within} s: {what}")
        time.sleep(0.005)
    return time.monotonic() - start


def query(dsn: str, statement: str) -> str:
    """The first column of the first row, as text, by a connection of its own."""
    with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else ("",)
        assert row is not None
        return str(row[0])


def started_at(dsn: str) -> str:
    """Names one life of the server."""
    return query(dsn, "SELECT pg_postmaster_start_time()")


def pointer(home: Path) -> Pointer:
    found = Home(home).read_pointer()
    assert found is not None
    return found


def postmaster(home: Path) -> int:
    found = pointer(home).postmaster
    assert found is not None
    return found


def is_up(home: Path) -> bool:
    """Whether a supervisor lives: it leaves after its server."""
    return is_held(Home(home).supervisor_lock)


def is_gone(process: int) -> bool:
    """Whether the process has ended: it may remain as a zombie, if nobody asks how it ended."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except ProcessLookupError:
        return True
    except FileNotFoundError:
        return Path("/proc/self").exists()


def children(process: int) -> list[int]:
    if not Path("/proc/self").exists():
        found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False)
        return [int(line) for line in found.stdout.split()]
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _parent(name) == process]


def _parent(process: str) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def stop(home: Path) -> None:
    """Ends the server now, as a machine does that goes down."""
    if is_up(home):
        os.kill(pointer(home).supervisor, signal.SIGTERM)
        wait_until(lambda: not is_up(home))


def log(home: Path) -> str:
    return Home(home).log.read_text()


def pretend_postmaster(home: Path, process: int) -> None:
    """Leaves the files of a server that was killed, whose process id now is that of another program."""
    found = pointer(home)
    lines = [process, found.data, 1, 5432, found.socket, "", " 1 1", "ready   "]
    (found.data / "postmaster.pid").write_text("".join(f"{line}\n" for line in lines))
    (found.socket / ".s.PGSQL.5432.lock").write_text(f"{process}\n{found.data}\n1\n5432\n{found.socket}\n")


def set_postmaster_in_pointer(home: Path, process: int) -> None:
    fields = json.loads(Home(home).pointer_file.read_text())
    Home(home).pointer_file.write_text(json.dumps({**fields, "postmaster": process}))
