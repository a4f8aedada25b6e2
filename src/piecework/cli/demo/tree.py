"""The demo's input: the files of a directory tree, and which of their jobs are to fail on purpose."""

from __future__ import annotations

import hashlib
import os
import stat
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_NOT_ENTERED = frozenset({"__pycache__", ".piecework"})
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_FAILS_ONE_IN = 20
_TWICE_ONE_IN = 80
_LARGE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Planned:
    """A file that gets a job."""

    path: str
    """Below the root of the tree."""
    large: bool
    """Large files are counted by the `def` job, in a thread."""
    failures: int
    """So many attempts fail on purpose."""


def standard_library() -> Path:
    """Return where the standard library of the running Python lies."""
    return Path(sysconfig.get_path("stdlib"))


def plan(root: Path, home: Path | None) -> list[Planned]:
    """List the readable regular files below `root` in a fixed order, and choose those whose jobs fail at first.

    Left out: `__pycache__`, symbolic links, the folder `home` of the embedded server, which changes while it works,
    names that are no text, and below the standard library what was installed there later.
    """
    closed = _NOT_ENTERED | _INSTALLED if root == standard_library().resolve() else _NOT_ENTERED
    found = sorted(_files(root, closed, home))
    chosen = _failures(path for path, _ in found)
    return [Planned(path, size >= _LARGE, chosen.get(path, 0)) for path, size in found]


def _files(root: Path, closed: Iterable[str], home: Path | None) -> Iterator[tuple[str, int]]:
    for folder, names, files in os.walk(root):
        here = Path(folder)
        names[:] = [name for name in names if name not in closed and here / name != home]
        for path in (here / name for name in files):
            try:
                path.as_posix().encode()
                about = path.lstat()
            except (UnicodeEncodeError, OSError):
                continue
            if stat.S_ISREG(about.st_mode) and os.access(path, os.R_OK):
                yield path.relative_to(root).as_posix(), about.st_size


def _failures(paths: Iterable[str]) -> dict[str, int]:
    """Choose by a hash of the path, so that every run of the demo chooses the same; at least one."""
    hashes = {path: int.from_bytes(hashlib.sha256(path.encode()).digest()[:8]) for path in paths}
    chosen = {path: 1 + (number % _TWICE_ONE_IN == 0) for path, number in hashes.items() if number % _FAILS_ONE_IN == 0}
    if hashes and not chosen:
        chosen[min(hashes, key=hashes.__getitem__)] = 1
    return chosen
