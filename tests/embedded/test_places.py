"""Where the files of an embedded server lie, who may reach them, and how the server is set."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from embedded.helpers import children, is_gone, is_up, pointer, query, stop, wait_until

from piecework.base.errors import EmbeddedError
from piecework.store.embedded import EmbeddedServer, acquire, binaries, remove, supervisor
from piecework.store.embedded.home import Home


def socket_folder(dsn: str) -> Path:
    return Path(parse_qs(urlsplit(dsn).query)["host"][0])


def test_the_home_is_a_folder_of_the_working_directory_that_git_ignores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIECEWORK_HOME", raising=False)
    assert Home.make(None).path == tmp_path.resolve() / ".piecework"
    subprocess.run(["git", "init", "-q"], check=True)
    seen = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True)
    assert seen.stdout == ""


def test_piecework_home_names_the_home_unless_an_argument_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIECEWORK_HOME", str(tmp_path / "set"))
    assert Home.make(None).path == tmp_path.resolve() / "set"
    assert Home.make(tmp_path / "given").path == tmp_path.resolve() / "given"


def test_a_home_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.geteuid()
    if owner == 0:
        os.chown(tmp_path, 4242, 4242)
        owner = 4242
    else:
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(EmbeddedError, match=rf"belongs to .*uid {owner}.*PIECEWORK_HOME"):
        Home.make(tmp_path)


def test_a_home_that_cannot_be_made_is_an_error_that_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match=r"file/home .*set PIECEWORK_HOME to a folder that can be written"):
        acquire(tmp_path / "file" / "home")


def test_only_the_servers_user_may_enter_the_folder_of_the_socket(server: EmbeddedServer) -> None:
    folder = socket_folder(server.dsn).stat()
    assert stat.S_IMODE(folder.st_mode) == 0o700
    assert folder.st_uid == os.stat(pointer(server.home).data).st_uid
    assert query(server.dsn, "SHOW listen_addresses") == ""


def test_the_data_lies_beside_the_locks_except_for_root(server: EmbeddedServer) -> None:
    data = pointer(server.home).data
    if os.geteuid() == 0:
        assert server.home not in data.parents
        users = {user.pw_name: user.pw_uid for user in pwd.getpwall()}
        assert data.stat().st_uid == users.get("postgres", users["nobody"])
    else:
        assert data == server.home / "data"


def test_the_server_keeps_what_it_says_it_has_kept(server: EmbeddedServer) -> None:
    shown = [query(server.dsn, f"SHOW {name}") for name in ("fsync", "synchronous_commit", "full_page_writes")]
    assert shown == ["on", "on", "on"]
    assert query(server.dsn, "SHOW server_encoding") == "UTF8"
    assert query(server.dsn, "SELECT datcollate FROM pg_database WHERE datname = 'piecework'") == "C"
    assert int(query(server.dsn, "SHOW max_connections")) >= 200


@pytest.mark.parametrize("name", ["a 50%&?# it's quo\"te größe back\\slash", "com,ma"], ids=["odd", "comma"])
def test_a_home_may_have_any_name(tmp_path: Path, name: str) -> None:
    home = tmp_path / name / "home"
    try:
        with acquire(home, grace=timedelta(0)) as server:
            assert query(server.dsn, "SELECT current_database()") == "piecework"
    finally:
        stop(home)
        remove(home)


def test_where_the_path_is_too_long_the_socket_is_in_a_short_private_folder(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = open_folder / ("x" * 100)
    monkeypatch.setenv("PIECEWORK_DATA_ROOT", str(long))
    home = long / "home"
    try:
        with acquire(home, grace=timedelta(0)) as server:
            folder = socket_folder(server.dsn)
            assert folder.parent == Path("/tmp")
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            dsn, killed = server.dsn, pointer(home).supervisor
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda: is_gone(killed))
            server.ensure()
            assert server.dsn == dsn
            assert query(dsn, "SELECT 1") == "1"
        wait_until(lambda: not is_up(home))
        assert not folder.exists()
    finally:
        stop(home)
        remove(home)


def open_files(process: int) -> set[str]:
    """What a process has open, but for what it closes meanwhile."""
    found = set[str]()
    for link in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(link))
    return found


def test_the_supervisor_keeps_nothing_of_the_process_that_started_it(home: Path, tmp_path: Path) -> None:
    leaked = os.open(tmp_path / "leaked", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(leaked, True)
    try:
        with acquire(home, grace=timedelta(0)):
            process = pointer(home).supervisor
            for started in (process, *children(process)):
                assert os.getsid(started) != os.getsid(0)
            if not Path("/proc/self/fd").exists():
                return  # only Linux shows the rest
            for started in (process, *children(process)):
                assert str(tmp_path / "leaked") not in open_files(started)
            assert Path(f"/proc/{process}/cwd").readlink() == Path("/")
            environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
            assert {name.partition(b"=")[0] for name in environment if name} <= {
                *(name.encode() for name in ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LC_ALL", "TZ"))
            }
    finally:
        os.close(leaked)


def test_a_long_log_is_moved_aside(home: Path) -> None:
    place = Home.make(home)
    with place.log.open("wb") as file:
        file.truncate(supervisor.MAX_LOG + 1)
    with acquire(home, grace=timedelta(0)):
        assert place.log.stat().st_size < supervisor.MAX_LOG
        assert place.log.with_suffix(".log.1").stat().st_size == supervisor.MAX_LOG + 1


def test_windows_is_told_to_use_a_database_url(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(EmbeddedError, match=r"Windows: give a database URL \(PIECEWORK_DATABASE_URL\)"):
        acquire(home)


def test_a_client_imports_nothing_of_the_command_line() -> None:
    script = "import sys, piecework.store.embedded; print(sorted({'click', 'rich', 'psycopg'} & set(sys.modules)))"
    seen = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "click" not in seen.stdout
    assert "rich" not in seen.stdout


def test_the_supervisor_imports_the_standard_library_only(tmp_path: Path) -> None:
    script = """
import runpy, sys
try:
    runpy.run_path(sys.argv[1], run_name="__main__")
except ValueError:
    print(*(name for name in sys.modules if name.startswith("piecework")))
"""
    main = Path(binaries.__file__).with_name("__main__.py")
    seen = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(main)], capture_output=True, text=True, check=True
    )
    assert "piecework.store.embedded.supervisor" in seen.stdout.split()
    assert not {"piecework.jobs", "piecework.work", "piecework.model"} & set(seen.stdout.split())
