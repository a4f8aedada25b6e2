"""The primary is lost under load and its standby is promoted: what is lost, what is not, and how soon work goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from engine.helpers import query

from failover.cluster import Cluster, Distant
from failover.load import SCHEMA, under_load
from piecework import JobFunction, Jobs
from piecework.testing.history import Terms, check

pytestmark = [pytest.mark.failover, pytest.mark.timeout(400)]
NAPS = 20


async def test_a_planned_switchover_loses_and_doubles_nothing(cluster: Cluster, tmp_path: Path) -> None:
    async with under_load(cluster.dsn, cluster.ways, tmp_path) as trial:
        await trial.through(await cluster.switch_over())
        report, _ = await trial.verdict("planned switchover")
    assert report.violations == []


async def test_of_what_an_asynchronous_standby_had_not_heard_every_job_is_named_and_all_else_holds(
    cluster: Cluster, tmp_path: Path
) -> None:
    async with under_load(cluster.dsn, cluster.ways, tmp_path) as trial:
        trial.spawn_naps(NAPS, 0.5)  # they return in the second that is forgotten
        await trial.through(await cluster.lose_behind_the_standbys_back())
        report, _ = await trial.verdict("primary killed, asynchronous standby 1 s behind")
        assert report.violations == []
        assert report.forgotten
        assert report.repeated
        # Nobody told the checker that something may be forgotten: then all of it is a violation, job by job.
        strict = await trial.judged_without_mercy()
    assert strict.counts["lost"] >= len(report.forgotten)
    lost = {violation.job_ids[0] for violation in strict.violations if violation.rule == "lost"}
    assert lost & set(report.forgotten)
    there = {str(id) for [id] in query(cluster.standby.dsn, EVERY_JOB)}
    assert not there & set(report.forgotten)
    assert there >= set(report.repeated)


EVERY_JOB = f"SELECT id FROM {SCHEMA}.jobs UNION ALL SELECT id FROM {SCHEMA}.finished_jobs"


async def test_with_a_synchronous_standby_nothing_is_lost(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.have_commits_wait_for_the_standby()
    async with under_load(cluster.dsn, cluster.ways, tmp_path) as trial:
        trial.spawn_naps(NAPS, 0.5)
        switch = await cluster.lose_behind_the_standbys_back()
        await trial.through(switch._replace(forgotten=None))
        report, _ = await trial.verdict("primary killed, synchronous standby")
    assert report.violations == []


async def test_a_machine_that_falls_silent_is_passed_over(
    make_cluster: Callable[..., Distant], tmp_path: Path
) -> None:
    cluster = make_cluster(Distant)
    async with under_load(cluster.dsn, cluster.ways, tmp_path, lease=60.0) as trial:
        await trial.through(await cluster.fall_silent(known_after=6.0, promoted_after=12.0))
        report, _ = await trial.verdict("the primary's machine falls silent")
    assert report.violations == []


def with_note(dsn: str) -> tuple[Jobs, JobFunction]:
    jobs = Jobs(dsn, schema=SCHEMA)

    @jobs.job
    async def note() -> None: ...

    return jobs, note


async def test_an_old_primary_that_is_back_by_mistake_gets_whoever_connects_anew_and_what_it_is_given_is_lost_with_it(
    cluster: Cluster,
) -> None:
    (open_before, note), (opened_anew, also_note) = with_note(cluster.dsn), with_note(cluster.dsn)
    async with open_before:
        await note.spawn()
        await cluster.caught_up()
        await asyncio.to_thread(cluster.kill_primary)
        await asyncio.to_thread(cluster.promote)
        after = await note.spawn()
        await asyncio.to_thread(cluster.primary.start)  # nobody has made a standby of it
        same_connection = await note.spawn()
        async with opened_anew:
            astray = await also_note.spawn()
    accepted = {str(handle.id): time.time() for handle in (after, same_connection, astray)}
    report = await check(cluster.standby.dsn, schema=SCHEMA, terms=Terms(live=True, accepted=accepted))
    assert [violation.job_ids for violation in report.violations] == [(str(astray.id),)]
    assert dict(report.counts) == {"lost": 1}
