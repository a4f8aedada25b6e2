"""Which job types there are, and all that a worker needs to know of each."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import cast

import msgspec

from piecework.base.errors import ConfigTooLarge, InvalidConfig, RegistrationError, UndecodableConfig
from piecework.base.serialization import encode, qualified_name
from piecework.work.current_job import CurrentJob, claimed_of, give_config
from piecework.work.function_shape import Unresolved, read_shape
from piecework.work.job_settings import CheckedSettings
from piecework.work.signature import Signature, make_signature

_log = logging.getLogger(__name__)


class RegisteredJob:
    """One job type: its settings, and its function in executable form.

    Raises, when it is made:
        RegistrationError: the function cannot be a job.
    """

    __slots__ = (
        "_localns", "_signature", "_warned", "aliases", "fail_on", "fn", "function", "is_async", "job_type",
        "max_concurrent_per_process", "place", "placement", "retry", "timeout",
    )  # fmt: skip

    def __init__(
        self,
        fn: Callable[..., object],
        job_type: str,
        settings: CheckedSettings,
        localns: Mapping[str, object] | None,
    ) -> None:
        self.fn = fn
        self.job_type = job_type
        self.function = qualified_name(fn)
        code = cast("FunctionType", inspect.unwrap(fn)).__code__
        self.place = f"{self.function} ({code.co_filename}:{code.co_firstlineno})"
        self.is_async = inspect.iscoroutinefunction(fn)
        self.aliases = settings.aliases
        self.placement = settings.placement
        self.retry = settings.retry
        self.fail_on = settings.fail_on
        self.max_concurrent_per_process = settings.max_concurrent_per_process
        self.timeout = settings.timeout
        self._localns = localns
        self._warned: set[str] = set()
        self._signature: Signature | None = None
        try:
            self._read()
        except Unresolved:
            pass  # a forward reference: looked at again at the first use, or when a worker starts

    def resolve(self) -> Signature:
        """Return the function's signature, read now if its annotations were not complete before.

        Raises:
            RegistrationError: an annotation names what does not exist, or the function cannot be a job.
        """
        if self._signature is not None:
            return self._signature
        try:
            return self._read()
        except Unresolved as error:
            raise RegistrationError(
                f"job type {self.job_type}: the annotation of the parameter {error.parameter} of {self.place} names "
                f"{error.name}, which does not exist when the program runs: define it in the module, and import it "
                "outside of `if TYPE_CHECKING`"
            ) from None

    def _read(self) -> Signature:
        self._signature = make_signature(self.fn, read_shape(self.fn, self._localns))
        self._localns = None
        return self._signature

    def encode_config(self, args: tuple[object, ...], kwargs: Mapping[str, object], limit: int) -> bytes:
        """Return the arguments as they are stored: checked by reading back what was written.

        Raises:
            InvalidConfig: the arguments do not fit the function's parameters, or cannot be written as JSON.
            ConfigTooLarge: they take more than `limit` bytes.
        """
        signature = self._signature or self.resolve()
        try:
            config = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidConfig(f"{error}; the job type {self.job_type} takes {signature.text}") from None
        try:
            text = encode(config)
            signature.strict.decode(text)
        except Exception as error:
            raise InvalidConfig(self._why_invalid(signature, config, error)) from error
        if len(text) > limit:
            raise ConfigTooLarge(
                f"the config of a job of type {self.job_type} takes {len(text):,} bytes, the limit is {limit:,}: store "
                "the data elsewhere and pass a reference to it, or raise the limit by Jobs(max_config_size=…)"
            )
        return text

    def _why_invalid(self, signature: Signature, config: msgspec.Struct, error: Exception) -> str:
        for name in signature.names:
            value = getattr(config, name)
            try:
                encode(None if value is msgspec.UNSET else value)
            except Exception as inner:
                return f"job type {self.job_type}: the argument {name} cannot be stored: {inner}"
        return f"job type {self.job_type}: the arguments do not fit its parameters {signature.text}: {error}"

    def prepare(self, job: CurrentJob) -> Callable[[], object]:
        """Decode the stored config, set `job.config`, and return a call of the function without arguments.

        The call of an `async def` function answers its coroutine. Fields that the function does not know are skipped,
        with one WARNING per field in this process.

        Raises:
            UndecodableConfig: the stored config does not fit the function's parameters of today.
            RegistrationError: as `resolve`.
        """
        signature = self._signature or self.resolve()
        stored = claimed_of(job).config
        try:
            config = signature.strict.decode(stored)
        except Exception:
            config = self._decode_leniently(signature, stored)
        give_config(job, config)
        return signature.call(job, config)

    def _decode_leniently(self, signature: Signature, stored: msgspec.Raw) -> object:
        try:
            config = signature.lenient.decode(stored)
        except Exception as error:
            raise UndecodableConfig(
                f"a stored config of job type {self.job_type} does not fit {self.function}{signature.text}: {error}. "
                "A parameter that is new needs a default; a changed type must read what is queued"
            ) from error
        fields = msgspec.json.decode(stored, type=dict[str, msgspec.Raw])
        for name in sorted(fields.keys() - set(signature.names) - self._warned):
            self._warned.add(name)
            _log.warning(
                "job type %s: stored configs have a field %r that %s does not take (any more): it is ignored",
                self.job_type, name, self.function,
            )  # fmt: skip
        return config

    def encode_result(self, value: object) -> msgspec.Raw | None:
        """Return what the function returned as it is stored; `None` for `None`.

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

    def decode_result(self, stored: msgspec.Raw) -> object:
        """Return a stored result, of the type that the function's return annotation names.

        Raises:
            msgspec.ValidationError: it is of another type.
        """
        return self.resolve().result.decode(stored)


class Registry:
    """The job types of one `Jobs`, by name and by alias. Registering is possible at any time, from any thread."""

    def __init__(self) -> None:
        self._by_name: dict[str, RegisteredJob] = {}
        self._lock = threading.Lock()
        self.generation = 0
        """Rises with every registration, so that a worker sees late ones."""
        self._watchers: list[Callable[[], None]] = []

    def add(self, job: RegisteredJob) -> None:
        """Register a job type. A function of the same module and name, as after a reload, replaces the earlier one.

        Raises:
            RegistrationError: another function has the job type or one of the aliases.
        """
        with self._lock:
            names = (job.job_type, *job.aliases)
            for name in names:
                other = self._by_name.get(name)
                if other is not None and other.function != job.function:
                    raise RegistrationError(
                        f"the job type {name!r} is registered twice, by {other.place} and by {job.place}: give one of "
                        f"them another name, as in @jobs.job({name + '-2'!r})"
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
        """Complete every signature whose annotations could not be read when the function was defined.

        Raises:
            RegistrationError: as `RegisteredJob.resolve`, for the first that cannot be.
        """
        for job in tuple(self._by_name.values()):
            job.resolve()
