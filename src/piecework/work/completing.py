"""A block of a job's own writes, which commits together with the job's completion."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from types import TracebackType
from typing import TypeAlias, TypeVar, cast

import psycopg

from piecework.model.completion import Reschedule
from piecework.store.beginning import begun, begun_sync
from piecework.work.run_context import RunContext

T = TypeVar("T")
_Begin: TypeAlias = Callable[[], AbstractAsyncContextManager[T]]
_BeginSync: TypeAlias = Callable[[], AbstractContextManager[T]]


class Completing:
    """`async with job.completing() as conn:`, or the same with `with` in a thread. Entered once."""

    __slots__ = ("_async", "_begin", "_reschedule", "_run", "_sync")

    def __init__(self, run: RunContext, reschedule: Reschedule | None, begin: object) -> None:
        if begin is not None and not callable(begin):
            raise TypeError(f"completing(begin={begin!r}) takes what opens a connection or a transaction, such as "
                            "engine.begin, Session.begin, pool.connection: in one that is open, use complete_in")
        run.completing(reschedule, verb="completing")  # what is wrong with it is said here, and not at the end
        self._run = run
        self._reschedule = reschedule
        self._begin = begin

    async def __aenter__(self) -> psycopg.AsyncConnection:
        begin = self._run.lent if self._begin is None else cast("_Begin[psycopg.AsyncConnection]", self._begin)
        self._async = _block(self._run, self._reschedule, begin)
        return await self._async.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._async.__aexit__(kind, error, trace)

    def __enter__(self) -> psycopg.Connection:
        begin = self._run.lent_sync if self._begin is None else cast("_BeginSync[psycopg.Connection]", self._begin)
        self._sync = _block_sync(self._run, self._reschedule, begin)
        return self._sync.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sync.__exit__(kind, error, trace)


@asynccontextmanager
async def _block(run: RunContext, reschedule: Reschedule | None, begin: _Begin[T]) -> AsyncGenerator[T]:
    with run.block():
        async with begin() as conn, begun(conn):
            await run.write(run.guarding(), conn)
            yield conn
            # At the end: from here on the job's row is locked.
            await run.write(run.completing(reschedule, verb="completing"), conn)


@contextmanager
def _block_sync(run: RunContext, reschedule: Reschedule | None, begin: _BeginSync[T]) -> Generator[T]:
    with run.block(), begin() as conn, begun_sync(conn):
        run.write_sync(run.guarding(), conn)
        yield conn
        run.write_sync(run.completing(reschedule, verb="completing"), conn)
