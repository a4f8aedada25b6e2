"""Many small jobs run together: one call for all prices, one transaction, and a bad position spoils only itself.

Run it: python examples/batched_revaluation.py
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from psycopg import AsyncConnection

from piecework import BatchItem, BatchOutcomes, CurrentBatch, Fail, Jobs, RetrySettings

jobs = Jobs()


@dataclass
class Position:
    id: int
    symbol: str


async def latest_prices(symbols: Iterable[str]) -> dict[str, int]:
    """Ask the market, once for all: this is what a batch is for."""
    market = {"TEA": 3, "INK": 5}
    return {symbol: market[symbol] for symbol in symbols if symbol in market}


@jobs.batched(max_size=100, retry=RetrySettings.never())
async def revalue(batch: CurrentBatch[Position]) -> BatchOutcomes[int]:
    prices = await latest_prices({item.config.symbol for item in batch.items})

    async def one(item: BatchItem[Position], conn: AsyncConnection) -> int | Fail:
        """Runs in a savepoint of its own: what it raises undoes what it wrote, and nothing else."""
        price = prices.get(item.config.symbol)
        if price is None:
            return Fail(f"{item.config.symbol} has no price")
        update = "UPDATE positions SET value = amount * %s WHERE id = %s RETURNING value"
        row = await (await conn.execute(update, [price, item.config.id])).fetchone()
        return int(row[0]) if row else Fail("it was sold")

    return await batch.run_isolated(one)


async def main() -> None:
    async with jobs, await AsyncConnection.connect(jobs.dsn, autocommit=True) as conn:
        await conn.execute("""
            DROP TABLE IF EXISTS positions;
            CREATE TABLE positions (id int PRIMARY KEY, amount int NOT NULL, value int CHECK (value < 1000));
            INSERT INTO positions VALUES (1, 10), (2, 1000), (3, 20), (4, 30)
        """)
        positions = [Position(1, "TEA"), Position(2, "TEA"), Position(3, "INK"), Position(4, "OIL")]
        handles = await jobs.spawn_all(revalue.spec(position) for position in positions)
        async with jobs.worker():
            for position, outcome in zip(positions, await handles.wait(timeout=timedelta(seconds=60)), strict=True):
                error = outcome.error.message.splitlines()[0] if outcome.error else ""
                print(position.id, outcome.status, error or outcome.result)
        stored = await conn.execute("SELECT id, value FROM positions WHERE value IS NOT NULL ORDER BY id")
        print("stored:", dict(await stored.fetchall()))


if __name__ == "__main__":
    asyncio.run(main())
