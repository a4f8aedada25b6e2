"""A small FastAPI application: an order and its job in one transaction, and a page that shows how far the job is.

Run it: python examples/fastapi_app.py makes a few requests to itself. Serve it: uvicorn examples.fastapi_app:app
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID

import httpx
import psycopg
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from piecework import CurrentJob, JobId, Jobs, new_id

jobs = Jobs()
# The database of the jobs is that of the application; your own engine will have a URL.
engine: AsyncEngine = create_async_engine(
    "postgresql+psycopg://", async_creator=lambda: psycopg.AsyncConnection.connect(jobs.dsn)
)
sessions = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "shop_orders"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    item: Mapped[str]
    shipped: Mapped[bool] = mapped_column(default=False)


@jobs.job
async def ship(job: CurrentJob, order_id: JobId) -> None:
    for done, step in enumerate(["picked", "packed", "labelled"], 1):
        await job.progress(done / 4, step)
        await asyncio.sleep(0.2)
    async with job.completing(begin=sessions.begin) as session:
        order = await session.get_one(Order, order_id)
        order.shipped = True


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with jobs, jobs.worker():  # in production workers are processes of their own: then `async with jobs:`
        async with engine.begin() as conn:
            await conn.run_sync(Base.metadata.create_all)
        yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


class NewOrder(BaseModel):
    item: str


class Shown(BaseModel):
    id: JobId
    item: str
    shipped: bool
    status: str
    progress: float | None = None
    note: str = ""


@app.post("/orders", status_code=202)
async def place(new: NewOrder) -> JobId:
    id = new_id()  # of the order, and of the job that ships it
    async with sessions.begin() as session:
        session.add(Order(id=id, item=new.item))
        await ship.options(conn=session, id=id).spawn(id)
    return id


@app.get("/orders/{id}")
async def show(id: JobId) -> Shown:
    job = await jobs.find(id)  # first the job, then the order: one that has completed is seen to have been shipped
    async with sessions() as session:
        order = await session.get(Order, id)
    if job is None or order is None:
        raise HTTPException(404)
    shown = Shown(id=id, item=order.item, shipped=order.shipped, status=job.status)
    if job.progress is not None:
        shown.progress, shown.note = job.progress.done, job.progress.note
    return shown


async def main() -> None:
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop")
    async with app.router.lifespan_context(app), client:
        placed = await client.post("/orders", json={"item": "teapot"})
        print(placed.status_code, "placed")
        page: dict[str, object] = {}
        while page.get("status") != "completed":
            await asyncio.sleep(0.1)
            page = (await client.get(f"/orders/{placed.json()}")).json()
            print("status:", page["status"], "progress:", page["progress"], "shipped:", page["shipped"])


if __name__ == "__main__":
    asyncio.run(main())
