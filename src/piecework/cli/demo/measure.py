"""What a job of the demo finds out about its file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

_LOOKED_AT = 8192


@dataclass(frozen=True, slots=True)
class Measure:
    """A file, counted."""

    sha256: str
    size: int
    lines: int
    words: int
    kind: str
    """`empty`, `binary` (without lines and words), or the ending of a text file's name; `text` where it has none."""


def measure(path: Path) -> Measure:
    """Read a file and count it."""
    content = path.read_bytes()
    kind = _kind(path, content)
    text = b"" if kind == "binary" else content
    return Measure(
        sha256=hashlib.sha256(content).hexdigest(), size=len(content), lines=len(text.splitlines()),
        words=len(text.split()), kind=kind,
    )  # fmt: skip


def _kind(path: Path, content: bytes) -> str:
    if not content:
        return "empty"
    if b"\0" in content[:_LOOKED_AT]:
        return "binary"
    return path.suffix.removeprefix(".").lower() or "text"
