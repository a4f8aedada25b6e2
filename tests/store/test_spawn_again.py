"""A spawn whose connection broke while the server was still at it, and that is sent again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import pytest

from piecework.model.job import NewJob
from piecework.model.settlement import completed
from piecework.store.store import Store
from piecework.testing import FaultProxy
from support.scene import DEADLINE, NOW, Scene, new_job

pytestmark = pytest.mark.postgres(18, 15)


class SlowToSendAgain(Store):
    """After it has looked for the jobs and before it sends them again, the test goes on."""

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__(proxy.dsn)
        self.proxy, self.looked, self.go_on = proxy, asyncio.Event(), asyncio.Event()

    async def _landed(self, jobs: Sequence[NewJob]) -> dict[int, UUID] | None:
        answer = await super()._landed(jobs)
        if not self.looked.is_set():
            assert answer is None
            self.looked.set()
            await self.go_on.wait()
        return answer


@pytest.fixture
async def store(scene: Scene) -> AsyncIterator[SlowToSendAgain]:
    async with FaultProxy(scene.dsn) as proxy:
        store = SlowToSendAgain(proxy)
        await store.open(migrate=False)
        yield store
        await store.close()


async def spawned(scene: Scene, store: SlowToSendAgain, job: NewJob, *, ends: bool) -> dict[int, UUID]:
    """Spawn it, so that the first sending lands between the look and the second sending."""
    halt = scene.session()
    halt.execute("LOCK TABLE jobs IN SHARE MODE")
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        spawning = group.create_task(store.spawn([job]))
        await scene.until_blocked()
        store.proxy.cut()
        await store.looked.wait()
        halt.rollback()
        await until_live(scene)
        if ends:
            worker = scene.worker()
            [claimed] = await scene.claim(worker)
            assert await scene.settle(worker, completed(claimed, NOW, None)) == ["landed"]
        store.go_on.set()
    return spawning.result()


async def until_live(scene: Scene) -> None:
    deadline = time.monotonic() + DEADLINE
    while scene.value("SELECT count(*) FROM jobs") != 1:
        assert time.monotonic() < deadline, "the first sending does not land"
        await asyncio.sleep(0.002)


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_job_that_has_ended_by_then_is_not_made_a_second_time(
    scene: Scene, store: SlowToSendAgain, key: str | None
) -> None:
    assert await spawned(scene, store, new_job(key=key), ends=True) == {}
    assert scene.rows("SELECT * FROM jobs") == []


@pytest.mark.parametrize("chosen", [False, True])
@pytest.mark.parametrize("key", [None, "k"])
async def test_a_job_that_is_live_by_then_was_created_by_this_spawn(
    scene: Scene, store: SlowToSendAgain, key: str | None, chosen: bool
) -> None:
    assert await spawned(scene, store, new_job(key=key, chosen=chosen), ends=False) == {}
    assert scene.value("SELECT count(*) FROM jobs") == 1
