"""What `@jobs.job(…)` takes besides the job type, checked where the job is defined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypedDict, cast

from piecework.base.errors import InvalidOptions, NotBuiltYet, RegistrationError
from piecework.model.retry import RetrySettings
from piecework.work.placement import Placement, checked_name, checked_priority, checked_tags, refuse_unknown

_NOT_BUILT = ("key", "concurrency_key")


class JobSettings(TypedDict, total=False):
    """The settings of a job type; they hold for all its jobs, and `options(…)` may differ from them for one spawn."""

    queue: str
    """The queue its jobs wait in, `default` unless set."""
    priority: int
    """Lower runs first within a queue, -32768 to 32767, default 0."""
    retry: RetrySettings
    """How often a failing job is tried, and how long it waits in between."""
    fail_on: tuple[type[Exception], ...]
    """Errors that are not worth another attempt: they end the job as `errored` at once."""
    max_concurrent_per_process: int
    """At most so many of its jobs run at once in one worker process."""
    aliases: Sequence[str]
    """Former names of the job type: jobs that were spawned under them run too."""
    tags: Sequence[str]
    """Words to find its jobs by, at most 50 of at most 100 characters."""
    timeout: timedelta
    """How long one run may take, from its start. What goes on is stopped: a failed attempt, with a `TimeoutError`.

    An `async def` function is cancelled where it awaits. A `def` function cannot be stopped, `job.cancel_requested`
    tells it: its attempt ends when the function does, has failed even if that returned a value, and until then takes a
    place among the jobs that run. Without this setting a run may take as long as it likes.
    """
    key: str
    """Not built yet."""
    concurrency_key: str
    """Not built yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedSettings:
    """Settings that were checked, with what holds where nothing was said."""

    placement: Placement
    retry: RetrySettings
    fail_on: tuple[type[Exception], ...]
    max_concurrent_per_process: int | None
    timeout: timedelta | None
    aliases: tuple[str, ...]


def check_settings(settings: JobSettings, function: str) -> CheckedSettings:
    """Check the settings of the job function called `function`.

    Raises:
        RegistrationError: a setting is unknown, out of range or of the wrong type.
        NotBuiltYet: a setting that this version does not have.
    """
    where = f"@jobs.job on {function}"
    try:
        refuse_unknown(settings, JobSettings.__annotations__, where)
        for name in _NOT_BUILT:
            if name in settings:
                raise NotBuiltYet(f"{where}: the setting {name}= is not built yet: this version of piecework cannot "
                                  "honour it, so leave it out")
        placement = Placement(
            queue=checked_name(settings.get("queue", "default"), f"{where}: queue="),
            priority=checked_priority(settings.get("priority", 0), f"{where}: priority="),
            tags=checked_tags(settings.get("tags", ()), f"{where}: tags="),
        )
        return CheckedSettings(
            placement=placement,
            retry=_checked_retry(settings.get("retry", RetrySettings()), where),
            fail_on=_checked_fail_on(settings.get("fail_on", ()), where),
            max_concurrent_per_process=_checked_limit(settings.get("max_concurrent_per_process"), where),
            timeout=_checked_timeout(settings.get("timeout"), where),
            aliases=_checked_aliases(settings.get("aliases", ()), where),
        )
    except InvalidOptions as error:
        raise RegistrationError(str(error)) from None


def _checked_retry(value: object, where: str) -> RetrySettings:
    if not isinstance(value, RetrySettings):
        raise RegistrationError(f"{where}: retry= takes RetrySettings, not {value!r}: write "
                                "retry=RetrySettings(n_attempts=5)")
    return value


def _checked_fail_on(value: object, where: str) -> tuple[type[Exception], ...]:
    if not isinstance(value, tuple):
        raise RegistrationError(f"{where}: fail_on= takes a tuple of exception types, not {value!r}: write "
                                "fail_on=(ValueError,)")
    for item in cast("tuple[object, ...]", value):
        if not (isinstance(item, type) and issubclass(item, Exception)):
            raise RegistrationError(f"{where}: fail_on= takes types that derive from Exception, not {item!r}")
    return cast("tuple[type[Exception], ...]", value)


def _checked_limit(value: object, where: str) -> int | None:
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise RegistrationError(f"{where}: max_concurrent_per_process= takes an int of 1 or more, not {value!r}")
    return value


def _checked_timeout(value: object, where: str) -> timedelta | None:
    if value is None:
        return None
    if not isinstance(value, timedelta):
        raise RegistrationError(f"{where}: timeout= takes a timedelta, not {value!r}: write "
                                "timeout=timedelta(minutes=10)")
    if value <= timedelta(0):
        raise RegistrationError(f"{where}: timeout={value!r} leaves no time to run: give it more, or leave it out")
    return value


def _checked_aliases(value: object, where: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise RegistrationError(f"{where}: aliases= takes a list of former job types, not {value!r}: write "
                                "aliases=['…']")
    return tuple(checked_name(alias, f"{where}: aliases=") for alias in cast("Sequence[object]", value))
