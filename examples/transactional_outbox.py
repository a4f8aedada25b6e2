"""An order and the job that confirms it, in one transaction: both are there afterwards, or neither.

Run it: python examples/transactional_outbox.py
"""

import asyncio
from datetime import timedelta

import psycopg

from piecework import JobHandle, JobId, Jobs, new_id

jobs = Jobs()


@jobs.job
async def confirm(order_id: JobId, email: str) -> str:
    return f"{email} was told"


async def place_order(conn: psycopg.AsyncConnection, order_id: JobId, email: str, item: str) -> JobHandle[str]:
    """Store an order, and have it confirmed. The order's id is the job's id too: placing it twice is refused."""
    async with conn.transaction():
        await conn.execute("INSERT INTO orders (id, email, item) VALUES (%s, %s, %s)", [order_id, email, item])
        handle = await confirm.options(conn=conn, id=order_id).spawn(order_id, email)
        # What comes after the spawn may fail too, as this does when nothing is left: CHECK (amount >= 0).
        await conn.execute("UPDATE stock SET amount = amount - 1 WHERE item = %s", [item])
    return handle


async def main() -> None:
    async with jobs, jobs.worker(), await psycopg.AsyncConnection.connect(jobs.dsn, autocommit=True) as conn:
        await conn.execute("""
            DROP TABLE IF EXISTS orders, stock;
            CREATE TABLE orders (id uuid PRIMARY KEY, email text NOT NULL, item text NOT NULL);
            CREATE TABLE stock (item text PRIMARY KEY, amount int NOT NULL CHECK (amount >= 0));
            INSERT INTO stock VALUES ('teapot', 1)
        """)

        first = await place_order(conn, new_id(), "ada@example.org", "teapot")
        print("committed:", await first.result(timeout=timedelta(seconds=60)))

        second = new_id()
        try:
            await place_order(conn, second, "grace@example.org", "teapot")
        except psycopg.errors.CheckViolation:
            print("rolled back: the second teapot was not in stock")
        print("job of the second order:", await jobs.find(second))

        orders = await (await conn.execute("SELECT email FROM orders")).fetchall()
        print("orders:", [email for (email,) in orders])


if __name__ == "__main__":
    asyncio.run(main())
