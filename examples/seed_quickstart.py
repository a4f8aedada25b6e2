"""The basic example of the Rust crate `job`, step by step, with piecework's classes.

Run it: python examples/seed_quickstart.py
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from piecework import CurrentJob, JobAlreadyExists, JobCompletion, JobInitializer, JobRunner, Jobs, new_id


# What a job is told. It is stored as JSON, so it is a plain value: here a dataclass.
@dataclass
class MyJobConfig:
    delay_ms: int


# What builds a runner for every attempt. Its config and its result are the types in the brackets.
class MyJobInitializer(JobInitializer[MyJobConfig, None]):
    # The name under which the jobs are stored, and by which a worker finds this class.
    job_type = "my_job"

    # The config has been decoded, and checked, when this is called.
    def init(self, job: CurrentJob[MyJobConfig]) -> "MyJobRunner":
        return MyJobRunner(job.config)


class MyJobRunner(JobRunner[MyJobConfig, None]):
    def __init__(self, config: MyJobConfig) -> None:
        self.config = config

    async def run(self, job: CurrentJob[MyJobConfig]) -> JobCompletion[None]:
        # Something that takes its time.
        await asyncio.sleep(self.config.delay_ms / 1000)
        print("Job completed!")

        # Returning completes the job; what is returned would be its result.
        return None


async def main() -> None:
    # The service. Without a database URL, here or in PIECEWORK_DATABASE_URL, it brings a PostgreSQL of its own. If you
    # have a psycopg pool already: Jobs(pool=pool).
    jobs = Jobs()

    # Make the job type known. What comes back spawns its jobs, and takes a MyJobConfig and nothing else.
    my_job = jobs.add(MyJobInitializer())

    # Open the service, which migrates the database, and start to work. Types may still be added afterwards.
    async with jobs, jobs.worker():
        # Spawn a job, under an id that we choose.
        job_id = new_id()
        handle = await my_job.options(id=job_id).spawn(MyJobConfig(delay_ms=1000))

        # Was that spawn committed before the connection broke? Then the same id may be spawned again without fear.
        try:
            await my_job.options(id=job_id).spawn(MyJobConfig(delay_ms=1000))
        except JobAlreadyExists:
            print("Spawned once, however often we try.")

        # Do something else; here there is nothing else to do, so wait.
        await handle.wait(timeout=timedelta(seconds=60))

        # Has it completed?
        job = await jobs.find(job_id)
        assert job is not None
        assert job.completed


if __name__ == "__main__":
    asyncio.run(main())
