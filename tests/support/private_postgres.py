"""A PostgreSQL server of a test's own, to be stopped, killed and restarted, with a log to read."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg

from piecework.store.embedded import binaries
from piecework.store.embedded.home import AsUser, data_parent, server_account

STARTS_WITHIN = 30.0  # seconds
STOPS_WITHIN = 30.0


class PrivatePostgres:
    """Made, and stopped in the end, by the fixture `private_postgres`. Its `dsn` stays the same across restarts."""

    def __init__(self, bin_dir: Path | None, settings: Mapping[str, str]) -> None:
        # Under /tmp: the path of a socket is short, and as root the server's user must be let in.
        self._root = Path(tempfile.mkdtemp(prefix="piecework-pg-"))
        self._data = self._root / "data"
        account = server_account(self._data)
        if account is not None:
            os.chown(self._root, account.uid, account.gid)
            data_parent().mkdir(mode=0o755, parents=True, exist_ok=True)
        self._as_user: AsUser = account.arguments() if account is not None else {}
        self._programs, self.major = binaries.usable_by(account, binaries.find(bin_dir), data_parent())
        self._settings = {
            "listen_addresses": "", "unix_socket_directories": str(self._root), "fsync": "off", "timezone": "UTC",
            "log_line_prefix": "%m [%p] %a: ", **settings,
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.log = self._root / "log"
        self.dsn = f"postgresql://postgres@/postgres?host={self._root}"
        initdb: list[str | Path] = [
            self._programs / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale",
            "-N",
        ]  # fmt: skip
        subprocess.run(initdb, cwd="/", check=True, capture_output=True, **self._as_user)
        self.start()

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and return when it accepts connections."""
        command = [str(self._programs / "postgres"), "-D", str(self._data)]
        command += [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, stdout=log,
                                             stderr=subprocess.STDOUT, start_new_session=True, **self._as_user)
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
            shutil.rmtree(self._root, ignore_errors=True)
