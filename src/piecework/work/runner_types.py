"""Which types a runner class was written for: `class SyncAccount(JobRunner[Sync])` has the config `Sync`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType, SimpleNamespace
from typing import ForwardRef, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from piecework.base.errors import RegistrationError
from piecework.base.serialization import decoder, is_pydantic_model, qualified_name
from piecework.work.function_shape import check_readable, stored_result

info = msgspec.inspect


@dataclass(frozen=True, slots=True)
class RunnerTypes:
    """The config and the result of a runner class, in executable form."""

    text: str
    """The config's type, for messages."""
    config: msgspec.json.Decoder[object]
    fields: frozenset[str]
    known: msgspec.json.Decoder[object] | None
    """Refuses a stored config with fields other than these; None where the type itself says what it takes."""
    result: msgspec.json.Decoder[object]


def read_types(kind: object, form: type, *, strict: bool) -> RunnerTypes:
    """Read the types of a runner class.

    Args:
        kind: the class, or it with its own type arguments.
        form: the class of piecework's that it derives from, whose arguments are the config and the result.
        strict: whether fields that the config does not have are to be seen, whatever its type.

    Raises:
        RegistrationError: they are not given, or have no JSON form.
        NameError: one names something that does not exist (yet).
    """
    cls = cast("type", get_origin(kind) or kind)
    name = qualified_name(cls)
    given = _arguments(kind, form) or ()
    config = _resolved(given[0], cls) if given else None
    if not given or isinstance(config, TypeVar):
        raise RegistrationError(f"{name}: which config do its jobs have? Write class {cls.__name__}({form.__name__}"
                                "[Config]), with a dataclass, a TypedDict, a Struct, a pydantic model or a plain type")
    result: object = _resolved(given[1], cls) if len(given) > 1 else NoneType
    return make_types(config, result, name, strict=strict)


def make_types(config: object, result: object, name: str, *, strict: bool) -> RunnerTypes:
    """Return two types in executable form.

    Args:
        config: that of the config.
        result: that of the result, with or without `Reschedule` and `Fail`; a type variable for any.
        name: names what was written for them, for messages.
        strict: whether fields that the config does not have are to be seen, whatever its type.

    Raises:
        RegistrationError: they have no JSON form.
        NameError: one names something that does not exist (yet).
    """
    check_readable(config, f"{name}: the config")
    if strict and is_pydantic_model(config):
        raise RegistrationError(f"{name}: strict=True cannot look into the pydantic model {qualified_name(config)}: "
                                "write model_config = ConfigDict(extra='forbid') there")
    fields = _stored_names(config)
    return RunnerTypes(
        text=qualified_name(config) if get_origin(config) is None else str(config),
        config=decoder(config),
        fields=fields,
        known=_refusing_others(fields) if fields else None,
        result=decoder(object if isinstance(result, TypeVar) else stored_result(result, f"{name}: the result")),
    )


def _arguments(kind: object, form: type) -> tuple[object, ...] | None:
    """Return what `form` was given as type arguments in the bases of `kind`, also through generic classes between."""
    cls = get_origin(kind) or kind
    if cls is form:
        return get_args(kind)
    given = dict(zip(cast("tuple[object, ...]", getattr(cls, "__parameters__", ())), get_args(kind), strict=False))
    for base in vars(cls).get("__orig_bases__", cast("type", cls).__bases__):
        inner = get_origin(base) or base
        if isinstance(inner, type) and issubclass(inner, form):
            return _arguments(_substituted(base, given), form)
    return None


def _substituted(base: object, given: Mapping[object, object]) -> object:
    open_parameters: tuple[object, ...] = () if isinstance(base, type) else getattr(base, "__parameters__", ())
    if not open_parameters:
        return base
    chosen = tuple(given.get(parameter, parameter) for parameter in open_parameters)
    return cast("dict[object, object]", base)[chosen]  # a generic alias, which has no type of its own


def _resolved(hint: object, cls: type) -> object:
    if hint is not None and not isinstance(hint, ForwardRef):
        return hint
    holder = SimpleNamespace(__annotations__={"it": hint})
    return cast("object", get_type_hints(holder, vars(sys.modules[cls.__module__]), include_extras=True)["it"])


def _stored_names(config: object) -> frozenset[str]:
    """Return the fields that the JSON of a config may have; none where its type is no record, or refuses others."""
    kind = info.type_info(config)
    if isinstance(kind, info.StructType):
        if kind.array_like or kind.forbid_unknown_fields:
            return frozenset()
        tag = {kind.tag_field} if kind.tag_field is not None else set[str]()
        return frozenset({field.encode_name for field in kind.fields} | tag)
    if isinstance(kind, info.DataclassType | info.TypedDictType):
        return frozenset(field.encode_name for field in kind.fields)
    return frozenset()


def _refusing_others(fields: frozenset[str]) -> msgspec.json.Decoder[object]:
    renamed = {f"field_{number}": name for number, name in enumerate(sorted(fields))}
    members = [(name, msgspec.Raw, msgspec.UNSET) for name in renamed]
    return decoder(msgspec.defstruct("Known", members, rename=renamed, forbid_unknown_fields=True))
