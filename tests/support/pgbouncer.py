"""pgbouncer in transaction mode, with few sessions, in front of a test's server."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from piecework.store.embedded.home import AsUser, server_account

FETCH = Path(__file__).parent.parent.parent / "tools" / "pgbouncer.sh"
STARTS_WITHIN = 30.0  # seconds
SESSIONS = 4

CONFIG = """\
[databases]
* = host={host} port={port} user={user}

[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {root}
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 200
server_login_retry = 1
"""


class Pgbouncer:
    """Made, and stopped in the end, by the fixture `pgbouncer`. Its `dsn` stays the same across restarts.

    Args:
        dsn: of the server's superuser, by a Unix socket.
    """

    def __init__(self, dsn: str, sessions: int = SESSIONS) -> None:
        # `make test` has brought it before; run by hand, the first test that needs it waits for the download.
        found = subprocess.run([FETCH], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if found.returncode != 0:
            raise FileNotFoundError(found.stderr.strip())
        self._program = found.stdout.strip()
        # Under /tmp: the path of a socket is short, and as root the pooler's user must be let in.
        self._root = Path(tempfile.mkdtemp(prefix="piecework-pgb-"))
        account = server_account(self._root / "data")
        if account is not None:
            os.chown(self._root, account.uid, account.gid)
        self._as_user: AsUser = account.arguments() if account is not None else {}
        server = conninfo_to_dict(dsn)
        config = CONFIG.format(
            host=server["host"], port=server.get("port", 5432), user=server["user"], root=self._root, sessions=sessions
        )
        (self._root / "pgbouncer.ini").write_text(config)
        os.chmod(self._root / "pgbouncer.ini", 0o644)
        self.dsn = make_conninfo(dsn, host=str(self._root), port=6432)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def log(self) -> str:
        return (self._root / "log").read_text()

    def start(self) -> None:
        """Start it, and return when it accepts connections."""
        with (self._root / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, self._root / "pgbouncer.ini"], cwd="/", stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, **self._as_user,
            )  # fmt: skip
        deadline = time.monotonic() + STARTS_WITHIN
        while True:
            try:
                psycopg.connect(self.dsn).close()
                return
            except psycopg.OperationalError as error:
                assert self._process.poll() is None, f"pgbouncer ended:\n{self.log}"
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not ready within {STARTS_WITHIN} s:\n{self.log}") from error
                time.sleep(0.01)

    def stop(self) -> None:
        """Stop it at once, whatever goes through it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(STARTS_WITHIN)
            self._process = None

    def remove(self) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self._root, ignore_errors=True)
