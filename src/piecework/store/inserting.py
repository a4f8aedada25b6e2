"""Inserting jobs so that each is made once, also where an answer is lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import chain
from typing import Protocol, TypeVar
from uuid import UUID

import msgspec
import psycopg

from piecework.base.errors import DatabaseUnreachable, JobAlreadyExists, PermissionDenied
from piecework.base.ids import JobId
from piecework.model.job import NewJob
from piecework.model.snapshot import JobSnapshot
from piecework.store import spawning
from piecework.store.bulk import NotPlain, insert_parts
from piecework.store.connection import AsyncConnection
from piecework.store.connections import NoneFree
from piecework.store.gathering import Gathering, is_small
from piecework.store.statements import Statements

T = TypeVar("T")
_decode = msgspec.json.Decoder().decode


class Once(Protocol):
    """Runs a call on a connection, once."""

    async def __call__(self, call: Callable[[AsyncConnection], Awaitable[T]]) -> T: ...


class Inserter:
    """Inserts jobs. `Store.spawn` says what is promised."""

    def __init__(
        self,
        statements: Statements,
        once: Once,
        load: Callable[[Sequence[JobId]], Awaitable[list[JobSnapshot | None]]],
    ) -> None:
        self._statements = statements
        self._once = once
        self._load = load
        self._gathering = Gathering(self._spawn)

    async def spawn(self, jobs: Sequence[NewJob]) -> dict[int, UUID]:
        """Insert all jobs by one statement, with those of other calls where these are few."""
        if is_small(jobs):
            await self._gathering.spawn(jobs)
            return {}
        return await self._spawn(jobs)

    async def close(self) -> None:
        """Wait until what was spawned is answered."""
        await self._gathering.close()

    async def _spawn(self, jobs: Sequence[NewJob]) -> dict[int, UUID]:
        try:
            return await self._insert(jobs)
        except NoneFree:
            raise
        except DatabaseUnreachable:
            return await self._again(jobs)

    async def spawn_parts(self, parts: Iterator[Sequence[NewJob]]) -> dict[int, UUID]:
        """Insert the jobs of all parts in one transaction, each part while the next one is made."""
        first = next(parts)
        second = next(parts, None)
        if second is None:
            return await self.spawn(first)
        sent: list[NewJob] = []

        async def insert(conn: AsyncConnection) -> None:
            with spawning.refusals():
                await insert_parts(conn, self._statements.sql("spawn"), chain((first, second), parts), sent)

        try:
            await self._once(insert)
        except NoneFree:
            raise
        except NotPlain:
            return await self.spawn([*sent, *chain.from_iterable(parts)])
        except DatabaseUnreachable:
            return await self._again([*(sent or chain(first, second)), *chain.from_iterable(parts)])
        return {}

    async def _again(self, jobs: Sequence[NewJob]) -> dict[int, UUID]:
        # What landed may have run and ended meanwhile: then it would not be met, but run a second time.
        try:
            if (landed := await self._landed(jobs)) is not None:
                return landed
        except PermissionDenied:
            return await self._again_unseen(jobs)
        try:
            # The first sending may land even now: as with ids that callers choose, the history is looked into as well.
            held = await self._insert([msgspec.structs.replace(job, chosen=True) for job in jobs])
            if all(holder != jobs[position].id for position, holder in held.items()):
                return held
        except JobAlreadyExists:
            if (landed := await self._landed(jobs)) is None:
                raise
            return landed
        return held if (landed := await self._landed(jobs)) is None else landed

    async def _again_unseen(self, jobs: Sequence[NewJob]) -> dict[int, UUID]:
        """Insert again for a role that may only spawn: the insert itself meets what the first sending left."""
        try:
            held = await self._insert([msgspec.structs.replace(job, chosen=True) for job in jobs])
        except JobAlreadyExists:
            if any(job.chosen or job.key is not None for job in jobs):
                raise  # whose it is, or who held its key, cannot be seen
            return {}
        return {position: holder for position, holder in held.items() if holder != jobs[position].id}

    async def _insert(self, jobs: Sequence[NewJob]) -> dict[int, UUID]:
        payload = spawning.payload(jobs)

        async def insert(conn: AsyncConnection) -> dict[int, UUID]:
            try:
                row = await (await conn.execute(self._statements.sql("spawn"), [payload])).fetchone()
            except psycopg.Error:
                with spawning.refusals():
                    raise
            return spawning.holders(None if row is None else row[0])

        return await self._once(insert)

    async def _landed(self, jobs: Sequence[NewJob]) -> dict[int, UUID] | None:
        """Return what an earlier sending of the same jobs answered, or None if it did not land."""
        found = await self._load([job.id for job in jobs])
        # A caller's id may have been another job's before the first sending, so the job itself is compared.
        there = [
            there is not None
            and (not job.chosen or (there.job_type == job.job_type and _decode(there.config) == _decode(job.config)))
            for there, job in zip(found, jobs, strict=True)
        ]
        missing = [position for position, is_there in enumerate(there) if not is_there]
        if len(missing) == len(jobs) or any(jobs[position].key is None for position in missing):
            return None
        # What had its key from an earlier one of the same call is answered as it was; the others are asked for again,
        # since whoever held their keys may have ended.
        first = {(job.job_type, job.key): job.id for job, is_there in zip(jobs, there, strict=True) if is_there}
        answers = {n: first[key] for n in missing if (key := (jobs[n].job_type, jobs[n].key)) in first}
        asked = [position for position in missing if position not in answers]
        held = await self.spawn([jobs[position] for position in asked]) if asked else {}
        return answers | {asked[position]: holder for position, holder in held.items()}
