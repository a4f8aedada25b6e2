"""A function that runs batches, as a job type."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from types import NoneType, UnionType
from typing import Any, Never, Protocol, TypeVar, Union, cast, get_args, get_origin, get_type_hints, overload

from piecework.base.errors import RegistrationError
from piecework.base.serialization import qualified_name
from piecework.work.batch import BatchOutcomes, CurrentBatch
from piecework.work.batching import check_batching
from piecework.work.config_job import ConfigJob
from piecework.work.current_job import CurrentJob
from piecework.work.function import AnyJobFunction, JobFunction, named_function
from piecework.work.function_shape import place_of
from piecework.work.job_settings import CheckedSettings, JobSettings, check_keys, check_settings
from piecework.work.registry import RunBatch
from piecework.work.runner_types import RunnerTypes, make_types
from piecework.work.service import Service
from piecework.work.templates import compile_for_config

T = TypeVar("T")
S = TypeVar("S")


class BatchedJob(ConfigJob):
    """A job type whose jobs a function runs together.

    Args:
        fn: an `async def` function that takes a `CurrentBatch[Config]` alone.
        job_type: its name.
        settings: as they were checked.
        localns: the names of the scope in which the function was defined, for its annotations.

    Raises:
        RegistrationError: it is another function, or a template does not fit its config.
    """

    __slots__ = ("_fn", "_localns", "_templates")

    def __init__(
        self,
        fn: Callable[..., object],
        job_type: str,
        settings: CheckedSettings,
        localns: Mapping[str, object] | None,
    ) -> None:
        super().__init__(job_type, qualified_name(fn), place_of(fn), is_async=True, settings=settings)
        check_keys(settings, settings.key is not None, settings.concurrency_key is not None, _where(fn))
        self._fn = fn
        self._localns = dict(localns or {})
        self._templates = (settings.key, settings.concurrency_key)
        self.read_if_complete()

    def read_types(self) -> RunnerTypes:
        """Return the types of config and result."""
        config, result = _read(self._fn, self._localns)
        types = make_types(config, result, self.function, strict=self.strict)
        key, concurrency_key = self._templates
        where = _where(self._fn)
        if key is not None:
            make_key = compile_for_config(key, config, f"{where}: key=")
            self.make_key = lambda config: self.checked_key(make_key, config, "key")
        if concurrency_key is not None:
            make = compile_for_config(concurrency_key, config, f"{where}: concurrency_key=")
            self.make_concurrency_key = lambda config: self.checked_key(make, config, "concurrency_key")
        return types

    def renamed(self, job_type: str) -> str:
        """Return the code that would give it another job type, for messages."""
        return f"@jobs.batched({job_type!r})"

    def prepare(self, job: CurrentJob) -> Callable[[], object]:
        """Decode the stored config and set `job.config`; what is returned is not to be called."""
        self.take_config(job)
        return _alone


def _where(fn: Callable[..., object]) -> str:
    return f"@jobs.batched on {qualified_name(fn)}"


def _alone() -> Never:
    raise AssertionError("the jobs of a batched type run by `batching`")


def register_batched(
    service: Service,
    fn: object,
    job_type: str,
    settings: Mapping[str, object],
    localns: Mapping[str, object] | None,
    *,
    max_size: object,
    max_concurrent_batches: object,
) -> AnyJobFunction:
    """Make a function a batched job type of `service`; what it takes is what `function.register` takes.

    Raises:
        RegistrationError: the function cannot run batches, a setting is wrong, or the job type is taken.
    """
    checked, name = named_function(fn, job_type)
    where = _where(checked)
    if not inspect.iscoroutinefunction(checked):
        raise RegistrationError(f"{where}: a batch runs on the event loop: write async def; for code that blocks, "
                                "await asyncio.to_thread(…) inside")
    checked_settings = check_settings(cast("JobSettings", settings), where)
    most = check_batching(checked_settings, max_size, max_concurrent_batches, where)
    job = BatchedJob(checked, name, checked_settings, localns)
    job.batch_by(cast("RunBatch", checked), *most)
    service.registry.add(job)
    return JobFunction(service, job, checked)


def _read(fn: Callable[..., object], localns: dict[str, object]) -> tuple[object, object]:
    """Return the config and the result that the annotations of a batched function name."""
    where = _where(fn)
    wanted = f"{where} takes a function with one parameter, the batch, as in batch: CurrentBatch[Config]"
    parameters = list(inspect.signature(fn).parameters.values())
    if len(parameters) != 1 or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise RegistrationError(f"{wanted}; this one has {len(parameters)}")
    hints = get_type_hints(fn, localns=localns, include_extras=True)
    batch: object = hints.get(parameters[0].name)
    if batch is not CurrentBatch and get_origin(batch) is not CurrentBatch:
        raise RegistrationError(f"{wanted}, not {parameters[0]}")
    config = next(iter(get_args(batch)), object)
    if config is object or config is Any or isinstance(config, TypeVar):
        raise RegistrationError(f"{where}: which config do its jobs have? Write {parameters[0].name}: "
                                "CurrentBatch[Config], with a dataclass, a TypedDict, a Struct, a pydantic model or a "
                                "plain type")
    return config, _result(hints.get("return", BatchOutcomes[object]), where)


def _result(returns: object, where: str) -> object:
    members = get_args(returns) if isinstance(returns, UnionType) or get_origin(returns) is Union else (returns,)
    results = [next(iter(get_args(each)), NoneType) for each in members if (get_origin(each) or each) is BatchOutcomes]
    others = [each for each in members if (get_origin(each) or each) not in (BatchOutcomes, None, NoneType)]
    if others or len(results) > 1:
        raise RegistrationError(f"{where} returns None, when all jobs of the batch complete, or BatchOutcomes[…] of "
                                f"their results, not {returns}")
    return results[0] if results else NoneType


class BatchedDecorator(Protocol):
    """What `@jobs.batched(…)` with settings applies to the function."""

    @overload
    def __call__(
        self, fn: Callable[[CurrentBatch[T]], Coroutine[object, Never, None]], /
    ) -> JobFunction[[T], None, [CurrentBatch[T]], Coroutine[object, Never, None]]: ...
    @overload
    def __call__(
        self, fn: Callable[[CurrentBatch[T]], Coroutine[object, Never, BatchOutcomes[S]]], /
    ) -> JobFunction[[T], S, [CurrentBatch[T]], Coroutine[object, Never, BatchOutcomes[S]]]: ...
