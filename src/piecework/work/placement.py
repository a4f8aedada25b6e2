"""Where and when a job is spawned: what its settings say, overlaid with the options of one spawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypedDict, cast
from uuid import UUID

from piecework.base.errors import InvalidOptions
from piecework.base.ids import JobId
from piecework.base.moments import within_reach
from piecework.base.texts import shown

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LONGEST_DELAY = timedelta(days=36_525)
_NAME_LIMIT = 200
_TAG_LIMIT = 100
_TAGS_LIMIT = 50


class SpawnOptions(TypedDict, total=False):
    """What `options(…)` takes, besides `conn`; each holds for the spawns of that spawner alone."""

    id: JobId
    """An id of the caller's own: spawning a second job with it raises `JobAlreadyExists`, also when the first ended."""
    run_at: datetime
    """The earliest moment the job may run: an aware datetime, by the database's clock. Excludes `delay`."""
    delay: timedelta
    """The same, counted from the spawn by the database's clock; negative is a moment in the past. Excludes `run_at`."""
    queue: str
    """The queue it waits in."""
    priority: int
    """Lower runs first within a queue, -32768 to 32767, default 0."""
    key: str
    """While a job of the type with this key is live, a spawn creates none: its handle is that of the live one. A text
    of 1 to 200 characters, in place of the one that the settings make."""
    concurrency_key: str
    """At most so many jobs with this key run at once as its limit says, of whatever job types; the oldest first. A text
    of 1 to 200 characters, in place of the one that the settings make."""
    concurrency_limit: int
    """How many jobs with the concurrency key of this one may run at once, 1 unless set."""
    tags: Sequence[str]
    """Words to find the job by, at most 50 of at most 100 characters; they replace those of the settings."""


class Placement(NamedTuple):
    """Options, checked and in the form in which they are stored; `None` where nothing was asked for."""

    queue: str = "default"
    priority: int = 0
    tags: tuple[str, ...] = ()
    id: JobId | None = None
    run_at: int | None = None
    """Microseconds since the epoch."""
    delay: int | None = None
    """Microseconds from the insert."""
    key: str | None = None
    concurrency_key: str | None = None
    concurrency_limit: int | None = None

    def overlaid(self, options: SpawnOptions) -> Placement:
        """Return this placement with `options` on top: what they name replaces what was there.

        Raises:
            InvalidOptions: an option is unknown, out of range, of the wrong type, or contradicts another.
        """
        refuse_unknown(options, SpawnOptions.__annotations__, "options()")
        placed = self
        if "queue" in options:
            placed = placed._replace(queue=checked_name(options["queue"], "options(queue=…)"))
        if "priority" in options:
            placed = placed._replace(priority=checked_priority(options["priority"], "options(priority=…)"))
        if "tags" in options:
            placed = placed._replace(tags=checked_tags(options["tags"], "options(tags=…)"))
        if "id" in options:
            placed = placed._replace(id=checked_id(options["id"], "options(id=…)"))
        return placed._keyed(options)._timed(options)

    def _keyed(self, options: SpawnOptions) -> Placement:
        placed = self
        if "key" in options:
            placed = placed._replace(key=checked_name(options["key"], "options(key=…)"))
        if "concurrency_key" in options:
            key = checked_name(options["concurrency_key"], "options(concurrency_key=…)")
            placed = placed._replace(concurrency_key=key)
        if "concurrency_limit" in options:
            limit = checked_limit(options["concurrency_limit"], "options(concurrency_limit=…)")
            placed = placed._replace(concurrency_limit=limit)
        return placed

    def _timed(self, options: SpawnOptions) -> Placement:
        if "run_at" in options and "delay" in options:
            raise InvalidOptions(f"options(run_at={shown(options['run_at'])}, delay={shown(options['delay'])}): "
                                 "each says when the job is due, so give one of them")
        if "run_at" in options:
            return self._replace(run_at=_checked_moment(options["run_at"]), delay=None)
        if "delay" in options:
            return self._replace(run_at=None, delay=_checked_delay(options["delay"]))
        return self


