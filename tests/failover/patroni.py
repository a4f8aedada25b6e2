"""Patroni with two members and etcd, all of it in one temporary folder."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
from embedded.helpers import children
from engine.helpers import query

from failover.cluster import Switch, along
from piecework.store.embedded.home import AsUser, server_account

FETCH = Path(__file__).parent.parent.parent / "tools" / "patroni.sh"
SCOPE = "piecework"
TTL = 20  # seconds, Patroni's least
READY_WITHIN = 90.0
QUIET = {"log_min_messages": "fatal", "log_min_error_statement": "panic"}
"""What clients try at a standby is not worth a line."""
ENDS_WITHIN = 30.0


def programs() -> Path:
    """Where etcd, patroni and patronictl are; `make failover` has brought them before."""
    found = subprocess.run([FETCH], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise FileNotFoundError(found.stderr.strip())
    return Path(found.stdout.strip())


class Member:
    """One Patroni and its PostgreSQL."""

    def __init__(self, patroni: Patroni, name: str, bin_dir: Path) -> None:
        self._patroni = patroni
        self.name = name
        self.folder = patroni.folder / name
        self.folder.mkdir(mode=0o700)
        patroni.give(self.folder)
        port, api = free_port(), free_port()
        self.api = f"http://127.0.0.1:{api}"
        self.dsn = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        self.settings = self.folder / "patroni.json"
        self.settings.write_text(json.dumps(self._settings(bin_dir, port, api)))  # JSON is YAML
        patroni.give(self.settings)
        self._process: subprocess.Popen[bytes] | None = None

    def _settings(self, bin_dir: Path, port: int, api: int) -> dict[str, object]:
        trusted = ["local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"]
        user = {"username": "postgres"}
        return {
            "scope": SCOPE,
            "name": self.name,
            "restapi": {"listen": f"127.0.0.1:{api}", "connect_address": f"127.0.0.1:{api}"},
            "etcd3": {"host": self._patroni.etcd},
            "watchdog": {"mode": "off"},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL, "loop_wait": 2, "retry_timeout": 3, "synchronous_mode": True,
                    "postgresql": {"use_pg_rewind": True, "parameters": {"max_connections": 100}},
                },
                "initdb": [{"encoding": "UTF8"}, {"auth": "trust"}, "no-locale", "no-sync"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{port}", "connect_address": f"127.0.0.1:{port}",
                "data_dir": str(self.folder / "data"), "bin_dir": str(bin_dir), "pgpass": str(self.folder / "pgpass"),
                "pg_hba": trusted, "authentication": {"superuser": user, "replication": user, "rewind": user},
                "parameters": {"unix_socket_directories": str(self.folder), "fsync": "off", **QUIET},
                "remove_data_directory_on_rewind_failure": True,
                "remove_data_directory_on_diverged_timelines": True,
            },
        }  # fmt: skip

    def start(self) -> None:
        self._process = self._patroni.run("patroni", self.settings, log=self.log)

    @property
    def log(self) -> Path:
        return self._patroni.folder / f"{self.name}.log"

    def kill(self) -> None:
        """What the end of its machine does to Patroni and PostgreSQL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(ENDS_WITHIN)
        postmaster = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        for pid in [postmaster, *children(postmaster)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End it in order, and its PostgreSQL with it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                self.kill()


class Patroni:
    """Two members, of which `a` is the first leader; commits wait for the other (`synchronous_mode`)."""

    def __init__(self, bin_dir: Path) -> None:
        self._programs = programs()
        self.folder = Path(tempfile.mkdtemp(prefix="piecework-ha-", dir="/tmp"))
        account = server_account(self.folder / "none")
        self._as_user: AsUser = account.arguments() if account is not None else {}
        self._owner = account
        self.give(self.folder)
        self.etcd = f"127.0.0.1:{free_port()}"
        self.members: list[Member] = []
        self._etcd = self._start_etcd()
        try:
            self.members += [Member(self, name, bin_dir) for name in ("a", "b")]
            self._start_members()
        except BaseException:
            self.remove()
            raise
        self.ways = [member.dsn for member in self.members]
        self.dsn = along(self.ways[0], *self.ways)

    def _start_etcd(self) -> subprocess.Popen[bytes]:
        peers = f"http://127.0.0.1:{free_port()}"
        clients = f"http://{self.etcd}"
        process = self.run(
            "etcd", "--name", "e", "--data-dir", self.folder / "etcd", "--listen-client-urls", clients,
            "--advertise-client-urls", clients, "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
            "--initial-cluster", f"e={peers}", log=self.folder / "etcd.log",
        )  # fmt: skip
        wait_for(lambda: answers(f"{clients}/health"), self.folder / "etcd.log")
        return process

    def _start_members(self) -> None:
        first, second = self.members
        first.start()
        wait_for(lambda: rows(first.dsn, "SELECT WHERE NOT pg_is_in_recovery()"), first.log)
        second.start()
        wait_for(lambda: rows(first.dsn, IN_STEP), second.log)

    def run(self, program: str, *arguments: str | Path, log: Path) -> subprocess.Popen[bytes]:
        """Start one of the programs."""
        surroundings = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "LC_ALL": "C.UTF-8"}
        with log.open("ab") as output:
            return subprocess.Popen(
                [self._programs / program, *arguments], cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=surroundings, start_new_session=True, **self._as_user,
            )  # fmt: skip

    def give(self, path: Path) -> None:
        """Let the servers' user have it."""
        if self._owner is not None:
            os.chown(path, self._owner.uid, self._owner.gid)

    async def kill_leader(self) -> Switch:
        """Kill the Patroni and the PostgreSQL of the leader `a`."""
        began = time.monotonic()
        await asyncio.to_thread(self.members[0].kill)
        return Switch(began, 0, 1)

    async def bring_back(self) -> None:
        """Start `a` again, and wait until it follows `b`, commits wait for it, and Patroni knows that they do."""
        back = self.members[0]
        back.start()
        await asyncio.to_thread(wait_for, lambda: rows(self.ways[1], IN_STEP), back.log)
        await asyncio.to_thread(wait_for, lambda: answers(f"{back.api}/synchronous"), back.log)

    async def switch_back(self) -> Switch:
        """Have `patronictl switchover` make `a` the leader again."""
        began = time.monotonic()
        log = self.folder / "patronictl.log"
        command = ["-c", self.members[1].settings, "switchover", SCOPE, "--candidate", "a", "--force"]
        process = self.run("patronictl", *command, log=log)
        assert await asyncio.to_thread(process.wait, READY_WITHIN) == 0, log.read_text()
        return Switch(began, 1, 0)

    def logs(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()[-6000:]}" for path in sorted(self.folder.glob("*.log")))

    def remove(self) -> None:
        """End all and delete everything."""
        for member in reversed(self.members):
            member.stop()
        self._etcd.kill()
        self._etcd.wait(ENDS_WITHIN)
        shutil.rmtree(self.folder, ignore_errors=True)


IN_STEP = "SELECT FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync'"


def rows(dsn: str, statement: str) -> bool:
    """Whether the statement has rows; no, where nobody answers."""
    try:
        return bool(query(dsn, statement))
    except psycopg.OperationalError:
        return False


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def wait_for(what: Callable[[], bool], log: Path) -> None:
    """Wait for a condition, in blocking code; the log says why it does not come."""
    deadline = time.monotonic() + READY_WITHIN
    while not what():
        assert time.monotonic() < deadline, f"not within {READY_WITHIN} s:\n{log.read_text()[-5000:]}"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
