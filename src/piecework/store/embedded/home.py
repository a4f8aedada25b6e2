"""The folders of an embedded server, the names in them, and who owns what.

A home holds the locks, the log and the pointer. The data lies beside them, except for root: PostgreSQL refuses to run
as root, and the user it then runs as cannot be expected to be let into the home.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from pathlib import Path
from typing import NamedTuple, TypedDict

from piecework.base.errors import EmbeddedError

DATABASE = "piecework"
SUPERUSER = "postgres"
PORT = 5432  # of no meaning but in the name of the socket: the server listens on no port
SOCKET_NAME = f".s.PGSQL.{PORT}"
MAX_SOCKET_PATH = 100  # bytes; the kernels' limits are 108 (Linux) and 104 (macOS), with the closing zero

GITIGNORE = "# Made by piecework: the files of an embedded PostgreSQL server, never to be committed.\n*\n"


class Pointer(NamedTuple):
    """What the supervisor tells its clients. `postmaster` is set only while that process serves."""

    supervisor: int
    data: Path
    socket: Path
    programs: Path
    postmaster: int | None


class AsUser(TypedDict, total=False):
    """The arguments of `subprocess` that choose a user; empty for the user of this process."""

    user: int
    group: int
    extra_groups: tuple[int, ...]


class Account(NamedTuple):
    """The user that the server runs as, where it cannot be the user of this process."""

    uid: int
    gid: int

    def arguments(self) -> AsUser:
        """What makes `subprocess` run a command as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": ()}


class Home:
    """The folder that names one embedded server."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lease_lock = path / "lease.lock"
        self.launch_lock = path / "launch.lock"
        self.supervisor_lock = path / "supervisor.lock"
        self.pointer_file = path / "server.json"
        self.log = path / "server.log"

    @classmethod
    def make(cls, path: Path | None) -> Home:
        """Finds or makes the home: `path`, else PIECEWORK_HOME, else `.piecework` in the working directory.

        Raises EmbeddedError if it cannot be made, or belongs to another user than this process or root.
        """
        chosen = path or Path(os.environ.get("PIECEWORK_HOME") or ".piecework")
        try:
            chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
            resolved = chosen.resolve(strict=True)
            owner = resolved.stat().st_uid
            if owner not in (os.geteuid(), 0):
                raise EmbeddedError(
                    f"the folder {resolved} belongs to {user_name(owner)}, and this process runs as "
                    f"{user_name(os.geteuid())}: run it as the owner, or set PIECEWORK_HOME to a folder of its own"
                )
            _write_if_missing(resolved / ".gitignore", GITIGNORE)
        except OSError as error:
            raise EmbeddedError(
                f"the folder {chosen} of the embedded PostgreSQL cannot be made or used ({error}): "
                "set PIECEWORK_HOME to a folder that can be written, or give a database URL"
            ) from error
        return cls(resolved)

    def read_pointer(self) -> Pointer | None:
        """The pointer, or None where no server was ever started, or the file is damaged."""
        try:
            fields = json.loads(self.pointer_file.read_text())
            data, socket, programs = (Path(fields[name]) for name in ("data", "socket", "programs"))
            return Pointer(fields["supervisor"], data, socket, programs, fields["postmaster"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_pointer(self, pointer: Pointer) -> None:
        """Replaces the pointer at one stroke. Only the holder of the supervisor lock may."""
        fresh = self.pointer_file.with_suffix(".new")
        fresh.write_text(json.dumps(pointer._asdict(), indent=1, default=str) + "\n")
        fresh.replace(self.pointer_file)

    def log_tail(self, *, since: int = 0, lines: int = 8) -> str:
        """The last lines of the log, from the offset `since` on, each indented: for an error message."""
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(since if since <= size else 0, size - 4096))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        return "".join(f"\n    {line}" for line in text.splitlines()[-lines:])


def _write_if_missing(path: Path, text: str) -> None:
    if not path.exists():
        path.write_text(text)


def user_name(uid: int) -> str:
    """A user as messages name it."""
    import pwd

    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def data_parent() -> Path:
    """Where the data of root's servers lies: PIECEWORK_DATA_ROOT, else /var/lib/piecework."""
    return Path(os.environ.get("PIECEWORK_DATA_ROOT") or "/var/lib/piecework").absolute()


def data_root(home: Home, parent: Path) -> Path:
    """The folder of the home's data: the home itself, or for root one of its own in the folder `parent`.

    Root's folder is the one that the pointer names, unless that belongs to another home (the home was copied) or is
    gone; so a home that was deleted starts anew, and one that was moved keeps its data. Where the pointer is damaged,
    it is the folder that names the home.
    """
    if os.geteuid() != 0:
        return home.path
    pointer = home.read_pointer()
    if pointer is not None and _claim(pointer.data.parent, home):
        return pointer.data.parent
    if pointer is None and home.pointer_file.exists():
        for folder in parent.glob("*/"):
            if owns(home, folder):
                return folder
    if not parent.exists():
        parent.mkdir(parents=True, exist_ok=True)
        parent.chmod(0o755)
    root = parent / f"{home.path.parent.name or 'root'}-{secrets.token_hex(4)}"
    root.mkdir()
    root.chmod(0o711)  # its user passes through to what is his, and can neither list nor change the folder
    (root / "home").write_text(str(home.path))
    return root


def owns(home: Home, root: Path) -> bool:
    """Whether the data folder is that of the home: the home itself, or root's folder that names this home."""
    try:
        return root == home.path or Path((root / "home").read_text()) == home.path
    except OSError:
        return False


def _claim(root: Path, home: Home) -> bool:
    """Whether the folder is the home's, taking it over from a home that is no longer there."""
    if not owns(home, root):
        try:
            if Path((root / "home").read_text()).exists():
                return False
            (root / "home").write_text(str(home.path))
        except OSError:
            return False
    return True


def server_account(data: Path) -> Account | None:
    """The user that a root process runs the server as: the owner of the data, else `postgres`, else `nobody`."""
    if os.geteuid() != 0:
        return None
    import pwd

    with contextlib.suppress(FileNotFoundError):
        owner = data.stat()
        return Account(owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return Account(user.pw_uid, user.pw_gid)
    raise EmbeddedError(
        "PostgreSQL does not run as root, and this system has neither a user 'postgres' nor 'nobody' to run it as: "
        "run as another user, or give a database URL"
    )


def private_folder(path: Path, account: Account | None) -> None:
    """Makes the folder, if missing, so that only the server's user may enter it."""
    path.mkdir(mode=0o700, exist_ok=True)
    if account is not None:
        os.chown(path, account.uid, account.gid)


def socket_folder(root: Path, recorded: Path | None, account: Account | None) -> Path:
    """The folder of the socket: `run` in `root`, or where that path is too long for a socket, a short private one.

    `recorded` is the one used before: it is kept while it is still ours alone, so that the DSN stays as it is.
    """
    usual = root / "run"
    if len(os.fsencode(usual / SOCKET_NAME)) <= MAX_SOCKET_PATH and "," not in str(usual):
        private_folder(usual, account)
        return usual
    owner = os.geteuid() if account is None else account.uid
    if recorded is not None and recorded != usual and _is_private(recorded, owner):
        return recorded
    short = Path("/tmp") / f"piecework-{secrets.token_hex(8)}"
    short.mkdir(mode=0o700)
    if account is not None:
        os.chown(short, account.uid, account.gid)
    return short


def _is_private(path: Path, owner: int) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == owner and stat.S_IMODE(status.st_mode) == 0o700
