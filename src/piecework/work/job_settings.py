"""What `@jobs.job(…)` and the class form take besides the job type, checked where the job is defined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal, TypedDict, cast

from piecework.base.errors import InvalidOptions, RegistrationError
from piecework.base.texts import shown
from piecework.model.retry import RetrySettings
from piecework.work.placement import (
    Placement,
    checked_limit,
    checked_name,
    checked_priority,
    checked_tags,
    refuse_unknown,
)
from piecework.work.templates import Template, parse_template

_NEVER_ENDS = {
    "fail_on": "no error ends it",
    "key": "there is one of its type already",
    "inherits_state": "there is no next one",
}


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
    """While a job of the type with the same key is live, a spawn creates none: its handle is that of the live one, with
    `created` False. A template of the job's parameters and their fields, such as `"{account_id}"` or `"{order.id}"`;
    a parameter that is None makes no key."""
    inherits_state: bool
    """Whether a job with a key starts with the execution state that the job before it with that key left behind."""
    concurrency_key: str
    """At most `concurrency_limit` jobs with the same concurrency key run at once, of whatever job types; the oldest
    first. A template as `key`."""
    concurrency_limit: int
    """How many jobs with the same concurrency key may run at once, 1 unless set."""
    strict: bool
    """Whether a stored field that the function does not take fails the attempt; else it is ignored, with one WARNING.
    For jobs that may not lose what a newer release stored: a worker of that release gets them after the backoff."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedSettings:
    """Settings that were checked, with what holds where nothing was said."""

    placement: Placement
    retry: RetrySettings
    fail_on: tuple[type[Exception], ...]
    max_concurrent_per_process: int | None
    timeout: timedelta | None
    aliases: tuple[str, ...]
    key: Template | None
    concurrency_key: Template | None
    inherits_state: bool
    strict: bool
    resident: bool


def check_settings(settings: JobSettings, where: str, *, resident: bool = False) -> CheckedSettings:
    """Check the settings of a job type.

    Args:
        settings: as they were given.
        where: names what was defined, for messages, as in `@jobs.job on shop.send_email`.
        resident: whether there is one job of the type, which never ends.

    Raises:
        RegistrationError: a setting is unknown, out of range, of the wrong type or without meaning.
    """
    try:
        refuse_unknown(settings, JobSettings.__annotations__, where)
        retry = _checked_retry(settings.get("retry", RetrySettings()), where)
        if resident:
            _refuse_endings(settings, where)
            retry = replace(retry, n_attempts=None)
        return CheckedSettings(
            placement=_checked_placement(settings, where),
            retry=retry,
            fail_on=_checked_fail_on(settings.get("fail_on", ()), where),
            max_concurrent_per_process=_checked_limit(settings.get("max_concurrent_per_process"), where),
            timeout=_checked_timeout(settings.get("timeout"), where),
            aliases=_checked_aliases(settings.get("aliases", ()), where),
            key=_checked_template(settings, "key", where),
            concurrency_key=_checked_template(settings, "concurrency_key", where),
            inherits_state=_checked_flag(settings, "inherits_state", where),
            strict=_checked_flag(settings, "strict", where),
            resident=resident,
        )
    except InvalidOptions as error:
        raise RegistrationError(str(error)) from None


def check_keys(settings: CheckedSettings, has_key: bool, has_concurrency_key: bool, where: str) -> None:
    """Check the settings that mean something only beside a key.

    Raises:
        RegistrationError: the key is missing.
    """
    if settings.inherits_state and not has_key:
        raise RegistrationError(f"{where}: inherits_state=True needs a key: the execution state is handed on from job "
                                "to job of one key")
    if settings.placement.concurrency_limit is not None and not has_concurrency_key:
        raise RegistrationError(f"{where}: concurrency_limit= needs a concurrency_key; to limit how many jobs of the "
                                "type run at once in a process, write max_concurrent_per_process=")


def _refuse_endings(settings: JobSettings, where: str) -> None:
    for name, why in _NEVER_ENDS.items():
        if name in settings:
            raise RegistrationError(f"{where}: the setting {name}= has no meaning, since a resident job never ends: "
                                    f"{why}. Leave it out")


def _checked_placement(settings: JobSettings, where: str) -> Placement:
    limit = settings.get("concurrency_limit")
    return Placement(
        queue=checked_name(settings.get("queue", "default"), f"{where}: queue="),
        priority=checked_priority(settings.get("priority", 0), f"{where}: priority="),
        tags=checked_tags(settings.get("tags", ()), f"{where}: tags="),
        concurrency_limit=None if limit is None else checked_limit(limit, f"{where}: concurrency_limit="),
    )


def _checked_template(settings: JobSettings, name: Literal["key", "concurrency_key"], where: str) -> Template | None:
    return parse_template(settings.get(name), f"{where}: {name}=") if name in settings else None


def _checked_flag(settings: JobSettings, name: Literal["inherits_state", "strict"], where: str) -> bool:
    value: object = settings.get(name, False)
    if not isinstance(value, bool):
        raise RegistrationError(f"{where}: {name}= takes True or False, not {shown(value)}")
    return value


def _checked_retry(value: object, where: str) -> RetrySettings:
    if not isinstance(value, RetrySettings):
        raise RegistrationError(f"{where}: retry= takes RetrySettings, not {shown(value)}: write "
                                "retry=RetrySettings(n_attempts=5)")
    return value


def _checked_fail_on(value: object, where: str) -> tuple[type[Exception], ...]:
    if not isinstance(value, tuple):
        raise RegistrationError(f"{where}: fail_on= takes a tuple of exception types, not {shown(value)}: write "
                                "fail_on=(ValueError,)")
    for item in cast("tuple[object, ...]", value):
        if not (isinstance(item, type) and issubclass(item, Exception)):
            raise RegistrationError(f"{where}: fail_on= takes types that derive from Exception, not {item!r}")
    return cast("tuple[type[Exception], ...]", value)


def _checked_limit(value: object, where: str) -> int | None:
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise RegistrationError(f"{where}: max_concurrent_per_process= takes an int of 1 or more, not {shown(value)}")
    return value


def _checked_timeout(value: object, where: str) -> timedelta | None:
    if value is None:
        return None
    if not isinstance(value, timedelta):
        raise RegistrationError(f"{where}: timeout= takes a timedelta, not {shown(value)}: write "
                                "timeout=timedelta(minutes=10)")
    if value <= timedelta(0):
        raise RegistrationError(f"{where}: timeout={value!r} leaves no time to run: give it more, or leave it out")
    return value


def _checked_aliases(value: object, where: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise RegistrationError(f"{where}: aliases= takes a list of former job types, not {shown(value)}: write "
                                "aliases=['…']")
    return tuple(checked_name(alias, f"{where}: aliases=") for alias in cast("Sequence[object]", value))
