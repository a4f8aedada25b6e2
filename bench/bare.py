"""The yardstick: the shortest loop that claims, runs and completes jobs in batches, on the driver that piecework uses.

It keeps a history row per job, and nothing else that a job runner needs: no types, no retries, no fence beyond the
worker's number, no heartbeat, no hints. Claims and completions overlap on two connections.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import msgspec
import psycopg
from psycopg.types.json import set_json_loads

from bench.system import CONCURRENCY, TEXT, batches
from bench.tally import Tally

TABLES = """
CREATE TABLE hot (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    priority smallint NOT NULL DEFAULT 0,
    run_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempt smallint NOT NULL DEFAULT 0,
    worker_id integer,
    payload jsonb NOT NULL
) WITH (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX hot_claim ON hot (priority, run_at, id) WHERE worker_id IS NULL;
CREATE TABLE history (
    id bigint NOT NULL,
    priority smallint NOT NULL,
    run_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    attempt smallint NOT NULL,
    worker_id integer NOT NULL,
    payload jsonb NOT NULL,
    finished_at timestamptz NOT NULL
);
CREATE INDEX history_id ON history (id);
"""
INSERT_MANY = "INSERT INTO hot (payload) SELECT p::jsonb FROM unnest($1::text[]) AS p"
INSERT_ONE = "INSERT INTO hot (payload) VALUES ($1::jsonb)"
CLAIM = """
UPDATE hot SET worker_id = $1::integer, attempt = attempt + 1
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM hot WHERE worker_id IS NULL AND run_at <= now()
    ORDER BY priority, run_at, id LIMIT $2::integer FOR UPDATE SKIP LOCKED))
RETURNING id, payload
"""
COMPLETE = """
WITH gone AS (DELETE FROM hot WHERE worker_id = $1::integer AND id = ANY ($2::bigint[]) RETURNING *)
INSERT INTO history
SELECT id, priority, run_at, created_at, attempt, worker_id, payload, clock_timestamp() FROM gone
"""
# A plan made while the table is empty would sort it, and be kept. piecework pins the plans of its functions likewise.
PIN_PLANS = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off"

CLAIM_AT_MOST = 500
LOOK_AGAIN = 0.001  # seconds after a claim that found nothing
WORKER = 1

Row = tuple[int, dict[str, object]]


async def connect(dsn: str) -> psycopg.AsyncConnection[tuple[object, ...]]:
    """Open a connection that commits each statement and prepares it at once."""
    return await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, prepare_threshold=0, cursor_factory=psycopg.AsyncRawCursor
    )


class Loop:
    """The worker: one coroutine claims, one completes, each job is a task."""

    def __init__(self, dsn: str, tally: Tally) -> None:
        self._dsn = dsn
        self._tally = tally
        self._in_flight = 0
        self._ended: list[int] = []
        self._to_complete = asyncio.Event()
        self._room = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def _noop(self, payload: dict[str, object]) -> None:
        self._tally.hit()

    async def _run(self, row: Row) -> None:
        await self._noop(row[1])
        self._ended.append(row[0])
        self._to_complete.set()

    async def claim(self) -> None:
        """Claim a batch whenever it fits the concurrency, for ever."""
        async with await connect(self._dsn) as conn:
            await conn.execute(PIN_PLANS.encode(), prepare=False)
            cursor = conn.cursor(binary=True)
            set_json_loads(msgspec.json.decode, cursor)
            while True:
                while self._in_flight > CONCURRENCY - CLAIM_AT_MOST:
                    self._room.clear()
                    await self._room.wait()
                await cursor.execute(CLAIM.encode(), [WORKER, CLAIM_AT_MOST])
                rows: list[Row] = await cursor.fetchall()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
                self._in_flight += len(rows)
                for row in rows:
                    task = asyncio.create_task(self._run(row))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                await asyncio.sleep(0 if rows else LOOK_AGAIN)

    async def complete(self) -> None:
        """Complete all that has ended, in one statement, whenever the last one is answered, for ever."""
        async with await connect(self._dsn) as conn:
            await conn.execute(PIN_PLANS.encode(), prepare=False)
            while True:
                await self._to_complete.wait()
                self._to_complete.clear()
                ended, self._ended = self._ended, []
                await conn.execute(COMPLETE.encode(), [WORKER, ended])
                self._in_flight -= len(ended)
                self._room.set()


class Bare:
    """The bare loop as a system."""

    def __init__(self, dsn: str, tally: Tally) -> None:
        self._dsn = dsn
        self._tally = tally

    async def prepare(self) -> None:
        """Make the tables."""
        async with await connect(self._dsn) as conn:
            await conn.execute(TABLES.encode(), prepare=False)

    async def produce(self, count: int, until: float) -> int:
        """Insert jobs, each batch by one statement."""
        made = 0
        async with await connect(self._dsn) as conn:
            for numbers in batches(count, until):
                payloads = [msgspec.json.encode({"number": n, "text": TEXT}).decode() for n in numbers]
                await conn.execute(INSERT_MANY.encode(), [payloads])
                made += len(numbers)
        return made

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncGenerator[None]:
        """Run the loop; leaving breaks it off."""
        loop = Loop(self._dsn, self._tally)
        async with asyncio.TaskGroup() as group:
            tasks = group.create_task(loop.claim()), group.create_task(loop.complete())
            yield
            for task in tasks:
                task.cancel()

    async def drained(self) -> bool:
        """Whether the hot table is empty."""
        return not await self._value("SELECT EXISTS (SELECT FROM hot)")

    async def finished(self) -> tuple[int, int]:
        """Rows of the history, and different ids in it."""
        return (
            int(str(await self._value("SELECT count(*) FROM history"))),
            int(str(await self._value("SELECT count(DISTINCT id) FROM history"))),
        )

    async def _value(self, query: str) -> object:
        async with await connect(self._dsn) as conn:
            row = await (await conn.execute(query.encode())).fetchone()
            assert row is not None
            return row[0]
