"""From an exception to the text that is stored of it: bounded, and of characters that PostgreSQL accepts."""

from __future__ import annotations

import os
import traceback
from types import TracebackType

from piecework.model.snapshot import ErrorInfo

MAX_MESSAGE = 8 * 1024
MAX_TRACEBACK = 32 * 1024
_MAX_TYPE = 512
_ROOM_FOR_NOTE = 64

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_STDLIB = os.path.dirname(traceback.__file__)
_OUR_CALLERS = (
    os.path.join(_PACKAGE, "engine", ""),
    os.path.join(_PACKAGE, "work", ""),
    os.path.join(_STDLIB, "asyncio", ""),
    os.path.join(_STDLIB, "concurrent", "futures", ""),
)


def describe(error: BaseException) -> ErrorInfo:
    """What is stored of `error`: its qualified class name, its message (at most 8 KiB of UTF-8) and its formatted
    traceback (at most 32 KiB; empty if it was never raised), which starts in the job's own code.

    Never raises, whatever the exception's own methods do. NUL characters and lone surrogates, which PostgreSQL
    refuses, are written as the escapes that Python would show.
    """
    return ErrorInfo(
        type=storable(type_name(type(error)), _MAX_TYPE),
        message=storable(_message(error), MAX_MESSAGE),
        traceback=storable(_traceback(error), MAX_TRACEBACK),
    )


def storable(text: str, limit: int) -> str:
    """`text` as PostgreSQL can store it, its middle cut out where it has more than `limit` bytes of UTF-8."""
    data = text.replace("\0", "\\x00").encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return data.decode()
    half = (limit - _ROOM_FOR_NOTE) // 2
    # A character that the cut goes through is left out whole.
    start, end = data[:half].decode(errors="ignore"), data[-half:].decode(errors="ignore")
    return f"{start}\n[... {len(data) - 2 * half} bytes left out ...]\n{end}"


def type_name(kind: type[BaseException]) -> str:
    """The qualified name of a class of errors; one of piecework's own is named as it is imported. Never raises."""
    try:
        module, name = str(kind.__module__), str(kind.__qualname__)
    except BaseException:  # its metaclass's own code
        return "an error without a name"
    if module == "builtins":
        return name
    # Where an error of piecework's own is defined is no part of its name: all are public in `piecework`.
    return f"{'piecework' if module.startswith('piecework.') else module}.{name}"


def _message(error: BaseException) -> str:
    for text_of in (str, repr):
        try:
            text = str.__str__(text_of(error))  # a text of a class of its own would have methods of its own
        except BaseException:  # the error's own code, which must not stop the settlement
            continue
        if text:
            return text
    return f"<{type_name(type(error))} without a readable message>"


def _traceback(error: BaseException) -> str:
    try:
        raised_at = error.__traceback__
        if raised_at is None:
            return ""
        return "".join(traceback.format_exception(type(error), error, _without_our_callers(raised_at)))
    except BaseException as failure:  # as above
        return f"<the traceback could not be formatted: {type_name(type(failure))}>"


def _without_our_callers(raised_at: TracebackType) -> TracebackType:
    """The traceback from the first frame that is neither piecework's nor the machinery's under it; the whole one if
    there is no other frame, since the fault is then ours."""
    frame: TracebackType | None = raised_at
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith(_OUR_CALLERS):
        frame = frame.tb_next
    return raised_at if frame is None else frame
