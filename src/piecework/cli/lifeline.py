"""A socket between a worker process and the process that started it: one end closes when either is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from typing import IO

_READY = b"r"


class Lifeline:
    """The worker's end. When the other end is closed, by whatever death, the worker is told to drain.

    The kernel holds the line: it works for a killed parent too, and on every system.
    """

    def __init__(self, line: socket.socket | None) -> None:
        self._line = line
        if line is not None:
            threading.Thread(target=self._watch, args=[line], name="lifeline", daemon=True).start()

    def ready(self) -> None:
        """Tell the parent that the start went well."""
        if self._line is not None:
            try:
                self._line.send(_READY)
            except OSError:
                pass  # The parent is gone: the thread sees to it.

    def _watch(self, line: socket.socket) -> None:
        try:
            line.recv(1)
        except OSError:
            pass
        os.kill(os.getpid(), signal.SIGTERM)


def grasp(descriptor: int | None) -> Lifeline:
    """Take the inherited end of the line; without a descriptor there is no parent to watch."""
    return Lifeline(None if descriptor is None else socket.socket(fileno=descriptor))


class Child:
    """The parent's end, with the worker process at the other. Let go of it only when that has ended."""

    def __init__(self, process: Process, line: socket.socket) -> None:
        self.process = process
        self._line = line

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def ended(self) -> bool:
        """Whether the process is known to have ended."""
        return self.process.returncode is not None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        try:
            self.process.send_signal(number)
        except ProcessLookupError:
            pass

    async def started(self) -> bool:
        """Wait until it says that it is ready; False if it ended first."""
        try:
            return await asyncio.get_running_loop().sock_recv(self._line, 1) == _READY
        except ConnectionError:
            return False

    async def wait(self) -> int:
        """Wait for its end and return its exit code, negative for the signal that ended it."""
        try:
            return await self.process.wait()
        finally:
            self._line.close()


async def start(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, stderr: IO[bytes] | None = None
) -> Child:
    """Start a worker process in a process group of its own: a Ctrl-C at the terminal reaches its parent alone."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        try:
            process = await asyncio.create_subprocess_exec(
                *command, "--lifeline", str(theirs.fileno()), pass_fds=[theirs.fileno()], process_group=0,
                stdin=DEVNULL, stderr=stderr, env=env,
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
    return Child(process, ours)
