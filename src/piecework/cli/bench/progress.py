"""A line that says how far it is, on a terminal; nothing elsewhere."""

from __future__ import annotations

import sys
import time

_EVERY = 0.1


class Progress:
    """Writes to stderr: stdout is for the report."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._shape = ""
        self._began = self._next = 0.0

    def begin(self, shape: str) -> None:
        """Begin with a shape."""
        self._shape, self._began, self._next = shape, time.monotonic(), 0.0
        self.show("starting")

    def show(self, text: str) -> None:
        """Show where it is; called as often as one likes."""
        now = time.monotonic()
        if self._live and now >= self._next:
            self._next = now + _EVERY
            sys.stderr.write(f"\r\x1b[K{self._shape:9} {now - self._began:5.1f} s  {text}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