def refuse_unknown(given: Mapping[str, object], known: Mapping[str, object], where: str) -> None:
    """Raise `InvalidOptions` if `given` has a name that is not in `known`."""
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InvalidOptions(f"{where} takes no {', '.join(map(repr, unknown))}; it takes {', '.join(sorted(known))}")


def checked_name(value: object, where: str) -> str:
    """Return a key, or the name of a queue or job type: a text of 1 to 200 characters that can be stored; else raise
    `InvalidOptions`."""
    if not isinstance(value, str):
        raise InvalidOptions(f"{where} takes a text, not {shown(value)}")
    value = str.__str__(value)  # a text of a class of its own is stored as a text
    if not 0 < len(value) <= _NAME_LIMIT:
        raise InvalidOptions(f"{where} takes 1 to {_NAME_LIMIT} characters, got {len(value)}: {value[:60]!r}")
    return _storable(value, where)


def checked_priority(value: object, where: str) -> int:
    """Return a priority: an `int` from -32768 to 32767; else raise `InvalidOptions`."""
    if type(value) is not int:
        raise InvalidOptions(f"{where} takes an int, not {shown(value)}")
    if not -32768 <= value <= 32767:
        raise InvalidOptions(f"{where} takes -32768 to 32767, got {shown(value, 60)}; lower runs first, "
                             "the default is 0")
    return value


def checked_limit(value: object, where: str) -> int:
    """Return the limit of a concurrency key: an `int` from 1 to 32767; else raise `InvalidOptions`."""
    if type(value) is not int or not 1 <= value <= 32767:
        raise InvalidOptions(f"{where} takes an int from 1 to 32767, not {shown(value)}")
    return value


def checked_tags(value: object, where: str) -> tuple[str, ...]:
    """Return tags: at most 50 texts of 1 to 100 characters; else raise `InvalidOptions`."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidOptions(f"{where} takes a list of texts, not {shown(value)}: write tags=['…']")
    tags = tuple(cast("Sequence[object]", value))
    if len(tags) > _TAGS_LIMIT:
        raise InvalidOptions(f"{where} takes at most {_TAGS_LIMIT} tags, got {len(tags)}")
    checked: list[str] = []
    for tag in tags:
        if not isinstance(tag, str) or not 0 < len(tag) <= _TAG_LIMIT:
            raise InvalidOptions(f"{where} takes tags of 1 to {_TAG_LIMIT} characters, got {shown(tag, 120)}")
        checked.append(_storable(str.__str__(tag), where))
    return tuple(checked)


def _storable(text: str, where: str) -> str:
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidOptions(f"{where} got {text!r}: PostgreSQL stores no NUL and no lone surrogate, take them out")
    return text


def checked_id(value: object, where: str) -> JobId:
    """Return a job id: a `uuid.UUID`; else raise `InvalidOptions`."""
    if not isinstance(value, UUID):
        raise InvalidOptions(f"{where} takes a uuid.UUID, not {shown(value)}: write UUID('…')")
    return value


def _checked_moment(value: object) -> int:
    if not isinstance(value, datetime):
        raise InvalidOptions(f"options(run_at=…) takes an aware datetime, not {shown(value)}; for a span of time use "
                             "delay=")
    try:
        return (within_reach(value) - _EPOCH) // _MICROSECOND
    except ValueError as error:
        raise InvalidOptions(f"options(run_at=…): {error}") from None


def _checked_delay(value: object) -> int:
    if not isinstance(value, timedelta):
        raise InvalidOptions(f"options(delay=…) takes a timedelta, not {shown(value)}: write timedelta(seconds=…)")
    if abs(value) > _LONGEST_DELAY:
        raise InvalidOptions(f"options(delay={value!r}) is more than a hundred years away")
    return value // _MICROSECOND


def checked_key_limit(key: object, limit: object, queue: object) -> tuple[str, int | None, str]:
    """Return what is to be said of a concurrency key; else raise `InvalidOptions`."""
    where = "set_concurrency_limit(…)"
    if limit is not None and (type(limit) is not int or not 0 <= limit < 2**31):
        raise InvalidOptions(f"{where} takes a limit of 0 or more, or None to take it back, not {shown(limit)}")
    return checked_name(key, where), limit, checked_name(queue, f"{where}: queue=") if queue != "" else ""
