"""The watchdog: stops a worker's runs before anybody else may start them (invariant I). It does no I/O."""

from __future__ import annotations

from collections.abc import Callable

from piecework.base.surroundings import SURROUNDINGS, Surroundings, Thread
from piecework.model.settings import LivenessSettings


class Watchdog:
    """A thread that watches the age of the lease: since the last beat that was answered was sent.

    Args:
        liveness: when to stop the runs, and when to end what could not be stopped.
        sent: returns when the last answered beat was sent, monotonic seconds.
        stop: called in this thread when the runs have to stop; once per lease.
        end: called in this thread when what runs still has to end; once per lease.
        surroundings: where time and the thread come from.
    """

    def __init__(
        self,
        liveness: LivenessSettings,
        sent: Callable[[], float],
        stop: Callable[[], None],
        end: Callable[[], None],
        surroundings: Surroundings = SURROUNDINGS,
    ) -> None:
        self._deadlines = ((liveness.stop.total_seconds(), stop), (liveness.exit.total_seconds(), end))
        self._sent = sent
        self._surroundings = surroundings
        self._closing = surroundings.flag()
        self._thread: Thread | None = None

    @property
    def over(self) -> bool:
        """Whether the lease is so old that the runs have to stop."""
        return self._surroundings.monotonic() >= self._sent() + self._deadlines[0][0]

    def start(self) -> None:
        """Begin to watch; the first beat has been answered."""
        self._thread = self._surroundings.start_thread("job-watchdog", self._run)

    def close(self) -> None:
        """Watch no more. Blocks until a call that is under way has returned."""
        self._closing.set()
        if self._thread is not None and not self._surroundings.in_this_thread(self._thread):
            self._thread.join()

    def _run(self) -> None:
        called: dict[Callable[[], None], float] = {}
        while True:
            sent = self._sent()
            # A process that was frozen wakes here, with all its deadlines behind it.
            for seconds, call in self._deadlines:
                if self._surroundings.monotonic() >= sent + seconds and called.get(call) != sent:
                    called[call] = sent
                    call()
            waiting = [sent + seconds for seconds, call in self._deadlines if called.get(call) != sent]
            # With both behind, only a new beat changes anything: it is looked for as often as the first would come.
            pause = min(waiting) - self._surroundings.monotonic() if waiting else self._deadlines[0][0] / 4
            if self._closing.wait(max(pause, 0.001)):
                return
