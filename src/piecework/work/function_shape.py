"""Which functions can be jobs: what is refused before any annotation is looked at, and what the annotations mean."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import FunctionType, SimpleNamespace, UnionType
from typing import Annotated, Any, Never, NoReturn, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from piecework.base.errors import RegistrationError
from piecework.base.serialization import qualified_name, unreadable_types
from piecework.model.completion import Fail, Reschedule
from piecework.work.current_job import CurrentJob

_INSTEAD = "piecework stores what msgspec reads from JSON, and pydantic models"


class Unresolved(Exception):
    """An annotation names something that does not exist (yet): a forward reference, until the module is loaded."""

    def __init__(self, parameter: str, name: str) -> None:
        super().__init__(parameter, name)
        self.parameter = parameter
        self.name = name


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionShape:
    """A function that can be a job, its annotations resolved."""

    takes_job: bool
    """Whether its first parameter is the `CurrentJob`."""
    parameters: tuple[inspect.Parameter, ...]
    """Its further parameters, those that are the job's config."""
    hints: Mapping[str, object]
    """The resolved annotation of each of them."""
    result: object
    """The type of the stored result: the return annotation less `Reschedule` and `Fail`; `object` if none is left."""


def check_function(fn: object) -> Callable[..., object]:
    """Return `fn` if it is a function of a kind that can be a job.

    Raises:
        RegistrationError: it is not; the message says what to write instead.
    """
    if isinstance(fn, staticmethod | classmethod):
        raise RegistrationError(f"{fn!r}: write @staticmethod above @jobs.job, and no class method")
    if not isinstance(fn, FunctionType):
        raise RegistrationError(f"@jobs.job takes a function written with def or async def, not {fn!r}")
    name = qualified_name(fn)
    inner = inspect.unwrap(fn)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise RegistrationError(f"{name} is a generator: a job function returns its result once, it does not yield")
    if inspect.iscoroutinefunction(inner) and not inspect.iscoroutinefunction(fn):
        raise RegistrationError(f"{name} is an async function wrapped in a plain one, which would return an awaitable: "
                                "write the decorator's wrapper with async def")
    return fn


def place_of(fn: Callable[..., object]) -> str:
    """Return where a function is written, for messages: its qualified name, file and line."""
    code = cast("FunctionType", inspect.unwrap(fn)).__code__
    return f"{qualified_name(fn)} ({code.co_filename}:{code.co_firstlineno})"


def read_shape(fn: Callable[..., object], localns: Mapping[str, object] | None) -> FunctionShape:
    """Read the parameters of `fn`, with `localns` holding the names of the scope it was defined in.

    Raises:
        RegistrationError: a parameter or the result cannot be that of a job; the message names function and parameter.
        Unresolved: an annotation names what does not exist (yet).
    """
    function = qualified_name(fn)
    try:
        signature = inspect.signature(fn)
    except NameError as error:  # Python 3.14 evaluates annotations here
        raise Unresolved("(one of them)", error.name or str(error)) from None
    parameters = tuple(signature.parameters.values())
    for parameter in parameters:
        _check_kind(parameter, function)
    resolve = functools.partial(_resolve, fn=fn, localns=localns)
    hints = {parameter.name: resolve(parameter.name, parameter.annotation) for parameter in parameters}
    takes_job = bool(parameters) and _is_current_job(parameters[0], hints[parameters[0].name])
    for index, parameter in enumerate(parameters[int(takes_job) :]):
        _check_hint(parameter, hints[parameter.name], function, first=index == 0 and not takes_job)
    returns = resolve("return", signature.return_annotation)
    return FunctionShape(
        takes_job=takes_job,
        parameters=parameters[int(takes_job) :],
        hints=hints,
        result=_result_type(signature.return_annotation, returns, function),
    )


