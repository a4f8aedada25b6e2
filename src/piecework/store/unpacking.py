"""Reading the rows of a claim, whatever JSON values they bring along: one that is nested too deeply for the decoder
must not spoil the claim of the others."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

R = TypeVar("R", bound=msgspec.Struct)

_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{},]')
_OPENING, _CLOSING = ("[", "{"), ("]", "}")


def elements(array: str) -> list[str]:
    """Return the texts of the elements of a JSON array. It recurses into nothing, so it reads any depth."""
    found: list[str] = []
    depth = begin = 0
    for token in _TOKEN.finditer(array):
        what = token.group()
        if what in _OPENING:
            depth += 1
            if depth == 1:
                begin = token.end()
        elif what in _CLOSING:
            depth -= 1
            if depth == 0 and array[begin : token.start()].strip():
                found.append(array[begin : token.start()])
        elif what == "," and depth == 1:
            found.append(array[begin : token.start()])
            begin = token.end()
    return found


def rows(array: str, kind: type[R]) -> list[R]:
    """Return the rows of a JSON array of arrays, each as a Struct; what is `msgspec.Raw` in it is not looked into."""
    fields = msgspec.structs.fields(kind)
    raw = [(place, field.name) for place, field in enumerate(fields) if field.type is msgspec.Raw]
    read = msgspec.json.Decoder(kind).decode
    found: list[R] = []
    for text in elements(array):
        values = elements(text)
        kept = {name: msgspec.Raw(values[place].strip().encode()) for place, name in raw if place < len(values)}
        for place, _ in raw:
            if place < len(values):
                values[place] = "null"
        found.append(msgspec.structs.replace(read("[" + ",".join(values) + "]"), **kept))
    return found
