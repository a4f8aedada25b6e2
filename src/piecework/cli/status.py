"""`piecework status`."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime, timedelta

import click

from piecework.cli.database import database_options, opened
from piecework.cli.diagnosis import CLEAR_CLOCK
from piecework.cli.horizon_report import print_horizon
from piecework.cli.output import Column, json_option, moment, print_json, print_table, quiet_text, since, span
from piecework.cli.parameters import a_number
from piecework.cli.status_report import STATUSES, KindReport, Report, RunningReport, WorkerReport, read_report

_MOST_STUCK = 20


@click.command("status", short_help="How many jobs of each kind there are, who works, and what is stuck.")
@json_option
@click.option("--running", "most", metavar="N", type=click.IntRange(0, 1000), default=10, show_default=True,
              help="Show at most N of the jobs that run, longest first.")
@click.option("--long", "long", metavar="SECONDS", type=click.FloatRange(0, 1e9), callback=a_number, default=3600,
              show_default=True, help="A run without a timeout that lasts longer counts as stuck.")
@click.option("--watch", metavar="SECONDS", type=click.FloatRange(1, 86_400), callback=a_number,
              help="Show it again every so often.")
@database_options
def command(
    as_json: bool, most: int, long: float, watch: float | None, database_url: str | None, schema: str
) -> None:  # fmt: skip
    """Show how many jobs of each kind there are, which workers work, what they run, and what is stuck.

    Finished jobs count as long as they are kept. Ages go by the database's clock.

    \b
    Keys of --json:
      schema
      manual_clock  null, or the moment at which due times stand: for tests only
      totals    {pending, running, completed, errored, cancelled}
      jobs      [{queue, job_type, counts: as totals, oldest_due}]
      queues    [{queue, pending, running, oldest_due}]
      attempts  {retry, reschedule, fail, cancel, release, rescue}, if any
      rescues   {last_hour, last_day}
      lost_settles  by the workers listed; such a settle changed nothing
      claims    {calls, jobs, seconds_per_job, worst_seconds, slow: those that
                took longer than 0.1 s, slow_lanes: [{queue, job_type,
                priority, passed, seconds}], where claims start at a cursor},
                of the workers listed
      horizon   null: no worker has looked yet; else {sampled_at, dead_rows,
                dead_rows_of_keys, vacuumed_seconds, dead_rows_per_second,
                claim_seconds, doubled_in_seconds, tenfold_in_seconds,
                sees_all, culprit: null | {kind, name, pid, role, state,
                query, seconds, text, advice}}
      workers   [{id, host, pid, queues, job_types, version, state: working |
                idle | draining | late | silent, running, started_at,
                last_beat_seconds, lease_seconds, stop_seconds, exit_seconds,
                lost_settles, stops}]
                late: it has stopped its runs; silent: it is rescued
      running   [{id, job_type, queue, attempt, worker_id, host, pid,
                claimed_at, seconds, timeout_seconds}], longest first
      stuck     [{kind: silent | ownerless | overdue | long |
                queue_without_worker | type_without_worker, subject, text}]

    Example: piecework status --json | jq .totals.pending
    """

    async def show() -> None:
        async with opened(database_url, schema) as database:
            while True:
                report = await read_report(database.store, most, timedelta(seconds=long))
                if watch is not None and not as_json and sys.stdout.isatty():
                    click.clear()
                _show(report, as_json)
                if watch is None:
                    return
                await asyncio.sleep(watch)

    asyncio.run(show())


def _show(report: Report, as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    for part in (_print_clock, _print_jobs, _print_workers, _print_running, _print_horizon, _print_stuck):
        part(report)
    sys.stdout.flush()


def _print_clock(report: Report) -> None:
    if report["manual_clock"] is not None:
        stands = f"WARNING: a manual clock is set: jobs are due as of {moment(report['manual_clock'])}"
        click.secho(click.wrap_text(f"{stands}, and that stands still. {CLEAR_CLOCK}", 80), fg="red")
        click.echo()


def _print_jobs(report: Report) -> None:
    if not report["jobs"]:
        click.echo("There are no jobs yet.")
        return
    numbers = [Column(status, right=True) for status in STATUSES]
    rows = [_job_row(kind, report["manual_clock"]) for kind in report["jobs"]]
    print_table([Column("queue"), Column("job type"), *numbers, Column("due for")], rows)
    now = report["manual_clock"]
    due = [f"{quiet_text(q['queue'])} {since(q['oldest_due'], now)}" for q in report["queues"] if q["oldest_due"]]
    if due:
        click.echo(f"\nOldest due job of each queue: {', '.join(due)}")


def _job_row(kind: KindReport, now: datetime | None) -> list[str]:
    numbers = [str(kind["counts"][status]) for status in STATUSES]
    return [quiet_text(kind["queue"]), quiet_text(kind["job_type"]), *numbers, since(kind["oldest_due"], now)]


def _print_workers(report: Report) -> None:
    click.echo()
    if not report["workers"]:
        click.echo("No worker is running: start one with `piecework worker MODULE:JOBS`.")
    else:
        columns = [Column("worker", whole=True), Column("state", whole=True), Column("running", right=True, whole=True)]
        columns += [Column("beat/lease", whole=True), Column("lost", right=True, whole=True), Column("queues")]
        print_table(columns, [*map(_worker_row, report["workers"])])
    rescues = report["rescues"]
    if rescues["last_day"] or report["lost_settles"]:
        click.echo(
            f"\nRescued jobs: {rescues['last_hour']} in the last hour, {rescues['last_day']} in the last day. "
            f"Lost settles: {report['lost_settles']}."
        )


def _worker_row(worker: WorkerReport) -> list[str]:
    return [
        f"{quiet_text(worker['host'])} pid {worker['pid']}", worker["state"], str(worker["running"]),
        f"{worker['last_beat_seconds']:.1f}/{worker['lease_seconds']:g} s", str(worker["lost_settles"]),
        quiet_text(", ".join(worker["queues"])),
    ]  # fmt: skip


def _print_running(report: Report) -> None:
    if report["running"]:
        click.echo()
        columns = [Column("running job", whole=True), Column("job type"), Column("worker")]
        columns += [Column("attempt", right=True), Column("for", whole=True)]
        print_table(columns, [*map(_running_row, report["running"])])
        if (more := report["totals"]["running"] - len(report["running"])) > 0:
            click.echo(f"and {more} more, which began later")


def _running_row(job: RunningReport) -> list[str]:
    where = "gone" if job["host"] is None else f"{quiet_text(job['host'])} pid {job['pid']}"
    lasts = span(timedelta(seconds=job["seconds"]))
    return [job["id"], quiet_text(job["job_type"]), where, str(job["attempt"]), lasts]


def _print_horizon(report: Report) -> None:
    print_horizon(report["horizon"], report["claims"])


def _print_stuck(report: Report) -> None:
    if report["stuck"]:
        click.echo("\nStuck:")
    for each in report["stuck"][:_MOST_STUCK]:
        click.echo(click.wrap_text(quiet_text(each["text"]), 80, "- ", "  "))
    if (more := len(report["stuck"]) - _MOST_STUCK) > 0:
        click.echo(f"- and {more} more: see --json")
