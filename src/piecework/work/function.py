"""A job function: the function it was, and a spawner besides; and the types by which checkers know both."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Concatenate, Generic, Never, ParamSpec, Protocol, TypeAlias, cast, overload

from typing_extensions import TypeVar

from piecework.base.errors import InvalidOptions, RegistrationError
from piecework.base.serialization import qualified_name
from piecework.model.completion import Fail, Reschedule
from piecework.work.current_job import CurrentJob
from piecework.work.function_job import FunctionJob
from piecework.work.function_shape import check_function
from piecework.work.job_settings import JobSettings, check_settings
from piecework.work.placement import checked_name
from piecework.work.registry import RegisteredJob
from piecework.work.service import Service
from piecework.work.spawner import JobSpawner

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R", covariant=True)
X = TypeVar("X", covariant=True)
V = TypeVar("V", covariant=True, default=Never)


class JobFunction(JobSpawner[P, R], Generic[P, R, Q, X]):
    """A function that is a job type besides. Calling it calls the function: no job is made, no option is read.

    `Q` and `X` are what the function takes and returns; `P` is `Q` less a leading `CurrentJob`, and `R` what is left
    of the result without `Reschedule` and `Fail`.
    """

    __name__: str
    __qualname__: str
    fn: Callable[Q, X]
    """The function itself."""

    def __init__(self, service: Service, job: RegisteredJob, fn: Callable[..., object]) -> None:
        # First what the function carries, a pytest mark for instance; but nothing that would hide a method of ours.
        functools.update_wrapper(cast("Callable[Q, X]", self), fn, updated=())
        self.__dict__.update({name: value for name, value in vars(fn).items() if not hasattr(type(self), name)})
        super().__init__(service, job, job.placement)
        self.fn = cast("Callable[Q, X]", fn)
        if job.is_async:
            _mark_as_coroutine_function(self)

    def __call__(self, /, *args: Q.args, **kwargs: Q.kwargs) -> X:
        """Call the function itself."""
        return self.fn(*args, **kwargs)

    def __reduce__(self) -> str:
        """Pickle by name, like a function: what is read back is the very object."""
        return self.__qualname__


def _mark_as_coroutine_function(function: object) -> None:
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(cast("Callable[..., object]", function))
    else:  # there is no public way before 3.12; inspect.iscoroutinefunction stays False there
        vars(function)["_is_coroutine"] = vars(asyncio.coroutines)["_is_coroutine"]


AnyJobFunction: TypeAlias = JobFunction[..., object, ..., object]


def register(
    service: Service,
    fn: object,
    job_type: str,
    settings: JobSettings,
    localns: Mapping[str, object] | None,
    *,
    resident: bool = False,
) -> AnyJobFunction:
    """Make a function a job type of `service`.

    Args:
        service: what the job function spawns through.
        fn: the function.
        job_type: its name; empty for the function's own.
        settings: as the decorator got them.
        localns: the names of the scope in which the function was defined, for its annotations.
        resident: whether there is one job of the type, which reschedules itself for ever.

    Raises:
        RegistrationError: the function cannot be a job, a setting is wrong, or the job type is taken.
    """
    checked, name = named_function(fn, job_type)
    function = qualified_name(checked)
    where = f"@jobs.{'resident' if resident else 'job'} on {function}"
    job = FunctionJob(checked, name, check_settings(settings, where, resident=resident), localns)
    service.registry.add(job)
    return JobFunction(service, job, checked)


def named_function(fn: object, job_type: str) -> tuple[Callable[..., object], str]:
    """Return a function that can be a job, and the name of its job type: `job_type`, or if that is empty its own.

    Raises:
        RegistrationError: it is no such function, or is a job already, or the name cannot be one.
    """
    if isinstance(fn, JobFunction):
        raise RegistrationError(f"{fn!r} is a job already: a function is decorated once, aliases= gives further names")
    checked = check_function(fn)
    function, name = qualified_name(checked), job_type or checked.__name__
    if name == "<lambda>":
        raise RegistrationError(f"{function}: a job needs a name: write a def, or @jobs.job('name')")
    try:
        checked_name(name, f"{function}: the job type")
    except InvalidOptions as error:
        raise RegistrationError(str(error)) from None
    return checked, name


# Two views of one function, solved together: what a call returns (X), and the result (V) less the completion values.


class Async(Protocol[P, X, V]):
    """An `async def` function without a current job."""

    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, Never, X]: ...
    @overload
    def __call__(  # type: ignore[overload-cannot-match]
        self, /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[object, Never, V | Reschedule | Fail]: ...


class AsyncWithJob(Protocol[P, X, V]):
    """An `async def` function whose first parameter is the current job."""

    @overload
    def __call__(self, job: CurrentJob, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, Never, X]: ...
    @overload
    def __call__(  # type: ignore[overload-cannot-match]
        self, job: CurrentJob, /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[object, Never, V | Reschedule | Fail]: ...


class Plain(Protocol[P, X, V]):
    """A `def` function without a current job."""

    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> X: ...
    @overload
    def __call__(  # type: ignore[overload-cannot-match]
        self, /, *args: P.args, **kwargs: P.kwargs
    ) -> V | Reschedule | Fail: ...


class PlainWithJob(Protocol[P, X, V]):
    """A `def` function whose first parameter is the current job."""

    @overload
    def __call__(self, job: CurrentJob, /, *args: P.args, **kwargs: P.kwargs) -> X: ...
    @overload
    def __call__(  # type: ignore[overload-cannot-match]
        self, job: CurrentJob, /, *args: P.args, **kwargs: P.kwargs
    ) -> V | Reschedule | Fail: ...


class JobDecorator(Protocol):
    """What `@jobs.job(…)` with settings applies to the function. The order of the overloads matters."""

    @overload
    def __call__(
        self, fn: AsyncWithJob[P, X, V], /
    ) -> JobFunction[P, V, Concatenate[CurrentJob, P], Coroutine[object, Never, X]]: ...
    @overload
    def __call__(self, fn: Async[P, X, V], /) -> JobFunction[P, V, P, Coroutine[object, Never, X]]: ...
    @overload
    def __call__(self, fn: PlainWithJob[P, X, V], /) -> JobFunction[P, V, Concatenate[CurrentJob, P], X]: ...
    @overload
    def __call__(self, fn: Plain[P, X, V], /) -> JobFunction[P, V, P, X]: ...


class ResidentDecorator(Protocol):
    """What `@jobs.resident(…)` with settings applies to the function, which may return nothing but `Reschedule`."""

    @overload
    def __call__(
        self, fn: Callable[Concatenate[CurrentJob, P], Coroutine[object, Never, Reschedule]], /
    ) -> JobFunction[P, Never, Concatenate[CurrentJob, P], Coroutine[object, Never, Reschedule]]: ...
    @overload
    def __call__(
        self, fn: Callable[P, Coroutine[object, Never, Reschedule]], /
    ) -> JobFunction[P, Never, P, Coroutine[object, Never, Reschedule]]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[CurrentJob, P], Reschedule], /
    ) -> JobFunction[P, Never, Concatenate[CurrentJob, P], Reschedule]: ...
    @overload
    def __call__(self, fn: Callable[P, Reschedule], /) -> JobFunction[P, Never, P, Reschedule]: ...
