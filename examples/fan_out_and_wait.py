"""One job spawns many, and a later one gathers what they found, in order.

Run it: python examples/fan_out_and_wait.py
"""

import asyncio
from datetime import timedelta

from piecework import CurrentJob, JobId, JobNotFinished, Jobs, Reschedule, new_id

jobs = Jobs()
PATIENCE = timedelta(seconds=60)


@jobs.job
async def count_words(page: str) -> int:
    return len(page.split())


@jobs.job
async def add_up(parts: list[JobId]) -> list[int] | Reschedule:
    # Waiting would take a place among the jobs that run, perhaps the very one that a part needs: come back instead.
    handles = [count_words.handle(part) for part in parts]
    try:
        return [await handle.result(timeout=timedelta(seconds=1)) for handle in handles]
    except JobNotFinished:
        return Reschedule.after(timedelta(seconds=1))


@jobs.job
async def survey(job: CurrentJob, pages: list[str], total_id: JobId) -> None:
    """Spawn a job for each page, and the one that adds up: all of them if this job completes, else none."""
    parts = [count_words.spec(page) for page in pages]
    total = add_up.options(id=total_id).spec([part.id for part in parts])
    async with job.completing() as conn:
        await jobs.spawn_all([*parts, total], conn=conn)


async def main() -> None:
    pages = ["once upon a time", "there was", "a queue that held every job"]
    async with jobs, jobs.worker():
        total_id = new_id()
        await (await survey.spawn(pages, total_id)).result(timeout=PATIENCE)
        print("words per page:", await add_up.handle(total_id).result(timeout=PATIENCE))

        # Where the spawner itself can wait, no second job is needed: results come in the order of the specs.
        handles = await jobs.spawn_all(count_words.spec(page) for page in pages)
        print("and once more:", await handles.results(timeout=PATIENCE))


if __name__ == "__main__":
    asyncio.run(main())
