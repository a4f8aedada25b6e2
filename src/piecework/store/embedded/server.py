"""What a client calls: a lease on the home's server, and a server that is ready."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from piecework.base.errors import EmbeddedError
from piecework.store.embedded import binaries
from piecework.store.embedded.cluster import is_ready
from piecework.store.embedded.home import DATABASE, PORT, SUPERUSER, Home, data_parent, owns
from piecework.store.embedded.locks import is_current, is_held, open_lock, try_lock, unlock

if TYPE_CHECKING:
    from types import TracebackType

DEFAULT_GRACE = timedelta(seconds=5)
DEFAULT_TIMEOUT = timedelta(seconds=60)
PAUSE = 0.01  # seconds between two looks at a server that another process starts
PASSED_ON = ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def acquire(
    home: Path | None = None,
    *,
    bin_dir: Path | None = None,
    grace: timedelta | None = None,
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> EmbeddedServer:
    """Takes a lease on the embedded server of `home`, starting the server if it is down. Blocks: call it in a thread.

    `home` is the folder that names the server (default: PIECEWORK_HOME, else `.piecework` in the working directory),
    `bin_dir` the folder of PostgreSQL's programs (default: PIECEWORK_POSTGRES_BIN, else found), `grace` how long the
    server outlives its last lease (default 5 s); these two count only where this call starts the server.

    When it returns, the DSN accepts connections. The lease lasts until `close`, or until this process has ended, in
    whatever way. Raises EmbeddedError if no server is ready within `timeout`, and at once if none can be.
    """
    if sys.platform == "win32":
        raise EmbeddedError(
            "the embedded PostgreSQL does not run on Windows: give a database URL (PIECEWORK_DATABASE_URL)"
        )
    server = EmbeddedServer(Home.make(home), bin_dir, DEFAULT_GRACE if grace is None else grace)
    try:
        server.ensure(timeout=timeout)
    except BaseException:
        server.close()
        raise
    return server


class EmbeddedServer:
    """A lease on an embedded server. Made by `acquire`; `ensure` and `close` may be called from any thread."""

    dsn: str
    """A libpq URL over the unix socket: database `piecework`, superuser `postgres`."""

    def __init__(self, home: Home, bin_dir: Path | None, grace: timedelta) -> None:
        if grace < timedelta(0):
            raise EmbeddedError(f"grace is how long the server outlives its last lease, so not negative: {grace}")
        self.home = home.path
        self._home = home
        self._bin_dir = bin_dir
        self._grace = grace
        self._guard = threading.Lock()
        self._closed = False
        self._lease: int | None = None
        self._owner = os.getpid()

    def ensure(self, *, timeout: timedelta = DEFAULT_TIMEOUT) -> None:
        """Returns when the server accepts connections, starting it if it is down: call it after a lost connection.

        Costs about a millisecond if the server is up. `dsn` stays as it was, unless the folder of the socket had to
        move. Raises EmbeddedError if no server is ready within `timeout`, and at once if none can be.
        """
        deadline = time.monotonic() + timeout.total_seconds()
        try:
            while not self._take_lease() or (dsn := _ready_dsn(self._home)) is None:
                self._launch(deadline)
                if time.monotonic() > deadline:
                    raise EmbeddedError(
                        f"the embedded PostgreSQL in {self.home} was not ready within {timeout.total_seconds():.1f} s; "
                        f"it may still be recovering. The end of {self._home.log}:{self._home.log_tail()}"
                    )
                time.sleep(PAUSE)
        except OSError as error:
            raise EmbeddedError(
                f"the folder {self.home} of the embedded PostgreSQL cannot be used ({error}): set PIECEWORK_HOME to a "
                "folder on a local disk that this user may write, or give a database URL"
            ) from error
        self.dsn = dsn

    def close(self) -> None:
        """Gives the lease back. The server stops a grace after the last one. Calling it again does nothing."""
        with self._guard:
            self._closed = True
            self._drop_lease()

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _take_lease(self) -> bool:
        """Takes the lease unless it is held; False while the supervisor stops the server and lets nobody in."""
        with self._guard:
            if self._closed:
                raise EmbeddedError("this lease on the embedded PostgreSQL was given back: call acquire() again")
            if self._lease is not None and is_current(self._lease, self._home.lease_lock):
                return True
            self._drop_lease()
            self._home = Home.make(self.home)  # deleted in the meantime, perhaps
            lease = open_lock(self._home.lease_lock)
            if try_lock(lease, shared=True) and is_current(lease, self._home.lease_lock):
                self._lease = lease
            else:
                os.close(lease)
            return self._lease is not None

    def _drop_lease(self) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        if self._owner == os.getpid():  # a fork shares the lease, and must not take it from its parent
            unlock(lease)
        os.close(lease)

    def _launch(self, deadline: float) -> None:
        """Starts a supervisor if there is none, and nobody else is at it. Returns when it is ready or has given up."""
        launching = open_lock(self._home.launch_lock)
        try:
            if try_lock(launching, shared=False):
                if not is_held(self._home.supervisor_lock):
                    _start_supervisor(self._home, binaries.find(self._bin_dir), self._grace, deadline)
                unlock(launching)
        finally:
            os.close(launching)


def remove(home: Path, *, timeout: timedelta = DEFAULT_TIMEOUT) -> None:
    """Deletes a home and the data of its server, once the server has stopped; a home that is not there is no error.

    Raises EmbeddedError if somebody still holds a lease, or the server still runs, after `timeout`.
    """
    place = Home(home.resolve())
    deadline = time.monotonic() + timeout.total_seconds()
    while is_held(place.supervisor_lock):
        if time.monotonic() > deadline:
            raise EmbeddedError(f"the embedded PostgreSQL in {home} still runs: close whatever uses it, then try again")
        time.sleep(PAUSE)
    pointer = place.read_pointer()
    if pointer is not None and owns(place, pointer.data.parent):
        shutil.rmtree(pointer.data.parent, ignore_errors=True)
    shutil.rmtree(place.path, ignore_errors=True)


def _ready_dsn(home: Home) -> str | None:
    """The DSN, if a supervisor lives and its server accepts connections."""
    pointer = home.read_pointer()
    if pointer is None or pointer.postmaster is None or not is_held(home.supervisor_lock):
        return None
    if not is_ready(pointer.data, pointer.socket, pointer.postmaster):
        return None
    return f"postgresql://{SUPERUSER}@/{DATABASE}?host={quote(str(pointer.socket), safe='/')}&port={PORT}"


def _start_supervisor(home: Home, programs: Path, grace: timedelta, deadline: float) -> None:
    """Starts the supervisor and waits for its report. Raises EmbeddedError with what it reports as gone wrong."""
    reading, writing = os.pipe()
    try:
        with open(home.log, "ab", opener=_private) as log:
            command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("__main__.py"))]
            starter = subprocess.run(
                [*command, home.path, programs, data_parent(), str(grace.total_seconds()), str(writing)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(writing,),
                start_new_session=True,
                cwd="/",
                env={name: os.environ[name] for name in PASSED_ON if name in os.environ} | {"LC_ALL": "C", "TZ": "UTC"},
                check=False,
            )
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    with open(reading, "rb", buffering=0) as report:
        failure = _read_until(report.fileno(), deadline)
    if starter.returncode != 0:
        raise EmbeddedError(
            f"{sys.executable} cannot start the supervisor of the embedded PostgreSQL:{home.log_tail()}"
        )
    if failure:
        raise EmbeddedError(failure)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _read_until(reading: int, deadline: float) -> str:
    """What the supervisor reports: nothing if it is ready, or died, or the deadline came first."""
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    report = b""
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            part = os.read(reading, 65536)
            if not part:
                break
            report += part
    return report.decode(errors="replace")
