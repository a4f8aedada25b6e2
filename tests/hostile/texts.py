"""Texts that somebody might send, and values made of them."""

from __future__ import annotations

import math
import unicodedata

from hypothesis import strategies as st

NASTY = (
    "'", '"', "\\", "\\'", "'; DROP TABLE jobs; --", "$$", "$text$", "$1", ":name", "?", "%", "%s", "%(a)s", "{}",
    "{0!r}", "/*", "*/", "--", "\n", "\r\n", "\t", " ", "\u00a0", "\x1b[31m", "\x1b]0;title\x07", "\x9b2J", "\x08",
    "\x7f", "\x85", "\u202e", "\u2066", "\u200f", "\u061c", "\u2028", "\ufeff", "e\u0301\u0327", "שלום", "مرحبا",
    "\u202egnp.exe", "😀", "👩\u200d👩\u200d👧", "𝔘", "\U0010ffff", "\uffff", "null", "NULL", "\\u0000", "\\x00",
    "<b>&amp;", "../..", "☃" * 40,
)  # fmt: skip
"""Pieces that PostgreSQL stores as they are."""

STRAY = ("\0", "\ud800", "\udfff", "\ud83d")
"""Pieces that it does not."""

_CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


def texts(most: int = 12) -> st.SearchStrategy[str]:
    """Texts that can be stored."""
    return st.lists(st.sampled_from(NASTY) | _CHARACTERS, max_size=most).map("".join)


def names() -> st.SearchStrategy[str]:
    """Texts that can name a queue, a job type or a key."""
    pieces = st.lists(st.sampled_from(NASTY) | _CHARACTERS, min_size=1, max_size=8)
    return pieces.map(lambda some: "".join(some)[:200])


def any_texts() -> st.SearchStrategy[str]:
    """Texts of all kinds, some of which can be no name, and some of which cannot be stored."""
    strays = st.lists(st.sampled_from((*NASTY, *STRAY)), min_size=1, max_size=6).map("".join)
    return st.one_of(
        names(), strays, st.just(""), st.sampled_from(["x" * 201, "ü" * 2**20, "\0" * 2**20, "\ud800" * 300])
    )


def can_be_stored(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def is_name(value: object, most: int = 200) -> bool:
    return isinstance(value, str) and 0 < len(value) <= most and can_be_stored(value)


def values() -> st.SearchStrategy[object]:
    """Whatever JSON can say."""
    plain = st.one_of(
        st.none(), st.booleans(), st.integers(), st.sampled_from([2**53 + 1, -(2**63), 2**64, 10**30]), texts(),
        st.floats(allow_nan=False, allow_infinity=False),
    )  # fmt: skip
    return st.recursive(
        plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts(4), inner, max_size=4), max_leaves=12
    )


def alike(sent: object, came: object) -> bool:
    """Whether a value came back: a float may have become an int, as JSON does not tell them apart."""
    match sent:
        case float():
            return isinstance(came, int | float) and not isinstance(came, bool) and _float(came) == sent
        case list():
            return isinstance(came, list) and len(came) == len(sent) and all(map(alike, sent, came))
        case dict():
            return isinstance(came, dict) and came.keys() == sent.keys() and all(alike(sent[k], came[k]) for k in sent)
        case _:
            return type(came) is type(sent) and came == sent


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def drives_terminal(text: str) -> list[str]:
    """The characters of an output that do more to a terminal than to be shown, or to begin a new line."""
    return [
        each for each in text
        if each != "\n" and (each in _TURNING or unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp"))
    ]  # fmt: skip
