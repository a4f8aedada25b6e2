"""When a failed job runs again, and how loudly its failures are reported."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from piecework.base.errors import ConfigurationError
from piecework.base.texts import shown

_MICROSECOND = timedelta(microseconds=1)
_LONGEST = timedelta(days=36_500)
"""Keeps every `run_at` within what a Python datetime can hold."""
_MOST_DOUBLINGS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySettings:
    """How often a failing job is tried, and how long it waits in between.

    Raises:
        ConfigurationError: a value is out of its range; the message names it.
    """

    n_attempts: int | None = 30
    """A job runs at most this often until it completes or reschedules itself; None: without limit."""
    n_warn_attempts: int | None = 3
    """That many failures in a row are logged as warnings, further ones as errors; None: warnings while it is retried.
    The failure that ends the job is always an error."""
    min_backoff: timedelta = timedelta(seconds=1)
    """The wait after the first failed attempt. It doubles with each further one."""
    max_backoff: timedelta = timedelta(hours=1)
    """No wait is longer, jitter included."""
    backoff_jitter_pct: int = 20
    """A wait is spread evenly by up to this percentage, in both directions; 0 to 100."""
    attempt_reset_after_backoff_multiples: int = 3
    """A run that fails only after more than this many times the backoff before it had been healthy again: its failure
    counts as that of attempt 1, so the backoff starts anew. `n_attempts` does not: a slow failing job ends too."""

    def __post_init__(self) -> None:
        if self.n_attempts is not None:
            _check_whole("n_attempts", self.n_attempts, 1, hint=", or None for no limit")
        if self.n_warn_attempts is not None:
            _check_whole("n_warn_attempts", self.n_warn_attempts, 0, hint=", or None for warnings only")
        _check_duration("min_backoff", self.min_backoff)
        _check_duration("max_backoff", self.max_backoff)
        if self.min_backoff > self.max_backoff:
            raise ConfigurationError(
                f"RetrySettings(min_backoff={self.min_backoff!r}, max_backoff={self.max_backoff!r}):"
                " min_backoff must not be longer than max_backoff"
            )
        _check_whole("backoff_jitter_pct", self.backoff_jitter_pct, 0, 100)
        _check_whole("attempt_reset_after_backoff_multiples", self.attempt_reset_after_backoff_multiples, 0)

    @classmethod
    def repeat_indefinitely(cls) -> RetrySettings:
        """The defaults, without a limit of attempts."""
        return cls(n_attempts=None)

    @classmethod
    def never(cls) -> RetrySettings:
        """The first failure ends the job."""
        return cls(n_attempts=1)


def _check_whole(name: str, value: object, lowest: int, highest: int | None = None, hint: str = "") -> None:
    allowed = f"{lowest} or more" if highest is None else f"{lowest} to {highest}"
    if type(value) is not int or value < lowest or (highest is not None and value > highest):
        raise ConfigurationError(
            f"RetrySettings({name}={shown(value)}): {name} must be a whole number, {allowed}{hint}"
        )


def _check_duration(name: str, value: object) -> None:
    if not isinstance(value, timedelta) or not timedelta(0) <= value <= _LONGEST:
        raise ConfigurationError(
            f"RetrySettings({name}={shown(value)}): {name} must be a timedelta from zero to {_LONGEST.days} days,"
            " as in timedelta(seconds=5)"
        )


def base_backoff(settings: RetrySettings, attempt: int) -> timedelta:
    """The wait after the failure of attempt number `attempt`, without jitter: `min_backoff`, doubled by each attempt
    after the first, at most `max_backoff`."""
    doublings = min(max(attempt - 1, 0), _MOST_DOUBLINGS)
    # In whole microseconds, because a doubled timedelta may overflow before it is cut.
    doubled = (settings.min_backoff // _MICROSECOND) << doublings
    return timedelta(microseconds=min(doubled, settings.max_backoff // _MICROSECOND))


def backoff(settings: RetrySettings, attempt: int, draw: float) -> timedelta:
    """The wait after the failure of attempt number `attempt`, from zero to `max_backoff`.

    `draw`, evenly from [0, 1), picks the jitter: a whole number of milliseconds, at most `backoff_jitter_pct` of the
    wait in either direction.
    """
    base = base_backoff(settings, attempt)
    spread = base // timedelta(milliseconds=1) * settings.backoff_jitter_pct // 100
    jitter = int(draw * (2 * spread + 1)) - spread
    return min(max(base + timedelta(milliseconds=jitter), timedelta(0)), settings.max_backoff)


def counted_attempt(settings: RetrySettings, attempt: int, lasted: timedelta) -> int:
    """The number that the failure of attempt `attempt` counts as: 1 when its run had been healthy again for longer
    than `attempt_reset_after_backoff_multiples` times the backoff before it, else `attempt` itself."""
    if attempt <= 1:
        return 1
    before = base_backoff(settings, attempt - 1) // _MICROSECOND
    healthy = before > 0 and lasted // _MICROSECOND > before * settings.attempt_reset_after_backoff_multiples
    return 1 if healthy else attempt


def exhausted(settings: RetrySettings, failures: int) -> bool:
    """Whether a job that failed `failures` times since it last completed or rescheduled may not run again."""
    return settings.n_attempts is not None and failures >= settings.n_attempts


def failure_level(settings: RetrySettings, failures: int, *, will_retry: bool) -> int:
    """The logging level of failure number `failures` in a row."""
    quiet = settings.n_warn_attempts is None or failures <= settings.n_warn_attempts
    return logging.WARNING if will_retry and quiet else logging.ERROR
