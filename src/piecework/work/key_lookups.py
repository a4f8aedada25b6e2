"""Find the jobs of one type by their keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, cast

import msgspec
from typing_extensions import TypeVar

from piecework.base.ids import JobId
from piecework.store.keyed import find_keyed, list_keyed
from piecework.work.handle import JobHandle
from piecework.work.handles import JobHandles
from piecework.work.placement import checked_name
from piecework.work.registry import RegisteredJob
from piecework.work.service import Service
from piecework.work.spans import Spanned

R = TypeVar("R", covariant=True, default=None)


class KeyLookups(Generic[R]):
    """What a spawner knows of the keys of its job type. Methods in `_sync` block as their twins wait."""

    def __init__(self, service: Service, job: RegisteredJob) -> None:
        self._service = service
        self._job = job

    async def keyed_handle(self, key: str, /) -> JobHandle[R] | None:
        """Return a handle of the job of this key: the live one, else the one that was spawned last.

        Only a key counts that was given by `key=` or made by the job type. The one job of a resident type is found by
        `resident_handle`.

        Returns:
            None if no job with the key is live or kept.

        Raises:
            InvalidOptions: `key` is no text of 1 to 200 characters.
            NotOpen: the `Jobs` is not open.
            DatabaseError: the database cannot be reached, or refuses.
        """
        checked = checked_name(key, "keyed_handle(…)")
        if self._job.resident:
            return None
        with Spanned("job.keyed_handle", self._of_type()):
            return self._found(await self._service.run(lambda store: find_keyed(store, self._names, checked)))

    def keyed_handle_sync(self, key: str, /) -> JobHandle[R] | None:
        """Block as `keyed_handle` waits."""
        checked = checked_name(key, "keyed_handle_sync(…)")
        if self._job.resident:
            return None
        with Spanned("job.keyed_handle", self._of_type()):
            return self._found(
                self._service.run_sync(lambda store: find_keyed(store, self._names, checked), "keyed_handle")
            )

    async def keyed_handles(self) -> JobHandles[R]:
        """Return a handle for each key of the job type, as `keyed_handle` finds it, ordered by key.

        Walks over all keyed jobs of the type that are kept.

        Raises:
            NotOpen, DatabaseError: as `keyed_handle`.
        """
        with Spanned("job.keyed_handles", self._of_type()):
            if self._job.resident:
                return self._all([])
            return self._all(await self._service.run(lambda store: list_keyed(store, self._names)))

    def keyed_handles_sync(self) -> JobHandles[R]:
        """Block as `keyed_handles` waits."""
        with Spanned("job.keyed_handles", self._of_type()):
            if self._job.resident:
                return self._all([])
            return self._all(self._service.run_sync(lambda store: list_keyed(store, self._names), "keyed_handles"))

    async def resident_handle(self) -> JobHandle[R] | None:
        """Return a handle of the one job of a resident type; None before its first spawn, and for other types.

        Raises:
            NotOpen, DatabaseError: as `keyed_handle`.
        """
        with Spanned("job.resident_handle", self._of_type()):
            key = self._resident_key()
            if key is None:
                return None
            return self._found(await self._service.run(lambda store: find_keyed(store, self._names, key)))

    def resident_handle_sync(self) -> JobHandle[R] | None:
        """Block as `resident_handle` waits."""
        with Spanned("job.resident_handle", self._of_type()):
            key = self._resident_key()
            if key is None:
                return None
            return self._found(
                self._service.run_sync(lambda store: find_keyed(store, self._names, key), "resident_handle")
            )

    @property
    def _names(self) -> tuple[str, ...]:
        return (self._job.job_type, *self._job.aliases)

    def _of_type(self) -> dict[str, str]:
        return {"job_type": self._job.job_type}

    def _resident_key(self) -> str | None:
        return self._job.make_key(None) if self._job.resident and self._job.make_key is not None else None

    def _found(self, id: JobId | None) -> JobHandle[R] | None:
        return None if id is None else JobHandle(self._service, id, self._read, created=False)

    def _all(self, ids: Sequence[JobId]) -> JobHandles[R]:
        return JobHandles(self._service, [JobHandle(self._service, id, self._read, created=False) for id in ids])

    def _read(self, stored: msgspec.Raw) -> R:
        return cast("R", self._job.decode_result(stored))
