"""Keys computed from a job's arguments: `"account:{account_id}"`, checked where the job is defined."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import Enum
from functools import partial
from string import Formatter
from typing import Protocol, TypeAlias, cast
from uuid import UUID

import msgspec
from msgspec import UNSET

from piecework.base.errors import InvalidOptions, RegistrationError
from piecework.base.serialization import is_pydantic_model, qualified_name
from piecework.work.function_shape import FunctionShape

info = msgspec.inspect

MakeKey: TypeAlias = Callable[[object], str | None]
"""From a decoded config to its key; None for no key."""
_Get: TypeAlias = Callable[[object], object]

_RECORDS = info.StructType | info.DataclassType | info.TypedDictType | info.NamedTupleType
_TEXTS = (
    info.StrType | info.IntType | info.BoolType | info.UUIDType | info.DateType | info.EnumType | info.LiteralType
    | info.NoneType
)  # fmt: skip
_TAKES = "str, int, bool, UUID, date or an Enum of them"


@dataclass(frozen=True, slots=True)
class Template:
    """A template whose form is right; whether its names exist is seen when it is compiled."""

    text: str
    pieces: tuple[str | tuple[str, ...], ...]
    """Texts as they are, and paths: a parameter's name, and the fields below it."""


def parse_template(value: object, where: str) -> Template:
    """Parse `"account:{account_id}"`, `"{order.id}"`; `{{` and `}}` are braces.

    Raises:
        InvalidOptions: it is no text, or holds more than names and their fields.
    """
    if not isinstance(value, str):
        raise InvalidOptions(f"{where} takes a template text such as 'account:{{account_id}}', not {value!r}")
    if not value:
        raise InvalidOptions(f"{where} is empty: name a parameter, as in 'account:{{account_id}}'")
    pieces: list[str | tuple[str, ...]] = []
    try:
        for literal, field, format_spec, conversion in Formatter().parse(value):
            if literal:
                pieces.append(literal)
            if field is not None:
                pieces.append(_checked_path(field, format_spec, conversion, f"{where} {value!r}"))
    except InvalidOptions:
        raise
    except ValueError as error:
        raise InvalidOptions(f"{where} {value!r} is no template: {error}") from None
    return Template(value, tuple(pieces))


def _checked_path(field: str, format_spec: str | None, conversion: str | None, where: str) -> tuple[str, ...]:
    path = tuple(field.split("."))
    if format_spec or conversion or not all(name.isidentifier() for name in path):
        raise InvalidOptions(f"{where}: in braces stands a parameter's name, or a field of it as in {{order.id}}: no "
                             "index, no conversion, no format")
    if any(name.startswith("_") for name in path):
        raise InvalidOptions(f"{where}: {field!r} has a name that begins with an underscore, which is not handed out")
    return path


def compile_template(template: Template, shape: FunctionShape, where: str) -> MakeKey:
    """Return what makes the key of a decoded config, with the function's own defaults applied.

    Args:
        template: as it was parsed.
        shape: the function's parameters.
        where: names the function and the setting in messages.

    Raises:
        RegistrationError: it names a parameter or a field that does not exist, or one whose values make no key.
    """
    parameters = {each.name: each for each in shape.parameters}
    pieces: list[str | _Get] = []
    for piece in template.pieces:
        if isinstance(piece, str):
            pieces.append(piece)
            continue
        what = f"{where} {template.text!r}: {{{'.'.join(piece)}}}"
        name, *fields = piece
        if name not in parameters:
            known = ", ".join(parameters) or "none"
            raise RegistrationError(f"{what}: there is no parameter {name}; the function has {known}")
        get = _get_argument(parameters[name])
        pieces.append(_walk(get, info.type_info(shape.hints[name]), fields, what))
        _check_default(parameters[name], cast("_Get", pieces[-1]), what)
    return partial(_make_key, tuple(pieces))


