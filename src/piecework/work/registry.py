"""Which job types there are, and all that spawners and workers need to know of each."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

import msgspec

from piecework.base.errors import ConfigTooLarge, RegistrationError, UndecodableConfig
from piecework.base.serialization import encode
from piecework.work.batch import CurrentBatch
from piecework.work.current_job import CurrentJob
from piecework.work.job_settings import CheckedSettings
from piecework.work.placement import checked_name
from piecework.work.templates import MakeKey

_log = logging.getLogger(__name__)
_RESIDENT_KEY = "resident"


RunBatch: TypeAlias = Callable[[CurrentBatch], Coroutine[object, object, object]]


class Batching(NamedTuple):
    """How the jobs of a type run together."""

    max_size: int
    run: RunBatch


class RegisteredJob(ABC):
    """One job type: its settings, and what runs it in executable form.

    Args:
        job_type: its name.
        function: the qualified name of what runs it.
        place: the same with file and line, for messages.
        is_async: whether what `prepare` returns makes a coroutine; else it is called in a thread.
        settings: as they were checked.
    """

    __slots__ = (
        "_warned", "aliases", "batching", "fail_on", "function", "inherits_state", "is_async", "job_type",
        "make_concurrency_key", "make_key", "max_concurrent_per_process", "place", "placement", "resident", "retry",
        "strict", "timeout",
    )  # fmt: skip

    make_key: MakeKey | None
    """From a decoded config to the key of its job; None where the type has no keys."""
    make_concurrency_key: MakeKey | None
    max_concurrent_per_process: int | None
    """Counted in batches, where there are."""
    batching: Batching | None
    """None where each job runs for itself."""

    def __init__(self, job_type: str, function: str, place: str, *, is_async: bool, settings: CheckedSettings) -> None:
        self.job_type = job_type
        self.function = function
        self.place = place
        self.is_async = is_async
        self.aliases = settings.aliases
        self.placement = settings.placement
        self.retry = settings.retry
        self.fail_on = settings.fail_on
        self.max_concurrent_per_process = settings.max_concurrent_per_process
        self.timeout = settings.timeout
        self.resident = settings.resident
        self.inherits_state = settings.inherits_state
        self.strict = settings.strict
        self.make_key = (lambda config: _RESIDENT_KEY) if settings.resident else None
        self.make_concurrency_key = None
        self.batching = None
        self._warned: set[str] = set()

    def batch_by(self, run: RunBatch, max_size: int, max_concurrent: int) -> None:
        """Have the jobs run together: at most so many in a batch, and at most so many batches at once in a process."""
        self.batching = Batching(max_size, run)
        self.max_concurrent_per_process = max_concurrent

    @abstractmethod
    def resolve(self) -> object:
        """Complete what could not be read when the job type was defined, because an annotation named what came later.

        Raises:
            RegistrationError: an annotation names what does not exist, or the job type cannot be.
        """

    @abstractmethod
    def encode_config(self, args: tuple[object, ...], kwargs: Mapping[str, object], limit: int) -> tuple[bytes, object]:
        """Return what a spawn got as it is stored, and as it will be read: checked by reading back what was written.

        Raises:
            InvalidConfig: it does not fit the job type, or cannot be written as JSON.
            ConfigTooLarge: it takes more than `limit` bytes.
        """

    @abstractmethod
    def prepare(self, job: CurrentJob) -> Callable[[], object]:
        """Decode the stored config, set `job.config`, and return the run as a call without arguments.

        If the job type `is_async`, the call answers a coroutine. Of a batched job type it is not called: its jobs are
        run by `batching`. Stored fields that are not known are skipped, with one
        WARNING per field in this process, unless the job type is `strict`.

        Raises:
            UndecodableConfig: the stored config does not fit the job type of today.
            RegistrationError: as `resolve`.
        """

    @abstractmethod
    def decode_result(self, stored: msgspec.Raw) -> object:
        """Return a stored result, of the type that the job type declares.

        Raises:
            msgspec.ValidationError: it is of another type.
        """

    def encode_result(self, value: object) -> msgspec.Raw | None:
        """Return what a run returned as it is stored; `None` for `None`.

        Raises:
            TypeError, ValueError: it cannot be written as JSON.
        """
        if value is None:
            return None
        try:
            return msgspec.Raw(encode(value))
        except TypeError as error:
            raise TypeError(f"the result of {self.function} cannot be stored: {error}") from error
        except ValueError as error:
            raise ValueError(f"the result of {self.function} cannot be stored: {error}") from error

    def replaces(self, other: RegisteredJob) -> bool:
        """Whether this is the other one, read again: as after the reload of a module."""
        return other.function == self.function

    @abstractmethod
    def renamed(self, job_type: str) -> str:
        """Return the code that would give it another job type, for messages."""

    def checked_size(self, text: bytes, limit: int) -> bytes:
        """Return `text`, the encoded config; raise `ConfigTooLarge` if it takes more than `limit` bytes."""
        if len(text) > limit:
            raise ConfigTooLarge(
                f"the config of a job of type {self.job_type} takes {len(text):,} bytes, the limit is {limit:,}: store "
                "the data elsewhere and pass a reference to it, or raise the limit by Jobs(max_config_size=…)"
            )
        return text

    def checked_key(self, make: MakeKey, config: object, name: str) -> str | None:
        """Return the key that `make` makes of a config, None for no key.

        Raises:
            InvalidOptions: it is no text of 1 to 200 characters that PostgreSQL stores.
        """
        key = make(config)
        return None if key is None else checked_name(key, f"job type {self.job_type}: the {name} made of its arguments")

    def refuse_or_warn(self, unknown: Iterable[str]) -> None:
        """Say once of each of these stored fields that it is ignored; or, if the job type is strict, refuse them.

        Raises:
            UndecodableConfig: there are some, and the job type is strict.
        """
        fields = sorted(unknown)
        if fields and self.strict:
            raise UndecodableConfig(
                f"a stored config of job type {self.job_type} has fields that {self.function} does not take, and "
                f"strict=True forbids to ignore them: {', '.join(map(repr, fields))}. A worker of the release that "
                "stored them can run the job"
            )
        for name in fields:
            if name not in self._warned:
                self._warned.add(name)
                _log.warning(
                    "job type %s: stored configs have a field %r that %s does not take (any more): it is ignored",
                    self.job_type, name, self.function,
                )  # fmt: skip


class Registry:
    """The job types of one `Jobs`, by name and by alias. Registering is possible at any time, from any thread."""

    def __init__(self) -> None:
        self._by_name: dict[str, RegisteredJob] = {}
        self._lock = threading.Lock()
        self.generation = 0
        """Rises with every registration, so that a worker sees late ones."""
        self._watchers: list[Callable[[], None]] = []

    def add(self, job: RegisteredJob) -> None:
        """Register a job type. What has the same module and name, as after a reload, replaces the earlier.

        Raises:
            RegistrationError: another one has the job type or one of the aliases.
        """
        with self._lock:
            names = (job.job_type, *job.aliases)
            for name in names:
                other = self._by_name.get(name)
                if other is not None and not job.replaces(other):
                    raise RegistrationError(
                        f"the job type {name!r} is registered twice, by {other.place} and by {job.place}: give one of "
                        f"them another name, as in {job.renamed(name + '-2')}"
                    )
            replaced = self._by_name.get(job.job_type)
            kept = {name: other for name, other in self._by_name.items() if other is not replaced}
            self._by_name = kept | dict.fromkeys(names, job)
            self.generation += 1
            watchers = list(self._watchers)
        for told in watchers:
            told()

    @contextmanager
    def watched(self, told: Callable[[], None]) -> Generator[None]:
        """Call `told` after every registration, in the thread that registers."""
        with self._lock:
            self._watchers.append(told)
        try:
            yield
        finally:
            with self._lock:
                self._watchers.remove(told)

    def get(self, job_type: str) -> RegisteredJob | None:
        """Return the job of this job type, or of this alias; `None` if there is none."""
        return self._by_name.get(job_type)

    @property
    def job_types(self) -> tuple[str, ...]:
        """All job types, aliases included, in the order of their registration."""
        return tuple(self._by_name)

    def resolve(self) -> None:
        """Complete every job type whose annotations could not be read when it was defined.

        Raises:
            RegistrationError: as `RegisteredJob.resolve`, for the first that cannot be.
        """
        for job in tuple(self._by_name.values()):
            job.resolve()