def _check_kind(parameter: inspect.Parameter, function: str) -> None:
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL or parameter.kind is inspect.Parameter.VAR_KEYWORD:
        raise RegistrationError(f"{function}: {parameter} has no fixed names to store: give the job named parameters, "
                                "one of them a list or a dict if need be")
    if parameter.annotation is inspect.Parameter.empty:
        if parameter.name in ("self", "cls"):
            raise RegistrationError(f"{function} has a parameter {parameter.name} without a type: a method cannot be a "
                                    "job. Write a function, or @staticmethod above @jobs.job")
        raise RegistrationError(f"{function}: the parameter {parameter.name} has no type: annotate it, as in "
                                f"{parameter.name}: str")


def _resolve(
    parameter: str, annotation: object, *, fn: Callable[..., object], localns: Mapping[str, object] | None
) -> object:
    holder = SimpleNamespace(__annotations__={"it": annotation})
    namespace = cast("FunctionType", inspect.unwrap(fn)).__globals__
    try:
        hint: object = get_type_hints(holder, namespace, dict(localns or {}), include_extras=True)["it"]
        with contextlib.suppress(TypeError):  # what msgspec refuses is reported once it is clear what the type is for
            unreadable_types(hint)  # looks into dataclasses too, which may name what is defined further down
    except NameError as error:
        raise Unresolved(parameter, error.name or str(error)) from None
    except Exception as error:
        raise RegistrationError(f"{qualified_name(fn)}: the annotation {annotation!r} of {parameter} cannot be "
                                f"evaluated: {error}") from error
    return hint


def _is_current_job(parameter: inspect.Parameter, hint: object) -> bool:
    return hint is CurrentJob and parameter.kind is not inspect.Parameter.KEYWORD_ONLY


def _mentions_current_job(hint: object) -> bool:
    return hint is CurrentJob or get_origin(hint) is CurrentJob or any(map(_mentions_current_job, get_args(hint)))


def _check_hint(parameter: inspect.Parameter, hint: object, function: str, *, first: bool) -> None:
    what = f"{function}: the parameter {parameter.name}"
    if _mentions_current_job(hint):
        raise RegistrationError(f"{what}: the current job is the first parameter, by position, and its type is the "
                                "bare CurrentJob, as in job: CurrentJob")
    bare, *metadata = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if first and (bare is object or bare is Any or isinstance(bare, TypeVar)):
        raise RegistrationError(f"{what} is typed {bare}, which type checkers take for the current job because it is "
                                "the first: give it a narrower type, or put another parameter before it")
    for item in (*metadata, parameter.default):
        owner = type(item).__module__.partition(".")[0]
        if owner == "annotated_types" or (owner == "pydantic" and type(item).__name__ == "FieldInfo"):
            raise RegistrationError(f"{what}: {item!r} would not be enforced here: write "
                                    "Annotated[…, msgspec.Meta(…)], or take a pydantic model")
    check_readable(hint, what)


def _result_type(annotation: object, hint: object, function: str) -> object:
    origin = get_origin(hint) or hint
    if isinstance(origin, type) and issubclass(origin, Awaitable):
        raise RegistrationError(f"{function} returns an awaitable: write it with async def, and await it inside")
    if annotation is inspect.Signature.empty:
        return object
    return stored_result(hint, f"{function}: what it returns")


def stored_result(hint: object, what: str) -> object:
    """Return a declared result less `Reschedule` and `Fail`; `object` if none is left.

    Raises:
        RegistrationError: it has no JSON form.
    """
    members = get_args(hint) if isinstance(hint, UnionType) or get_origin(hint) is Union else (hint,)
    stored = [member for member in members if member not in (Reschedule, Fail, Never, NoReturn)]
    if not stored:
        return object
    result: object = Union[tuple(stored)]  # noqa: UP007
    check_readable(result, what)
    return result


def check_readable(hint: object, what: str) -> None:
    """Raise `RegistrationError` if values of this type cannot be read from JSON; `what` names it in the message."""
    try:
        unreadable = unreadable_types(hint)
    except TypeError as error:
        raise RegistrationError(f"{what}: {error}") from None
    if unreadable:
        raise RegistrationError(f"{what} is or holds {', '.join(unreadable)}, which has no JSON form: {_INSTEAD}")