def compile_for_config(template: Template, config: object, where: str) -> MakeKey:
    """Return what makes the key of a config that is one value: what stands in braces is a field of its type `config`.

    Raises:
        RegistrationError: it names a field that does not exist, or one whose values make no key.
    """
    kind = info.type_info(config)
    pieces = [
        piece
        if isinstance(piece, str)
        else _walk(_itself, kind, list(piece), f"{where} {template.text!r}: {{{'.'.join(piece)}}}")
        for piece in template.pieces
    ]
    return partial(_make_key, tuple(pieces))


def _itself(config: object) -> object:
    return config


def _make_key(pieces: tuple[str | _Get, ...], config: object) -> str | None:
    texts: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            texts.append(piece)
            continue
        value = piece(config)
        if value is None:
            return None
        texts.append(value if type(value) is str else _text(value))
    return "".join(texts)


def _text(value: object) -> str:
    if isinstance(value, Enum):
        return _text(value.value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str | UUID):
        return str(value)
    raise TypeError(f"{value!r} makes no key: it takes {_TAKES}")


def _get_argument(parameter: inspect.Parameter) -> _Get:
    name, default = parameter.name, cast("object", parameter.default)

    def get(config: object) -> object:
        value: object = getattr(config, name)
        return default if value is UNSET else value

    return get


def _get_attribute(outer: _Get, name: str) -> _Get:
    def get(config: object) -> object:
        value = outer(config)
        return None if value is None else cast("object", getattr(value, name))

    return get


def _get_item(outer: _Get, name: str) -> _Get:
    def get(config: object) -> object:
        value = cast("Mapping[str, object] | None", outer(config))
        return None if value is None else value.get(name)

    return get


def _walk(get: _Get, kind: info.Type, fields: list[str], what: str) -> _Get:
    """Follow the fields below a parameter, by its type; the end of the path has a type that makes a key."""
    for field in fields:
        kind = _less_none(kind)
        known = _fields(kind)
        if field not in known:
            has = f"its fields are {', '.join(known)}" if known else "it has no fields that are known before it runs"
            raise RegistrationError(f"{what}: {_named(kind)} has no field {field}; {has}")
        get = (_get_item if isinstance(kind, info.TypedDictType) else _get_attribute)(get, field)
        kind = known[field]
    if not _makes_text(kind):
        raise RegistrationError(f"{what} is of type {_named(kind)}: a key is made from {_TAKES}")
    return get


def _less_none(kind: info.Type) -> info.Type:
    if isinstance(kind, info.Metadata):
        return _less_none(kind.type)
    if isinstance(kind, info.UnionType):
        others = [each for each in kind.types if not isinstance(each, info.NoneType)]
        if len(others) == 1:
            return _less_none(others[0])
    return kind


class _PydanticModel(Protocol):
    """What is read of a pydantic model's class."""

    model_fields: Mapping[str, _PydanticField]


class _PydanticField(Protocol):
    annotation: object


def _fields(kind: info.Type) -> dict[str, info.Type]:
    if isinstance(kind, _RECORDS):
        return {field.name: field.type for field in kind.fields}
    if isinstance(kind, info.CustomType) and is_pydantic_model(kind.cls):
        model = cast("_PydanticModel", kind.cls)
        return {name: info.type_info(field.annotation) for name, field in model.model_fields.items()}
    return {}


def _makes_text(kind: info.Type) -> bool:
    if isinstance(kind, info.Metadata):
        return _makes_text(kind.type)
    if isinstance(kind, info.UnionType):
        return all(map(_makes_text, kind.types))
    return isinstance(kind, _TEXTS)


def _named(kind: info.Type) -> str:
    cls = getattr(kind, "cls", None)
    if isinstance(cls, type):
        return qualified_name(cls)
    return type(kind).__name__.removesuffix("Type").lower()


def _check_default(parameter: inspect.Parameter, get: _Get, what: str) -> None:
    """A default is not checked against its annotation: see that it makes a key, or none."""
    if parameter.default is inspect.Parameter.empty:
        return
    try:
        value = get(msgspec.defstruct("Defaults", [(parameter.name, object, UNSET)])())
        if value is not None:
            _text(value)
    except Exception as error:
        raise RegistrationError(f"{what}: with the default of {parameter.name} there is no key: {error}") from None
