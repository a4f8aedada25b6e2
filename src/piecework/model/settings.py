"""Settings: frozen values, validated once, where they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from piecework.base.errors import ConfigurationError


def _positive(owner: str, name: str, value: timedelta | int) -> None:
    zero: timedelta | int = timedelta(0) if isinstance(value, timedelta) else 0
    if type(value) is bool or value <= zero:  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
        raise ConfigurationError(f"{owner}({name}={value!r}): {name} must be greater than zero")


@dataclass(frozen=True, slots=True, kw_only=True)
class LivenessSettings:
    """How a worker proves that it lives, and when others may take its jobs (DESIGN invariant I).

    The defaults let the jobs of a killed worker run again within 30 seconds. All workers of a schema may differ: an
    observer obeys the times that the observed worker's own row states.
    """

    beat: timedelta = timedelta(seconds=5)
    """Time between two heartbeats; each is jittered by ± 10 %."""
    stop: timedelta = timedelta(seconds=12)
    """A worker whose last answered beat was sent this long ago stops its own runs."""
    exit: timedelta = timedelta(seconds=16)
    """What could not be stopped by then ends with the process."""
    lease: timedelta = timedelta(seconds=18)
    """A worker whose beat number an observer saw unchanged for this long is dead."""

    def __post_init__(self) -> None:
        for name in ("beat", "stop", "exit", "lease"):
            _positive("LivenessSettings", name, getattr(self, name))
        if not self.beat < self.stop < self.exit < self.lease:
            raise ConfigurationError(f"LivenessSettings needs beat < stop < exit < lease, got {self}")

    @classmethod
    def scaled(cls, lease: timedelta) -> LivenessSettings:
        """The default times, all scaled so that the lease is `lease`."""
        factor = lease / timedelta(seconds=18)
        return cls(
            beat=timedelta(seconds=5) * factor,
            stop=timedelta(seconds=12) * factor,
            exit=timedelta(seconds=16) * factor,
            lease=lease,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What one worker process takes on."""

    queues: Sequence[str] = ("default",)
    """Names of the queues it claims from."""
    concurrency: int = 100
    """Jobs that run at once, `async def` and `def` together."""
    threads: int = 16
    """Threads for `def` jobs: at most this many of them run at once."""
    prefetch: int = 1000
    """Upper bound of jobs claimed beyond `concurrency` while jobs are short; 0 turns prefetching off."""
    shutdown_grace: timedelta = timedelta(seconds=30)
    """How long a shutdown lets running jobs finish before it cancels them."""
    liveness: LivenessSettings = field(default_factory=LivenessSettings)
    look_every: timedelta = timedelta(seconds=30)
    """The longest an idle worker goes without looking for due jobs, should all hints be lost."""
    max_crashes: int = 5
    """A job that was running when this many workers were lost is failed instead of run again."""

    def __post_init__(self) -> None:
        if isinstance(self.queues, str) or not self.queues or not all(self.queues):
            raise ConfigurationError(
                f"WorkerSettings(queues={self.queues!r}): name at least one queue, as in queues=('default',)"
            )
        for name in ("concurrency", "threads", "shutdown_grace", "look_every", "max_crashes"):
            _positive("WorkerSettings", name, getattr(self, name))
        if self.prefetch < 0:
            raise ConfigurationError(f"WorkerSettings(prefetch={self.prefetch}): prefetch must be 0 or more")
