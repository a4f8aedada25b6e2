"""`synchronous_commit` is the server's, unless the DSN says otherwise: then it holds for all that is written by it."""

from __future__ import annotations

import psycopg
import pytest
from engine.helpers import SOON, query
from psycopg.conninfo import make_conninfo

from piecework import CurrentJob, Jobs, Reschedule

OFF = "-c synchronous_commit=off"


@pytest.fixture
def watched(dsn: str) -> str:
    """A database whose tables note with which setting they were written to."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("CREATE TABLE public.notes (written text, setting text)")
        admin.execute(
            "CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.notes "
            "VALUES (TG_TABLE_NAME || ' ' || TG_OP, current_setting('synchronous_commit')); RETURN NULL; END $$"
        )
        for table in ("jobs", "finished_jobs", "workers", "execution_states"):
            admin.execute(
                f"CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON piecework.{table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION public.note()"
            )
    return dsn


async def a_life(dsn: str) -> None:
    """Spawn one by one, at once and in a block; claim, save, settle, complete in a transaction; come and go."""
    async with Jobs(dsn) as jobs:

        @jobs.job
        async def work(job: CurrentJob, number: int) -> Reschedule | None:
            if number > 0:
                return None
            await job.save_state(number)
            return Reschedule.now() if job.claim_no == 1 else None

        @jobs.job
        async def complete(job: CurrentJob) -> None:
            async with job.completing():
                pass

        async with jobs.worker():
            single = await work.spawn(0)
            many = await jobs.spawn_all([*(work.spec(n) for n in range(1, 1100)), complete.spec()])
            await single.result(timeout=SOON)
            await many.results(timeout=SOON)


@pytest.mark.parametrize(("options", "setting"), [(None, "on"), (OFF, "off")])
async def test_what_the_dsn_says_of_synchronous_commit_holds_for_spawns_and_workers(
    watched: str, options: str | None, setting: str
) -> None:
    await a_life(watched if options is None else make_conninfo(watched, options=options))
    written = query(watched, "SELECT DISTINCT written, setting FROM public.notes")
    assert {
        "jobs INSERT", "jobs UPDATE", "jobs DELETE", "finished_jobs INSERT", "execution_states INSERT",
        "workers INSERT",
    } <= {what for what, _ in written}  # fmt: skip
    assert {how for _, how in written} == {setting}
