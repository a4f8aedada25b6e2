"""Settings: frozen values, validated once, where they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from piecework.base.errors import ConfigurationError
from piecework.base.texts import shown

_MOST = 1_000_000
"""Of what is counted in one process: claims are asked for as many jobs, and PostgreSQL counts in integers."""
_LONGEST = timedelta(days=36_500)
"""Clocks, locks and PostgreSQL all bear to wait for so long."""
_NAME_LIMIT = 200


def _check_count(owner: str, name: str, value: object, lowest: int = 1) -> None:
    if type(value) is not int or not lowest <= value <= _MOST:
        must = "be greater than zero, and at most" if lowest else "be 0 or more, and at most"
        raise ConfigurationError(f"{owner}({name}={shown(value)}): {name} must {must} {_MOST:,}, a whole number")


def _check_span(owner: str, name: str, value: object) -> None:
    if not isinstance(value, timedelta) or not timedelta(0) < value <= _LONGEST:
        raise ConfigurationError(
            f"{owner}({name}={shown(value)}): {name} must be greater than zero, and at most {_LONGEST.days:,} days, as "
            "in timedelta(seconds=5)"
        )


def _is_name(value: object) -> bool:
    if not isinstance(value, str) or not 0 < len(value) <= _NAME_LIMIT or "\0" in value:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


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
            _check_span("LivenessSettings", name, getattr(self, name))
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
        if isinstance(self.queues, str) or not self.queues or not all(map(_is_name, self.queues)):
            raise ConfigurationError(
                f"WorkerSettings(queues={shown(self.queues)}): name at least one queue, as in queues=('default',); "
                f"names have 1 to {_NAME_LIMIT} characters, no NUL and no lone surrogate"
            )
        for name in ("concurrency", "threads", "max_crashes"):
            _check_count("WorkerSettings", name, getattr(self, name))
        for name in ("shutdown_grace", "look_every"):
            _check_span("WorkerSettings", name, getattr(self, name))
        _check_count("WorkerSettings", "prefetch", self.prefetch, lowest=0)
