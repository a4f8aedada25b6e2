"""What job functions share with each other and the worker opens for them: a pool of connections, a client, a model."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Generic, TypeAlias, cast

from typing_extensions import TypeVar

from piecework.base.errors import NotOpen, RegistrationError
from piecework.base.serialization import qualified_name
from piecework.base.threads import in_thread

X = TypeVar("X", covariant=True)
T = TypeVar("T")

AnyOpens: TypeAlias = Callable[[], AsyncIterator[T]] | Callable[[], Iterator[T]]
_HURRIED_CLOSE = 10.0
_CLOSED = object()


@dataclass(frozen=True, slots=True, eq=False)
class _Override:
    value: object


class Resource(Generic[X]):
    """Something that every worker process has once, made by the generator function below `@jobs.resource`.

    A worker opens the resources before its first claim, in the order of their definition, and closes them in reverse
    when its last run has ended.
    """

    def __init__(self, opens: AnyOpens[X]) -> None:
        self._opens = opens
        self._value: object = _CLOSED
        self._overrides: tuple[_Override, ...] = ()
        self._lock = threading.Lock()
        self.__name__ = opens.__name__
        self.__doc__ = opens.__doc__

    def get(self) -> X:
        """Return it, from whatever thread.

        Raises:
            NotOpen: no worker of this process has opened it, and no `override` holds.
        """
        overrides = self._overrides
        value = overrides[-1].value if overrides else self._value
        if value is _CLOSED:
            name = self.__name__
            raise NotOpen(f"the resource {qualified_name(self._opens)} is not open: a worker opens it before its first "
                          f"job, if it was defined by then; without a worker, as in a test, write `with {name}"
                          ".override(…):` around the call")
        return cast("X", value)

    @contextmanager
    def override(self: Resource[T], value: T) -> Generator[T]:
        """Let `get` answer `value` inside of `with db.override(fake):`, in all threads and tasks of the process.

        A worker that starts inside does not open the resource.
        """
        override = _Override(value)
        with self._lock:
            self._overrides = (*self._overrides, override)
        try:
            yield value
        finally:
            with self._lock:
                self._overrides = tuple(each for each in self._overrides if each is not override)

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Open it, unless it is overridden, and close it at the end."""
        if self._overrides:
            yield
            return
        if inspect.isasyncgenfunction(self._opens):
            source = asynccontextmanager(cast("Callable[[], AsyncGenerator[object]]", self._opens))()
        else:
            source = _in_threads(cast("Callable[[], Generator[object]]", self._opens), self.__name__)
        async with source as value:
            self._value = value
            try:
                yield
            finally:
                self._value = _CLOSED

    def __repr__(self) -> str:
        return f"<Resource {self.__name__}>"


@asynccontextmanager
async def _in_threads(opens: Callable[[], Generator[T]], name: str) -> AsyncGenerator[T]:
    """Run a plain generator in threads: what it waits for does not block the loop."""
    source = contextmanager(opens)()
    value = await in_thread(f"job-resource-{name}", source.__enter__)
    try:
        yield value
    finally:
        await in_thread(f"job-resource-{name}", lambda: source.__exit__(None, None, None))


def make_resource(opens: object) -> Resource[object]:
    """Return the resource that a generator function makes.

    Raises:
        RegistrationError: it is no generator function, or has parameters.
    """
    if not inspect.isasyncgenfunction(opens) and not inspect.isgeneratorfunction(opens):
        raise RegistrationError(f"@jobs.resource takes a function that yields the resource once, and closes it after "
                                f"that, not {opens!r}; leave @contextmanager and the like out")
    if inspect.signature(opens).parameters:
        raise RegistrationError(f"@jobs.resource on {qualified_name(opens)}: nobody gives it arguments, so let it take "
                                "none")
    return Resource(cast("AnyOpens[object]", opens))


class Resources:
    """The resources of one `Jobs`: the first worker of a process opens them, the last one closes them.

    Both happens in one task, as task groups and cancel scopes inside of resources demand.
    """

    def __init__(self) -> None:
        self._defined: tuple[Resource[object], ...] = ()
        self._workers = 0
        self._hurried = False
        self._held: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] | None = None
        self._enough = asyncio.Event()

    def add(self, resource: Resource[object]) -> None:
        """Have workers that start from now on open it."""
        self._defined = (*self._defined, resource)

    async def open(self) -> None:
        """Open them for a worker, in the order of their definition.

        Raises:
            Exception: what opening one of them raised; those before it are closed again.
        """
        while self._workers == 0 and self._held is not None:  # another worker's last doings
            await asyncio.wait({self._held})
        self._workers += 1
        if self._held is None:
            self._hurried, self._enough = False, asyncio.Event()
            self._opened = opened = asyncio.get_running_loop().create_future()
            self._held = asyncio.create_task(self._hold(opened, self._enough), name="job-resources")
        assert self._opened is not None
        try:
            await asyncio.wait({self._opened})
            self._opened.result()
        except BaseException:
            if self._workers == 1 and not self._opened.done():
                self._held.cancel()
            await self.close()
            raise

    async def close(self) -> None:
        """Close them for a worker, in reverse; only the last worker of the process does.

        Raises:
            Exception: what closing one of them raised; all are closed all the same.
        """
        self._workers -= 1
        held = self._held
        if self._workers or held is None:
            return
        self._enough.set()
        if self._hurried:
            self.hurry()
        await asyncio.wait({held})
        self._held = None
        if not held.cancelled():
            held.result()

    def hurry(self) -> None:
        """Cancel what still opens; wait for what closes, now or later, no longer than ten seconds."""
        self._hurried = True
        if self._held is None or self._opened is None:
            return
        if not self._opened.done():
            self._held.cancel()
        elif self._enough.is_set():
            asyncio.get_running_loop().call_later(_HURRIED_CLOSE, self._held.cancel)

    async def _hold(self, opened: asyncio.Future[None], enough: asyncio.Event) -> None:
        entered: list[AbstractAsyncContextManager[None]] = []
        try:
            for resource in self._defined:
                context = resource.opened()
                await context.__aenter__()
                entered.append(context)
            opened.set_result(None)
            await enough.wait()
        except asyncio.CancelledError:
            opened.cancel()
            raise
        except Exception as error:
            opened.set_exception(error)
        finally:
            await _close_all(entered)


async def _close_all(entered: list[AbstractAsyncContextManager[None]]) -> None:
    """Close in reverse; none sees the errors of another."""
    errors: list[Exception] = []
    cancelled: asyncio.CancelledError | None = None
    for context in reversed(entered):
        try:
            async with asyncio.timeout(None if cancelled is None else _HURRIED_CLOSE):
                await context.__aexit__(None, None, None)
        except asyncio.CancelledError as error:
            cancelled = error
        except Exception as error:
            errors.append(error)
    if cancelled is not None:
        raise cancelled
    if errors:
        raise errors[0] if len(errors) == 1 else ExceptionGroup("resources could not be closed", errors)
