"""A resident job never ends: whatever it does but reschedule itself is a failed attempt."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import cast

from piecework.base.serialization import qualified_name
from piecework.base.texts import shown
from piecework.model.completion import Fail, Reschedule


def only_reschedules(run: Callable[..., object]) -> Callable[..., object]:
    """Return `run` so that it raises an ordinary error where it returns anything but `Reschedule`, or raises `Fail`.

    Args:
        run: an `async def` or a `def` function, or such a method.
    """
    name = qualified_name(run)
    if inspect.iscoroutinefunction(run):
        waited_for = cast("Callable[..., Awaitable[object]]", run)

        @functools.wraps(run)
        async def run_async(*args: object, **kwargs: object) -> Reschedule:
            try:
                return _checked(await waited_for(*args, **kwargs), name)
            except Fail as fail:
                raise _cannot_fail(fail, name) from fail

        return run_async

    @functools.wraps(run)
    def run_plain(*args: object, **kwargs: object) -> Reschedule:
        try:
            return _checked(run(*args, **kwargs), name)
        except Fail as fail:
            raise _cannot_fail(fail, name) from fail

    return run_plain


def _checked(value: object, name: str) -> Reschedule:
    if isinstance(value, Reschedule):
        return value
    raise TypeError(f"{name} returned {shown(value)}: a resident job never ends, so it returns Reschedule.now(), "
                    ".after(…) or .at(…)")


def _cannot_fail(fail: Fail, name: str) -> RuntimeError:
    return RuntimeError(f"{name} raised Fail({fail.reason!r}): a resident job never ends, so this attempt has failed "
                        "and another follows")
