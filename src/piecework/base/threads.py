"""Threads and tasks with names that say what they are: what a look at a process shows (`py-spy dump`, `all_tasks`)."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import TypeVar

from piecework.base.surroundings import SURROUNDINGS, Surroundings

T = TypeVar("T")


async def in_thread(name: str, call: Callable[[], T], surroundings: Surroundings = SURROUNDINGS) -> T:
    """Run a call that blocks in a thread of its own with this name, and return what it returns.

    `asyncio.to_thread`, but for the name. A cancellation does not stop the thread either; a process that ends waits
    for it.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def tell(end: Callable[[], None]) -> None:
        try:
            loop.call_soon_threadsafe(lambda: None if answer.done() else end())
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    def run() -> None:
        try:
            value = call()
        except BaseException as error:
            failure = error  # `error` is gone when the loop comes to it
            tell(lambda: answer.set_exception(failure))
        else:
            tell(lambda: answer.set_result(value))

    context = contextvars.copy_context()
    surroundings.start_thread(name, lambda: context.run(run), daemon=False)
    return await answer


async def named(name: str, call: Callable[[], Coroutine[object, object, T]]) -> T:
    """Name the task that this runs in, then run `call` in it: for tasks that asyncio makes."""
    task = asyncio.current_task()
    assert task is not None
    task.set_name(name)
    return await call()
