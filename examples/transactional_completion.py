"""Money is moved and the job that moves it is completed in one transaction: exactly once, whatever fails in between.

Run it: python examples/transactional_completion.py
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from piecework import CurrentJob, Jobs, RetrySettings

jobs = Jobs()


@jobs.resource
async def bank() -> AsyncIterator[AsyncConnectionPool[AsyncConnection]]:
    """The pool of the application: a worker opens it before its first job, and closes it after its last."""
    async with AsyncConnectionPool(jobs.dsn, connection_class=AsyncConnection, open=False) as pool:
        yield pool


@jobs.job(retry=RetrySettings(n_attempts=5, min_backoff=timedelta(milliseconds=100)))
async def transfer(job: CurrentJob, source: str, target: str, amount: int) -> None:
    async with job.completing(begin=bank.get().connection) as conn:
        move = "UPDATE accounts SET balance = balance + %s WHERE owner = %s"
        await conn.execute(move, [-amount, source])
        if job.attempt == 1:
            # The first withdrawal goes back with the transaction; were the process killed here, it would too.
            print("attempt 1: the connection broke halfway")
            raise ConnectionError("between the withdrawal and the deposit")
        await conn.execute(move, [amount, target])
        await receipt.options(conn=conn).spawn(source, amount)
    print(f"attempt {job.attempt}: moved {amount}, and completed")


@jobs.job
async def receipt(owner: str, amount: int) -> str:
    return f"{owner} paid {amount}"


async def main() -> None:
    async with jobs, await AsyncConnection.connect(jobs.dsn, autocommit=True) as conn:
        await conn.execute("""
            DROP TABLE IF EXISTS accounts;
            CREATE TABLE accounts (owner text PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0));
            INSERT INTO accounts VALUES ('ada', 100), ('grace', 0)
        """)
        async with jobs.worker():
            handle = await transfer.spawn("ada", "grace", 30)
            await handle.result(timeout=timedelta(seconds=60))
        balances = await (await conn.execute("SELECT owner, balance FROM accounts ORDER BY owner")).fetchall()
        print("balances:", dict(balances))


if __name__ == "__main__":
    asyncio.run(main())
