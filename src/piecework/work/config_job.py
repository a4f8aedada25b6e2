"""A job type whose config is one value of a type of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import msgspec

from piecework.base.errors import InvalidConfig, RegistrationError, UndecodableConfig
from piecework.base.serialization import encode
from piecework.base.texts import shown
from piecework.work.current_job import CurrentJob, claimed_of, give_config
from piecework.work.job_settings import CheckedSettings
from piecework.work.registry import RegisteredJob
from piecework.work.runner_types import RunnerTypes


class ConfigJob(RegisteredJob):
    """A job type whose config is one value. The parameters are those of `RegisteredJob`."""

    __slots__ = ("_types",)

    def __init__(self, job_type: str, function: str, place: str, *, is_async: bool, settings: CheckedSettings) -> None:
        super().__init__(job_type, function, place, is_async=is_async, settings=settings)
        self._types: RunnerTypes | None = None

    @abstractmethod
    def read_types(self) -> RunnerTypes:
        """Return the types of config and result.

        Raises:
            RegistrationError: they cannot be those of a job.
            NameError: one of them names what does not exist (yet).
        """

    def read_if_complete(self) -> None:
        """Read the types, or leave that to the first use, or to the start of a worker: there are forward references."""
        try:
            self._types = self.read_types()
        except NameError:
            pass

    def resolve(self) -> RunnerTypes:
        """Return the types of config and result, read now if they were not complete before."""
        if self._types is None:
            try:
                self._types = self.read_types()
            except NameError as error:
                raise RegistrationError(
                    f"job type {self.job_type}: the config or the result of {self.place} names {error.name}, which "
                    "does not exist when the program runs: define it in the module, and import it outside of "
                    "`if TYPE_CHECKING`"
                ) from None
        return self._types

    def encode_config(self, args: tuple[object, ...], kwargs: Mapping[str, object], limit: int) -> tuple[bytes, object]:
        """Return the config as it is stored, and as it will be read."""
        types = self._types or self.resolve()
        if kwargs or len(args) != 1:
            raise InvalidConfig(f"a job of type {self.job_type} takes its config, one {types.text}, and got "
                                f"{len(args)} arguments and {len(kwargs)} keywords; options go through options(…)")
        try:
            text = encode(args[0])
            read = types.config.decode(text)
        except Exception as error:
            raise InvalidConfig(f"job type {self.job_type}: the config {shown(args[0])} does not fit {types.text}: "
                                f"{error}") from error
        return self.checked_size(text, limit), read

    def take_config(self, job: CurrentJob) -> None:
        """Decode the stored config, and set `job.config`.

        Raises:
            UndecodableConfig, RegistrationError: as `prepare`.
        """
        types = self._types or self.resolve()
        stored = claimed_of(job).config
        try:
            config = types.config.decode(stored)
        except Exception as error:
            raise UndecodableConfig(
                f"a stored config of job type {self.job_type} does not fit {types.text}: {error}. A field that is new "
                "needs a default; a changed type must read what is queued"
            ) from error
        if types.known is not None:
            try:
                types.known.decode(stored)
            except msgspec.ValidationError:
                fields = msgspec.json.decode(stored, type=dict[str, msgspec.Raw])
                self.refuse_or_warn(fields.keys() - types.fields)
        give_config(job, config)

    def decode_result(self, stored: msgspec.Raw) -> object:
        """Return a stored result, of the type that was declared."""
        return self.resolve().result.decode(stored)
