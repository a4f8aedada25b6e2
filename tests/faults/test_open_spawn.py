"""A spawn whose transaction was open while the worker went to sleep hinted at nothing, and is found all the same."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import psycopg
from engine.app import App
from engine.helpers import SOON, WorkerProcess, count, until

from piecework.base.ids import new_id


async def test_it_runs_soon_after_its_commit(dsn: str, app: App, workers: Callable[..., WorkerProcess]) -> None:
    with psycopg.connect(dsn) as application:
        job = {"id": str(new_id()), "job_type": "note", "config": {}}
        application.execute("SELECT piecework.spawn_1(%s)", [json.dumps([job])])
        workers()
        await until(lambda: count(dsn, "idle_workers") == 1)
        for _ in range(3):  # others come and go meanwhile
            await (await app.note.spawn()).result(timeout=SOON)
        await asyncio.sleep(3)  # it sleeps by then, unless it knows that it may have missed something
        application.commit()
        committed = time.monotonic()
    await until(lambda: job["id"] in app.ledger.runs_by_job())
    assert time.monotonic() - committed < 15.0, "the next look without the protocol comes after 30 s"
