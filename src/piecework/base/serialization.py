"""Configs and results as JSON: whatever msgspec reads and writes, and pydantic models besides."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from typing import Protocol, cast

import msgspec
from msgspec import inspect


class _PydanticModel(Protocol):
    """The two methods of a `pydantic.BaseModel` that are used here, so that pydantic need not be installed."""

    def model_dump(self, *, mode: str, by_alias: bool, round_trip: bool, warnings: bool) -> object: ...
    @classmethod
    def model_validate(cls, obj: object) -> object: ...


def _pydantic_base() -> type | None:
    """Return pydantic's `BaseModel` if this process has imported pydantic: else no value or type can be a model."""
    return cast("type | None", getattr(sys.modules.get("pydantic"), "BaseModel", None))


def _encode_other(value: object) -> object:
    base = _pydantic_base()
    if base is not None and isinstance(value, base):
        # round_trip leaves computed fields out: a model that forbids extra fields must read what it wrote. No warnings:
        # what is written for a spawn is read back at once.
        return cast(_PydanticModel, value).model_dump(mode="json", by_alias=True, round_trip=True, warnings=False)
    raise TypeError(f"a value of type {qualified_name(type(value))} cannot be written as JSON")


def _decode_other(wanted: type, value: object) -> object:
    if wanted is object:
        return value
    if is_pydantic_model(wanted):
        return cast(_PydanticModel, wanted).model_validate(value)
    raise TypeError(f"a value of type {qualified_name(wanted)} cannot be read from JSON")


_NUL = re.compile(rb"(?<!\\)(\\\\)*\\u0000")
"""An escaped NUL: an odd number of backslashes before `u0000`."""
_encoder = msgspec.json.Encoder(enc_hook=_encode_other)


def encode(value: object) -> bytes:
    """Return `value` as JSON text.

    Raises:
        TypeError: a part of it is of a type that has no JSON form.
        ValueError: it refers to itself, a float in it is not finite, or a text in it is not valid Unicode or has a NUL,
            which PostgreSQL refuses.
    """
    try:
        text = _encoder.encode(value)
        lacks_a_number = b"null" in text and _has_no_number(value)
    except RecursionError as error:
        raise ValueError("it refers to itself or is nested too deeply to be written as JSON") from error
    except OverflowError as error:
        raise ValueError(f"an int in it is too large for JSON: {error}. Pass it as a text") from error
    if b"\\u0000" in text and _NUL.search(text):
        raise ValueError("a text in it has a NUL character, which PostgreSQL does not store: take it out or pass bytes")
    if lacks_a_number:
        raise ValueError("a float in it is nan or infinite, which JSON has no word for: write None, or a text")
    return text


def _plain_other(value: object) -> object:
    return None if isinstance(value, msgspec.Raw) else _encode_other(value)


def _has_no_number(value: object) -> bool:
    """Whether a float in it is not finite: JSON makes a null of that, without a word."""
    left: list[object] = [msgspec.to_builtins(value, enc_hook=_plain_other)]
    while left:
        each = left.pop()
        if isinstance(each, float):
            if not math.isfinite(each):
                return True
        elif isinstance(each, dict):
            left.extend(cast("dict[object, object]", each).values())
        elif isinstance(each, list | tuple | set | frozenset):
            left.extend(cast("list[object]", each))
    return False


def decoder(wanted: object) -> msgspec.json.Decoder[object]:
    """Return a strict JSON decoder for a type as it is written in an annotation.

    Raises:
        TypeError: msgspec cannot tell values of this type apart, for example in a union of two lists.
        NameError: an annotation inside it names something that does not exist (yet).
    """
    return msgspec.json.Decoder(cast("type[object]", wanted), dec_hook=_decode_other)


def is_pydantic_model(wanted: object) -> bool:
    """Whether this is a class derived from pydantic's `BaseModel`."""
    base = _pydantic_base()
    return base is not None and isinstance(wanted, type) and issubclass(wanted, base)


def unreadable_types(wanted: object) -> list[str]:
    """Return the names of the types inside `wanted` that no decoder can read from JSON; empty if all is well.

    Raises:
        TypeError, NameError: as `decoder` does.
    """
    found = _custom_types(inspect.type_info(wanted), set())
    return [qualified_name(custom) for custom in found if custom is not object and not is_pydantic_model(custom)]


def _custom_types(info: object, seen: set[int]) -> Iterator[object]:
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, inspect.CustomType):
        yield info.cls
    elif isinstance(info, tuple):
        for part in cast("tuple[object, ...]", info):
            yield from _custom_types(part, seen)
    elif isinstance(info, inspect.Type | inspect.Field):
        for name in info.__struct_fields__:
            yield from _custom_types(getattr(info, name), seen)


def qualified_name(thing: object) -> str:
    """Return how to name a type or a function in a message: with its module, unless that is `builtins`."""
    module = str(getattr(thing, "__module__", "builtins"))
    name = getattr(thing, "__qualname__", None)
    if name is None:
        return str(thing)
    return str(name) if module == "builtins" else f"{module}.{name}"
