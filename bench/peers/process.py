"""A process of a driver."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Any

from bench.server import TICKS

LIMIT = 60.0  # seconds for one measurement


class MeasureError(Exception):
    """A measurement that did not come to an end, in one sentence."""


class Process:
    """A process of a driver, in a process group of its own."""

    def __init__(self, what: str, command: list[str], environ: dict[str, str]) -> None:
        self._what = what
        self._output, self._errors = _scratch_file(), _scratch_file()
        self._process = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._errors, text=True,
            start_new_session=True,
        )  # fmt: skip

    def result(self, limit: float = LIMIT) -> dict[str, Any]:
        """Wait for its end, and return the line that it printed."""
        try:
            code = self._process.wait(limit)
        except subprocess.TimeoutExpired:
            raise MeasureError(f"{self._what}: no result within {limit:.0f} s") from None
        self._output.seek(0)
        lines = self._output.read().strip().splitlines()
        if code or not lines:
            raise MeasureError(f"{self._what}: it ended with code {code}: {self._last_error()}")
        result: dict[str, Any] = json.loads(lines[-1])
        return result

    def must_live(self) -> None:
        """Raise if it has ended."""
        if (code := self._process.poll()) is not None:
            raise MeasureError(f"{self._what}: it ended with code {code}: {self._last_error()}")

    def cpu(self) -> float:
        """Seconds of CPU that it has used, with all its threads."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def end(self, limit: float) -> None:
        """Ask it to end, and wait for that."""
        self._process.terminate()
        try:
            code = self._process.wait(limit)
        except subprocess.TimeoutExpired:
            raise MeasureError(f"{self._what}: it did not end within {limit:.0f} s") from None
        if code:
            raise MeasureError(f"{self._what}: it ended with code {code}: {self._last_error()}")

    def kill(self) -> None:
        """End it and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._output.close()
        self._errors.close()

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = [line for line in self._errors.read().splitlines() if line.strip()]
        # Python says it in its last line, the others further up.
        said = [line for line in lines if "rror:" in line] or lines[-1:] or ["it printed no error"]
        return said[-1].strip()[:300]


def _scratch_file() -> IO[str]:
    """A file and no pipe: what a peer leaves running must not keep its reader waiting."""
    return tempfile.TemporaryFile("w+")
