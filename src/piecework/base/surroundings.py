"""What a worker takes from its machine besides the event loop: as values, so that a simulation can give it others."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from piecework.base.ids import new_id


class Flag(Protocol):
    """`threading.Event`."""

    def set(self) -> None:
        """Let those go that wait."""

    def clear(self) -> None:
        """Let those wait that come."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, or so many seconds have passed; return whether it is set."""
        ...


class Thread(Protocol):
    """A thread that was started."""

    def join(self) -> None:
        """Wait until it has ended."""


class Timer(Protocol):
    """A call that is to be made."""

    def cancel(self) -> None:
        """Do not make the call any more."""


class Surroundings:
    """The machine as it is: monotonic time, ids, threads, the end of the process.

    Chance is the `random` module's: a simulation seeds it.
    """

    def monotonic(self) -> float:
        """Return the seconds of a clock that is never set. The event loop's goes by the same."""
        return time.monotonic()

    def new_id(self) -> UUID:
        """Return a fresh id."""
        return new_id()

    def flag(self) -> Flag:
        """Return something that threads can wait for."""
        return threading.Event()

    def start_thread(self, name: str, run: Callable[[], None], *, daemon: bool = True) -> Thread:
        """Run a call that blocks in a thread of its own."""
        thread = threading.Thread(target=run, name=name, daemon=daemon)
        thread.start()
        return thread

    def start_timer(self, name: str, seconds: float, call: Callable[[], None]) -> Timer:
        """Make a call from another thread in so many seconds."""
        timer = threading.Timer(seconds, call)
        timer.name = name
        timer.daemon = True
        timer.start()
        return timer

    def in_this_thread(self, thread: Thread) -> bool:
        """Whether the caller runs in this thread."""
        return threading.current_thread() is thread

    def end_process(self, code: int) -> None:
        """End the process now, whatever runs."""
        os._exit(code)


SURROUNDINGS = Surroundings()
"""The real ones."""
