"""A PostgreSQL server of one's own, to be stopped, killed and restarted, with a log to read. Blocking."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg

from piecework.store.embedded import binaries
from piecework.store.embedded.home import AsUser, data_parent, server_account

STARTS_WITHIN = 30.0  # seconds
STOPS_WITHIN = 30.0
_MEGABYTE = 1 << 20
_LONGEST = 60


class Node:
    """A server on a socket in a folder of its own. Its `dsn` stays the same across restarts.

    Args:
        bin_dir: the folder with its programs; None: what the embedded server would use.
        settings: of the server, by their names.
        copy_of: makes it a standby of this one, which runs.
        surroundings: environment variables of the server, besides the process's.
        disk: its data gets a disk of so many bytes, in memory: mounting it takes root, and Linux.
    """

    def __init__(
        self, bin_dir: Path | None, settings: Mapping[str, str], *, copy_of: Node | None = None,
        surroundings: Mapping[str, str] | None = None, disk: int | None = None,
    ) -> None:  # fmt: skip
        self._root = Path(tempfile.mkdtemp(prefix="piecework-pg-", dir=temporary()))
        self._data = self._root / "data" / "base"
        account = server_account(self._data)
        self._as_user: AsUser = account.arguments() if account is not None else {}
        self._data.parent.mkdir()
        self._surroundings = os.environ | (surroundings or {})
        self._mounted = disk is not None
        if disk is not None:
            options = f"size={disk // _MEGABYTE}m,mode=0755"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "piecework", self._data.parent], check=True)
        if account is not None:
            for folder in (self._root, self._data.parent):
                os.chown(folder, account.uid, account.gid)
            data_parent().mkdir(mode=0o755, parents=True, exist_ok=True)
        self._programs, self.major = binaries.usable_by(account, binaries.find(bin_dir), data_parent())
        self._settings = {
            "listen_addresses": "", "unix_socket_directories": str(self._root), "fsync": "off", "timezone": "UTC",
            "log_line_prefix": "%m [%p] %a: ", **settings,
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.log = self._root / "log"
        self.dsn = f"postgresql://postgres@/postgres?host={self._root}"
        try:
            self._make_data(copy_of)
            self.start()
        except BaseException:
            self.remove()
            raise

    def _make_data(self, copy_of: Node | None) -> None:
        command: list[str | Path] = [
            self._programs / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale",
            "-N",
        ] if copy_of is None else [
            self._programs / "pg_basebackup", "-D", self._data, "-h", copy_of.folder, "-U", "postgres", "-R", "-X",
            "stream", "-c", "fast", "--no-sync",
        ]  # fmt: skip
        subprocess.run(command, cwd="/", check=True, capture_output=True, **self._as_user)

    @property
    def folder(self) -> Path:
        """Where its socket is."""
        return self._root

    @property
    def disk(self) -> Path | None:
        """The folder at which its small disk is mounted; None: it has none."""
        return self._data.parent if self._mounted else None

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the postmaster is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, and return when it accepts connections."""
        command = [str(self._programs / "postgres"), "-D", str(self._data)]
        command += [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self._surroundings,
                **self._as_user,
            )
        deadline = time.monotonic() + STARTS_WITHIN
        while True:
            try:
                psycopg.connect(self.dsn).close()
                return
            except psycopg.OperationalError as error:
                assert self._process.poll() is None, f"the server ended:\n{self.log.read_text()}"
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not ready within {STARTS_WITHIN} s:\n{self.log.read_text()}") from error
                time.sleep(0.01)

    def stop(self, mode: signal.Signals = signal.SIGINT) -> None:
        """Stop it and wait: SIGINT ends all sessions (fast), SIGTERM waits for them (smart), SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(mode)
            self._process.wait(STOPS_WITHIN)
            self._process = None

    def restart(self) -> None:
        """Stop it fast and start it again."""
        self.stop()
        self.start()

    def become_standby(self) -> None:
        """From the next start on it only reads, until `pg_promote()`."""
        (self._data / "standby.signal").touch(mode=0o666)

    def remove(self) -> None:
        """Stop it and delete its data."""
        try:
            self.stop(signal.SIGQUIT)
        finally:
            if self._mounted:
                subprocess.run(["umount", "-l", self._data.parent], check=False)
            shutil.rmtree(self._root, ignore_errors=True)


def temporary() -> Path:
    """Return where temporary folders are, or /tmp: the path of a socket is short, and the server's user comes there."""
    folder = Path(tempfile.gettempdir()).resolve()
    open_to_all = all(each.stat().st_mode & stat.S_IXOTH for each in (folder, *folder.parents))
    return folder if open_to_all and len(str(folder)) <= _LONGEST else Path("/tmp")


def can_mount() -> bool:
    """Whether a small disk can be made here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory(prefix="piecework-disk-") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "piecework", folder]
        tried = subprocess.run(mount, check=False, capture_output=True)
        if tried.returncode == 0:
            subprocess.run(["umount", folder], check=False)
    return tried.returncode == 0
