"""A function that is a job type, in executable form."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import msgspec

from piecework.base.errors import InvalidConfig, RegistrationError, UndecodableConfig
from piecework.base.serialization import encode, qualified_name
from piecework.work.current_job import CurrentJob, claimed_of, give_config
from piecework.work.function_shape import FunctionShape, Unresolved, place_of, read_shape
from piecework.work.job_settings import CheckedSettings, check_keys
from piecework.work.registry import RegisteredJob
from piecework.work.resident import only_reschedules
from piecework.work.signature import Signature, make_signature
from piecework.work.templates import MakeKey, Template, compile_template


class FunctionJob(RegisteredJob):
    """A job type whose config are the parameters of a function.

    Args:
        fn: the function.
        job_type: its name.
        settings: as they were checked.
        localns: the names of the scope in which the function was defined, for its annotations.

    Raises:
        RegistrationError: the function cannot be a job, or a template does not fit its parameters.
    """

    __slots__ = ("_localns", "_signature", "_templates", "fn")

    def __init__(
        self,
        fn: Callable[..., object],
        job_type: str,
        settings: CheckedSettings,
        localns: Mapping[str, object] | None,
    ) -> None:
        function = qualified_name(fn)
        super().__init__(job_type, function, place_of(fn), is_async=inspect.iscoroutinefunction(fn), settings=settings)
        check_keys(settings, settings.key is not None, settings.concurrency_key is not None, f"@jobs.job on {function}")
        self.fn = fn
        self._localns = localns
        self._templates = (settings.key, settings.concurrency_key)
        self._signature: Signature | None = None
        try:
            self._read()
        except Unresolved:
            pass  # a forward reference: looked at again at the first use, or when a worker starts

    def resolve(self) -> Signature:
        """Return the function's signature, read now if its annotations were not complete before."""
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
        shape = read_shape(self.fn, self._localns)
        key, concurrency_key = self._templates
        if key is not None:
            self.make_key = self._compiled(key, shape, "key")
        if concurrency_key is not None:
            self.make_concurrency_key = self._compiled(concurrency_key, shape, "concurrency_key")
        run = only_reschedules(self.fn) if self.resident else self.fn
        self._signature = make_signature(self.fn, shape, run)
        self._localns = None
        return self._signature

    def _compiled(self, template: Template, shape: FunctionShape, name: str) -> MakeKey:
        make = compile_template(template, shape, f"@jobs.job on {self.function}: {name}=")
        return lambda config: self.checked_key(make, config, name)

    def renamed(self, job_type: str) -> str:
        """Return the code that would give it another job type, for messages."""
        return f"@jobs.job({job_type!r})"

    def encode_config(self, args: tuple[object, ...], kwargs: Mapping[str, object], limit: int) -> tuple[bytes, object]:
        """Return the arguments as they are stored, and as they will be read."""
        signature = self._signature or self.resolve()
        try:
            config = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidConfig(f"{error}; the job type {self.job_type} takes {signature.text}") from None
        try:
            text = encode(config)
            read = signature.strict.decode(text)
        except Exception as error:
            raise InvalidConfig(self._why_invalid(signature, config, error)) from error
        return self.checked_size(text, limit), read

    def _why_invalid(self, signature: Signature, config: msgspec.Struct, error: Exception) -> str:
        for name in signature.names:
            value = getattr(config, name)
            try:
                encode(None if value is msgspec.UNSET else value)
            except Exception as inner:
                return f"job type {self.job_type}: the argument {name} cannot be stored: {inner}"
        return f"job type {self.job_type}: the arguments do not fit its parameters {signature.text}: {error}"

    def prepare(self, job: CurrentJob) -> Callable[[], object]:
        """Decode the stored config, set `job.config`, and return a call of the function without arguments."""
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
        self.refuse_or_warn(fields.keys() - set(signature.names))
        return config

    def decode_result(self, stored: msgspec.Raw) -> object:
        """Return a stored result, of the type that the function's return annotation names."""
        return self.resolve().result.decode(stored)
