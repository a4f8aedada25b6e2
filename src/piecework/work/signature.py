"""A job function's parameters as a msgspec Struct: how its config is built, stored, read again and handed over."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Protocol, cast

import msgspec
from msgspec import UNSET

from piecework.base.errors import RegistrationError
from piecework.base.serialization import decoder, qualified_name
from piecework.work.current_job import CurrentJob
from piecework.work.function_shape import FunctionShape

_EMPTY = inspect.Parameter.empty
_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
_POSITIONAL_ONLY = inspect.Parameter.POSITIONAL_ONLY


class Bind(Protocol):
    """Takes the arguments that the job function takes, less the current job, and returns its config."""

    def __call__(self, *args: object, **kwargs: object) -> msgspec.Struct:
        """Raise `TypeError` if the arguments are not those of the job function."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a job function takes and gives, in executable form. Made once per job type."""

    names: tuple[str, ...]
    text: str
    """The parameters as they are written in the function, for messages."""
    bind: Bind
    call: Callable[[CurrentJob, object], Callable[[], object]]
    """From the current job and a decoded config to a call of the function without arguments."""
    strict: msgspec.json.Decoder[object]
    """Reads a config, and refuses one that has fields which the function does not know."""
    lenient: msgspec.json.Decoder[object]
    """Reads a config, and skips such fields."""
    result: msgspec.json.Decoder[object]


def make_signature(fn: Callable[..., object], shape: FunctionShape, run: Callable[..., object]) -> Signature:
    """Build the executable form of a shape: the names and parameters are those of `fn`, what is called is `run`.

    A parameter with a default is an optional field: what the caller does not pass is not stored, and the function's
    own default applies when it runs. So `None` and mutable defaults are safe, and a new default reaches queued jobs.

    Raises:
        RegistrationError: msgspec cannot build or read such a record.
    """
    required = [each for each in shape.parameters if each.default is _EMPTY]
    optional = [each for each in shape.parameters if each.default is not _EMPTY]
    fields: list[tuple[str, object] | tuple[str, object, object]] = [
        *((each.name, shape.hints[each.name]) for each in required),
        *((each.name, shape.hints[each.name], UNSET) for each in optional),
    ]
    record = partial(msgspec.defstruct, fn.__name__, cast("list[str]", fields), module=fn.__module__)
    try:
        strict, lenient = record(forbid_unknown_fields=True), record(forbid_unknown_fields=False)
        return Signature(
            names=tuple(each.name for each in shape.parameters),
            text=str(inspect.Signature([each.replace(annotation=shape.hints[each.name]) for each in shape.parameters])),
            bind=_make_bind(fn, shape, strict, [each.name for each in (*required, *optional)]),
            call=_make_call(run, shape),
            strict=decoder(strict),
            lenient=decoder(lenient),
            result=decoder(shape.result),
        )
    except TypeError as error:
        raise RegistrationError(f"{qualified_name(fn)}: {error}") from error


def _make_bind(
    fn: Callable[..., object], shape: FunctionShape, record: type[msgspec.Struct], order: list[str]
) -> Bind:
    """Generate the function that binds arguments: a tenth of the time of `inspect.Signature.bind`.

    Only parameter names, which are identifiers, go into the source; and it is named like the job function, so that
    Python's own message about a wrong argument names it.
    """
    make, unset = _unused_names(shape, "make", "unset")
    parameters: list[str] = []
    previous: inspect.Parameter | None = None
    for each in shape.parameters:
        if previous is not None and previous.kind is _POSITIONAL_ONLY and each.kind is not _POSITIONAL_ONLY:
            parameters.append("/")
        if each.kind is _KEYWORD_ONLY and (previous is None or previous.kind is not _KEYWORD_ONLY):
            parameters.append("*")
        parameters.append(each.name if each.default is _EMPTY else f"{each.name}={unset}")
        previous = each
    if previous is not None and previous.kind is _POSITIONAL_ONLY:
        parameters.append("/")
    source = f"lambda {', '.join(parameters)}: {make}({', '.join(order)})"
    bind = _evaluated(source, {make: record, unset: UNSET})
    bind.__name__ = bind.__qualname__ = fn.__name__
    return bind


def _make_call(fn: Callable[..., object], shape: FunctionShape) -> Callable[[CurrentJob, object], Callable[[], object]]:
    """Generate the function that hands a config over; a field that is not stored becomes the parameter's default."""
    namespace: dict[str, object] = {"bound": partial, "fn": fn, "unset": UNSET}
    arguments: list[str] = ["job"] if shape.takes_job else []
    for index, each in enumerate(shape.parameters):
        value = f"config.{each.name}"
        if each.default is not _EMPTY:
            namespace[f"default_{index}"] = each.default
            value = f"default_{index} if {value} is unset else {value}"
        arguments.append(f"{each.name}={value}" if each.kind is _KEYWORD_ONLY else value)
    return _evaluated(f"lambda job, config: bound({', '.join(['fn', *arguments])})", namespace)


def _unused_names(shape: FunctionShape, *wanted: str) -> list[str]:
    taken = {each.name for each in shape.parameters}
    names: list[str] = []
    for each in wanted:
        name = each
        while name in taken:
            name += "_"
        names.append(name)
    return names


def _evaluated(source: str, namespace: dict[str, object]) -> FunctionType:
    return cast("FunctionType", eval(source, namespace))
