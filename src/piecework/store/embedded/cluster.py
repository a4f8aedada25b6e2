"""One data folder: making it, starting a server on it, telling whether the server is ready.

The processes of a server inherit the lock `server.lock`, so it is free only when the last of them is gone, also those
that outlive a killed postmaster. Who holds it may therefore call any `postmaster.pid` in the folder a stale one.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from piecework.base.errors import EmbeddedError
from piecework.store.embedded.home import DATABASE, SOCKET_NAME, SUPERUSER
from piecework.store.embedded.locks import open_lock, try_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from piecework.store.embedded.home import Account, AsUser

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    # A claim walks the index entries of jobs that have gone until a vacuum clears them away.
    "autovacuum_naptime": "5s",
    "timezone": "UTC",
    "jit": "off",  # compiling costs more than the short statements of a job runner take
    "logging_collector": "off",  # the supervisor keeps the log, and keeps it small
    "log_checkpoints": "off",
    "cluster_name": DATABASE,
}
PATIENCE = 5.0  # seconds for the processes of an earlier server to leave, before they are killed
SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
PR_SET_PDEATHSIG = 1


def answers(folder: Path) -> bool:
    """Whether a PostgreSQL server answers on the socket in the folder."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(folder / SOCKET_NAME))
            client.sendall(SSL_REQUEST)
            return client.recv(1) in (b"N", b"S")
        except OSError:
            return False


def is_ready(data: Path, folder: Path, postmaster: int) -> bool:
    """Whether the server that this postmaster runs accepts connections: its file says so and its socket answers."""
    try:
        lines = (data / "postmaster.pid").read_text(errors="replace").splitlines()
    except OSError:
        return False
    return len(lines) > 7 and lines[0] == str(postmaster) and lines[7].strip() == "ready" and answers(folder)


class Cluster:
    """The data folder in `root`, the programs for it and the user it belongs to."""

    def __init__(self, root: Path, folder: Path, programs: Path, account: Account | None) -> None:
        self.root = root.resolve()  # as the kernel names the working directory of the server's processes
        self.data = self.root / "data"
        self.socket = folder
        self.programs = programs
        self._account = account
        self._as_user: AsUser = account.arguments() if account else {}

    def check_version(self, major: int) -> None:
        """Raises EmbeddedError if the data was written by another major version than that of the programs."""
        try:
            written = (self.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            return
        if written != str(major):
            raise EmbeddedError(
                f"the data in {self.data} was written by PostgreSQL {written}, and the programs in {self.programs} are "
                f"PostgreSQL {major}. Set PIECEWORK_POSTGRES_BIN to the folder with the programs of a PostgreSQL "
                f"{written} to go on with it (and to carry it over with pg_dump), or delete {self.data} to start anew"
            )

    def initialize(self) -> bool:
        """Makes the data folder if there is none; says whether it did. A broken-off try leaves nothing in its place."""
        for leftover in self.root.glob("initdb-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if (self.data / "PG_VERSION").exists():
            return False
        fresh = Path(tempfile.mkdtemp(dir=self.root, prefix="initdb-"))
        if self._account is not None:
            os.chown(fresh, self._account.uid, self._account.gid)
        try:
            # Not synced here, as that takes longer than all the rest: `sync` follows when the server is up.
            self._run(
                "initdb", "-D", str(fresh), "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-locale", "-N",
                "--no-instructions",
            )  # fmt: skip
            statement = f'CREATE DATABASE "{DATABASE}"'
            self._run("postgres", "--single", "-F", "-j", "-D", str(fresh), "template1", given=statement)
            fresh.rename(self.data)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return True

    def sync(self) -> None:
        """Brings a data folder that was just made to the disk."""
        self._run("initdb", "-S", "-D", str(self.data))
        descriptor = os.open(self.root, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def launch(self) -> subprocess.Popen[bytes]:
        """Starts a server, once nothing of an earlier one is left. It ends when this process does."""
        lock = self._take()
        try:
            if not self._processes():
                for stale in (
                    self.data / "postmaster.pid",
                    self.socket / SOCKET_NAME,
                    self.socket / f"{SOCKET_NAME}.lock",
                ):
                    stale.unlink(missing_ok=True)
            quoted = str(self.socket).replace('"', '""')
            settings = {**SETTINGS, "unix_socket_directories": f'"{quoted}"'}
            command = [str(self.programs / "postgres"), "-D", str(self.data)]
            command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
            return subprocess.Popen(
                command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                pass_fds=(lock,),
                preexec_fn=_end_with_parent(),  # noqa: PLW1509 - this process has one thread
                **self._as_user,
            )
        finally:
            os.close(lock)

    def _take(self) -> int:
        """Waits until the last process of an earlier server has left, helping it along."""
        lock = open_lock(self.root / "server.lock")
        asked = 0.0
        killed = False
        while not try_lock(lock, shared=False):
            if not asked:
                asked = time.monotonic()
                self._ask_to_leave()
            elif not killed and time.monotonic() - asked > PATIENCE:
                killed = True
                _signal(self._processes(), signal.SIGKILL)
            elif time.monotonic() - asked > 2 * PATIENCE:
                raise EmbeddedError(
                    f"another server still works on {self.data}: stop it, or set PIECEWORK_HOME to another folder"
                )
            time.sleep(0.01)
        return lock

    def _ask_to_leave(self) -> None:
        """A postmaster without its supervisor is asked to stop; processes without their postmaster have to go."""
        processes = self._processes()
        try:
            named = int((self.data / "postmaster.pid").read_text(errors="replace").partition("\n")[0])
        except (OSError, ValueError):
            named = 0
        if named in processes:
            _signal([named], signal.SIGINT)
        else:
            _signal(processes, signal.SIGQUIT)

    def _processes(self) -> list[int]:
        """PostgreSQL's processes that work in the data folder; where there is no /proc, its postmasters only."""
        if not sys.platform.startswith("linux"):
            listing = subprocess.run(
                ["ps", "-axo", "pid=,command="], capture_output=True, text=True, check=False
            ).stdout
            return [int(line.split()[0]) for line in listing.splitlines() if f"postgres -D {self.data} " in line]
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and self._is_in(name)]

    def _is_in(self, process: str) -> bool:
        try:
            program = os.path.basename(os.readlink(f"/proc/{process}/exe"))
            return program.startswith("postgres") and os.readlink(f"/proc/{process}/cwd") == str(self.data)
        except OSError:
            return False

    def _run(self, program: str, *arguments: str, given: str = "") -> None:
        command = [str(self.programs / program), *arguments]
        answer = subprocess.run(
            command,
            input=given,
            text=True,
            cwd="/",
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=_end_with_parent(signal.SIGKILL),
            **self._as_user,
        )
        if answer.returncode != 0:
            last = "".join(f"\n    {line}" for line in answer.stdout.splitlines()[-5:])
            raise EmbeddedError(f"{command[0]} failed with code {answer.returncode}:{last}")


def _signal(processes: Sequence[int], number: signal.Signals) -> None:
    for process in processes:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue


def _end_with_parent(number: signal.Signals = signal.SIGINT) -> Callable[[], None] | None:
    """What a child runs before its program, so that it gets the signal when this process dies. Linux only."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def tie() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return tie
