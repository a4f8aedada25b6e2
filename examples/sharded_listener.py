"""Listeners that follow a feed of events, one per shard, each with its own cursor; they go on where they were killed.

Run it: python examples/sharded_listener.py
"""

import asyncio
import sys
from asyncio.subprocess import Process
from dataclasses import dataclass
from datetime import timedelta

from psycopg import AsyncConnection

from piecework import CurrentJob, Jobs, LivenessSettings, Reschedule, RetrySettings, WorkerSettings

SHARDS = 3
PAGE = 10

jobs = Jobs()


@dataclass
class Cursor:
    """The last event of the shard that was handled. Each shard has one writer, so later events have higher ids."""

    event: int = 0


@jobs.job(key="{shard}", retry=RetrySettings.repeat_indefinitely())
async def listen(job: CurrentJob, shard: int) -> Reschedule:
    cursor = job.execution_state(Cursor) or Cursor()
    async with await AsyncConnection.connect(jobs.dsn) as conn:
        while not job.shutdown_requested:
            # What a page leads to, and the cursor behind it, are committed together: no event is handled twice.
            async with conn.transaction():
                query = "SELECT id FROM events WHERE shard = %s AND id > %s ORDER BY id LIMIT %s"
                page = await (await conn.execute(query, [shard, cursor.event, PAGE])).fetchall()
                if not page:
                    return Reschedule.after(timedelta(milliseconds=200))
                await conn.cursor().executemany("INSERT INTO handled VALUES (%s)", page)
                cursor = Cursor(page[-1][0])
                await job.save_state(cursor, conn=conn)
            await asyncio.sleep(0.05)
    return Reschedule.now()


async def append(conn: AsyncConnection, events: int) -> None:
    await conn.execute("INSERT INTO events (shard) SELECT n %% %s FROM generate_series(1, %s) n", [SHARDS, events])


async def until_handled(conn: AsyncConnection, least: int) -> None:
    while True:
        row = await (await conn.execute("SELECT count(*) FROM handled")).fetchone()
        if row and row[0] >= least:
            return
        await asyncio.sleep(0.02)


async def start_worker() -> Process:
    return await asyncio.create_subprocess_exec(sys.executable, __file__, "worker")


async def main() -> None:
    async with jobs, await AsyncConnection.connect(jobs.dsn, autocommit=True) as conn:
        await conn.execute("""
            DROP TABLE IF EXISTS events, handled;
            CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, shard int NOT NULL);
            CREATE TABLE handled (event bigint PRIMARY KEY)
        """)
        await append(conn, 300)
        listeners = await jobs.spawn_all(listen.spec(shard) for shard in range(SHARDS))

        worker = await start_worker()
        await until_handled(conn, 30)
        worker.kill()
        await worker.wait()
        print("killed the worker between two pages, or within one")

        await append(conn, 60)
        worker = await start_worker()
        await until_handled(conn, 360)
        print("handled 360 events, none of them twice")
        for shard, listener in enumerate(listeners):
            print(f"shard {shard}: {await listener.execution_state(Cursor)}")
        print("cancelled:", await listeners.cancel())
        worker.terminate()
        await worker.wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        # The jobs of a worker that was killed run again after 18 seconds; for this demonstration, after 3.
        jobs.run_worker(WorkerSettings(liveness=LivenessSettings.scaled(timedelta(seconds=3))))
    else:
        asyncio.run(main())
