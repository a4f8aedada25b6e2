"""The detached process, one per home, that runs the server, restarts it, and stops it when nobody needs it any more.

It holds the home's supervisor lock for as long as it lives. Only the holder writes the pointer and touches the data.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from piecework.base.errors import EmbeddedError
from piecework.store.embedded import binaries
from piecework.store.embedded.cluster import Cluster, is_ready
from piecework.store.embedded.home import (
    Home,
    Pointer,
    data_root,
    server_account,
    socket_folder,
)
from piecework.store.embedded.locks import is_current, open_lock, try_lock, unlock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

LOOK = 0.25  # seconds between two looks at the leases
PAUSES = (0.05, 0.2, 0.0)  # seconds after each start that failed; then the supervisor gives up
MAX_LOG = 4 << 20  # bytes; a longer log is moved aside, in place of the one moved before
STOPPING = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))  # fast, immediate, and by force


def main(arguments: Sequence[str]) -> None:
    """Detaches from the caller and supervises. What goes wrong before the server is ready is written to REPORT."""
    home, programs, parent, grace, report = arguments
    if os.fork():
        os._exit(0)
    os.umask(0o077)
    supervisor = Supervisor(Home(Path(home)), Path(programs), Path(parent), float(grace), int(report))
    try:
        supervisor.run()
    except EmbeddedError as error:
        supervisor.report(str(error))
    except BaseException as error:
        traceback.print_exc()
        supervisor.report(f"the supervisor of the embedded PostgreSQL failed: {error!r}; see {home}/server.log")


class Supervisor:
    """One life of the server, from the lock to the last lease."""

    def __init__(self, home: Home, programs: Path, parent: Path, grace: float, report: int) -> None:
        self._home = home
        self._programs = programs
        self._parent = parent
        self._grace = grace
        self._report = report
        self._lease = open_lock(home.lease_lock)
        self._idle_since: float | None = None
        self._stopping = False
        self._cluster: Cluster
        self._postgres: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Serves until nobody holds a lease for the grace, or a signal ends it. Raises EmbeddedError if it cannot."""
        if not self._lock():
            return
        wake = self._catch_signals()
        self._keep_log_small()
        fresh = self._prepare()
        try:
            postgres = self._start()
            self.report("")
            if fresh:
                self._sync()
            self._watch(postgres, wake)
        finally:
            self._stop()

    def _sync(self) -> None:
        try:
            self._cluster.sync()
        except (EmbeddedError, OSError) as error:
            self._say(f"the new data is not known to be on the disk: {error}")

    def _watch(self, postgres: subprocess.Popen[bytes], wake: int) -> None:
        while not self._stopping and not self._is_unneeded():
            if postgres.poll() is not None:
                self._say(f"the server ended with code {postgres.returncode}: starting it again")
                postgres = self._start()
            if select.select([wake], [], [], LOOK)[0]:
                os.read(wake, 4096)
            self._keep_log_small()

    def report(self, failure: str) -> None:
        """Tells the client that started this process that the server is ready (no text) or what went wrong, once."""
        if failure:
            self._say(failure)
        if self._report >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._report, failure.encode())
            os.close(self._report)
            self._report = -1

    def _lock(self) -> bool:
        lock = open_lock(self._home.supervisor_lock)
        deadline = time.monotonic() + 1.0
        while not try_lock(lock, shared=False):  # a client that looks whether the lock is held, holds it for an instant
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def _catch_signals(self) -> int:
        def stop(_number: int, _frame: FrameType | None) -> None:
            self._stopping = True

        def child_ended(_number: int, _frame: FrameType | None) -> None:
            """Only there so that the signal wakes the loop."""

        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, child_ended)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, stop)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return reading

    def _prepare(self) -> bool:
        """Finds or makes all that the server needs; says whether the data is new."""
        pointer = self._home.read_pointer()
        root = data_root(self._home, self._parent)
        account = server_account(root / "data")
        programs, major = binaries.usable_by(account, self._programs, self._parent)
        folder = socket_folder(root, pointer.socket if pointer else None, account)
        self._cluster = Cluster(root, folder, programs, account)
        self._point(None)
        self._cluster.check_version(major)
        return self._cluster.initialize()

    def _start(self) -> subprocess.Popen[bytes]:
        """Starts the server and waits until it is ready, however long it recovers, or until a signal says stop."""
        self._point(None)
        since = self._home.log.stat().st_size
        for pause in PAUSES:
            postgres = self._postgres = self._cluster.launch()
            while postgres.poll() is None:
                if self._stopping:
                    return postgres
                if is_ready(self._cluster.data, self._cluster.socket, postgres.pid):
                    self._point(postgres.pid)
                    return postgres
                time.sleep(0.005)
            time.sleep(pause)
        raise EmbeddedError(
            f"PostgreSQL does not start on {self._cluster.data}; the end of {self._home.log}:"
            f"{self._home.log_tail(since=since)}"
        )

    def _point(self, postmaster: int | None) -> None:
        cluster = self._cluster
        if is_current(self._lease, self._home.lease_lock):  # else the home is no longer ours: the next look ends this
            pointer = Pointer(os.getpid(), cluster.data, cluster.socket, cluster.programs, postmaster)
            self._home.write_pointer(pointer)

    def _is_unneeded(self) -> bool:
        """Whether no lease was held for the grace, or the home is gone. From a yes on, nobody gets a lease."""
        if not is_current(self._lease, self._home.lease_lock):
            return True
        if not try_lock(self._lease, shared=False):
            self._idle_since = None
            return False
        now = time.monotonic()
        if self._idle_since is None:
            self._idle_since = now
        if now - self._idle_since >= self._grace:
            return True
        unlock(self._lease)
        return False

    def _stop(self) -> None:
        self._point(None)
        # A data folder that was deleted may have a successor at its place, whose socket a proper stop would unlink.
        for number, patience in STOPPING if self._cluster.data.exists() else STOPPING[-1:]:
            if self._postgres is not None and self._postgres.poll() is None:
                self._postgres.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._postgres.wait(patience)
        if self._cluster.socket.parent != self._cluster.root:
            shutil.rmtree(self._cluster.socket, ignore_errors=True)

    def _keep_log_small(self) -> None:
        """All writers of the log append, so it may be cut while they write."""
        with contextlib.suppress(OSError):
            if self._home.log.stat().st_size > MAX_LOG:
                shutil.copyfile(self._home.log, self._home.log.with_suffix(".log.1"))
                os.truncate(self._home.log, 0)

    def _say(self, text: str) -> None:
        sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} piecework: {text}\n")
        sys.stderr.flush()
