"""How much CPU the server and this machine have used, as far as the system tells."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from piecework.store.measuring import Server

_PROC = Path("/proc")
_APART = 3.0
"""Seconds by which the start of a process and of its session may differ, by what the system and the server say."""
# Fields of /proc/PID/stat, counted from the state on.
_PARENT, _USER, _WAITED_END, _START = 1, 11, 15, 19
# Fields of a core in /proc/stat.
_IDLE, _WAITS = 3, 4


def machine_seconds() -> float | None:
    """Return for how many seconds the cores that this process may use were busy so far, with whatever."""
    try:
        lines = (_PROC / "stat").read_text().splitlines()
    except OSError:
        return None
    ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    ticks = [list(map(int, line.split()[1:9])) for line in lines if line.split(" ", 1)[0] in ours]
    return sum(sum(each) - each[_IDLE] - each[_WAITS] for each in ticks) / os.sysconf("SC_CLK_TCK")


class ServerCpu:
    """All processes of a server: the postmaster, those that it has waited for, and those that live."""

    def __init__(self, postmaster: int) -> None:
        self._postmaster = postmaster
        self._ticks = os.sysconf("SC_CLK_TCK")

    @classmethod
    def of(cls, server: Server) -> Self | None:
        """Find the server's processes, known by a session's id and start; None if they are not here, or hidden."""
        try:
            session = _fields(server.pid)
            name = (_PROC / str(server.pid) / "comm").read_text()
            started = _booted() + int(session[_START]) / os.sysconf("SC_CLK_TCK")
            postmaster = int(session[_PARENT])
            _fields(postmaster)
        except (OSError, ValueError, IndexError):
            return None
        # The id may be another machine's, or another container's.
        return cls(postmaster) if "postgres" in name and abs(started - server.since) < _APART else None

    def seconds(self) -> float | None:
        """Return the seconds so far; None if the server has gone."""
        try:
            ticks = sum(map(int, _fields(self._postmaster)[_USER:_WAITED_END]))
            for entry in os.listdir(_PROC):
                if entry.isdigit():
                    ticks += self._of_child(int(entry))
        except OSError:
            return None
        return ticks / self._ticks

    def _of_child(self, process: int) -> int:
        try:
            fields = _fields(process)
        except OSError:  # it has ended
            return 0
        return sum(map(int, fields[_USER : _USER + 2])) if int(fields[_PARENT]) == self._postmaster else 0


def _fields(process: int) -> list[str]:
    return (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()


def _booted() -> float:
    for line in (_PROC / "stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    raise ValueError("the system does not say when it was started")
