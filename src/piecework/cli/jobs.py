"""`piecework jobs list`, `show`, `retry` and `cancel`."""

from __future__ import annotations

from collections.abc import Sequence, Set
from datetime import UTC, datetime, timedelta
from uuid import UUID

import click

from piecework.base.errors import JobNotFound
from piecework.cli import parameters
from piecework.cli.database import ask, database_options
from piecework.cli.output import Column, json_option, moment, print_json, print_table, quiet_text, since, span
from piecework.model.explanation import JobExplanation
from piecework.model.snapshot import JobSnapshot, JobStatus
from piecework.store.explaining import explain
from piecework.store.overview import JobFilter, PastAttempt, list_attempts, list_jobs
from piecework.store.store import KeyHeld, Store

_STATUSES: tuple[JobStatus, ...] = ("pending", "running", "completed", "errored", "cancelled")
_WIDE = 200
"""Configs, results and errors are cut after so many characters, except in JSON."""


@click.group("jobs", short_help="Look at single jobs, bring them back, cancel them.")
def command() -> None:
    """Look at single jobs, bring them back, cancel them."""


@command.command("list", short_help="The newest jobs first.")
@click.option("--status", type=click.Choice(_STATUSES), help="Only jobs of this status.")
@click.option("--queue", metavar="NAME", type=parameters.name, help="Only jobs of this queue.")
@click.option("--type", "job_type", metavar="JOB_TYPE", type=parameters.name, help="Only jobs of this type.")
@click.option("--limit", metavar="N", type=click.IntRange(1, 100_000), default=50, show_default=True,
              help="At most so many.")
@json_option
@database_options
def list_command(
    status: JobStatus | None, queue: str | None, job_type: str | None, limit: int, as_json: bool,
    database_url: str | None, schema: str,
) -> None:  # fmt: skip
    """List jobs, the newest first, live and finished.

    \b
    Keys of --json:
      jobs  [{id, job_type, status, queue, priority, attempt, failures, crashes,
            claim_no, worker_id, run_at, created_at, claimed_at, started_at,
            finished_at, tags, config, result, error: null or {type, message,
            traceback}, key, concurrency_key, parked, progress: null or {done,
            note, reported_at}, state}]

    Example: piecework jobs list --status errored --queue reports --limit 10
    """
    which = JobFilter(status=status, queue=queue, job_type=job_type)
    found = ask(database_url, schema, lambda store: list_jobs(store, which, limit))
    if as_json:
        print_json({"jobs": found})
    elif not found:
        click.echo("No such jobs.")
    else:
        columns = [Column(name, whole=True) for name in ("id", "status", "when")]
        print_table([*columns, Column("job type"), Column("note")], [*map(_row, found)])
        if len(found) == limit:
            click.echo(f"The newest {limit}; --limit shows more.", err=True)


def _row(job: JobSnapshot) -> list[str]:
    notes: list[str] = []
    if job.queue != "default":
        notes.append(f"queue {job.queue}")
    if job.key is not None:
        notes.append(f"key {job.key}")
    if job.parked:
        notes.append(f"parked behind {job.concurrency_key}")
    if job.attempt > 1:
        notes.append(f"attempt {job.attempt}")
    if job.error is not None:
        notes.append(f"{job.error.type}: {job.error.message}")
    return [str(job.id), job.status, _when(job), quiet_text(job.job_type), _cut("; ".join(notes))]


def _when(job: JobSnapshot) -> str:
    """Say when it ended, since when it runs, or when it may run."""
    if job.finished_at is not None:
        return since(job.finished_at) + " ago"
    if job.run_at is None:
        return "for " + since(job.claimed_at)
    left = job.run_at - datetime.now(UTC)
    return "in " + span(left) if left > timedelta(0) else "due for " + since(job.run_at)


@command.command("show", short_help="Everything about one job.")
@click.argument("id", type=click.UUID)
@json_option
@database_options
def show_command(id: UUID, as_json: bool, database_url: str | None, schema: str) -> None:
    """Show everything about one job, why it does not run, and how its attempts ended that did not complete it.

    Exit code 1 when there is no such job.

    \b
    Keys of --json:
      job       as in `piecework jobs list --json`
      why       {reason: not_due | no_worker | key_paused | behind_key |
                waiting | running | finished, text, holders, worker_id, id}
      attempts  [{attempt, claim_no, worker_id, ended: retry | reschedule |
                fail | cancel | release | rescue, started_at, ended_at, next_run_at,
                error}]

    Example: piecework jobs show 01970e0c-3f1c-7a7b-b0a4-93d2d3b0f0c7
    """

    async def read(store: Store) -> tuple[JobSnapshot, JobExplanation, list[PastAttempt]]:
        (job,) = await store.load([id])
        why = await explain(store, id)
        if job is None or why is None:
            raise JobNotFound(
                f"there is no job {id} in the schema {schema!r}: it was never spawned there, or is no longer kept"
            )
        return job, why, await list_attempts(store, id)

    job, why, attempts = ask(database_url, schema, read)
    if as_json:
        print_json({"job": job, "why": why, "attempts": attempts})
        return
    for name, text in (*_lines(job), ("why", quiet_text(why.text))):
        click.echo(f"{name:<15} {text}")
    if attempts:
        click.echo()
        names = ("attempt", "claim", "ended", "started", "ended at", "runs again", "error")
        print_table([*map(Column, names)], [*map(_attempt_row, attempts)])


def _lines(job: JobSnapshot) -> Sequence[tuple[str, str]]:
    lines = [
        ("id", str(job.id)), ("job type", quiet_text(job.job_type)), ("status", job.status),
        ("queue", f"{quiet_text(job.queue)}, priority {job.priority}"),
        *([] if job.key is None else [("key", quiet_text(job.key))]),
        *([] if job.concurrency_key is None else [
            ("concurrency key", quiet_text(job.concurrency_key) + (", parked behind it" if job.parked else ""))]),
        ("attempt", f"{job.attempt} ({job.failures} failed, {job.crashes} lost with their worker, "
                    f"claimed {job.claim_no} times)"),
        ("worker", "-" if job.worker_id is None else str(job.worker_id)),
        ("created", moment(job.created_at)), ("run at", moment(job.run_at)), ("started", moment(job.started_at)),
        ("finished", moment(job.finished_at)), ("tags", quiet_text(", ".join(job.tags)) or "-"),
        ("config", _cut(bytes(job.config).decode())),
    ]  # fmt: skip
    if job.progress is not None:
        done = "" if job.progress.done is None else f"{job.progress.done:g} "
        lines.append(("progress", f"{done}{_cut(job.progress.note)} ({since(job.progress.reported_at)} ago)".strip()))
    if job.state is not None:
        lines.append(("state", _cut(bytes(job.state).decode())))
    if job.result is not None:
        lines.append(("result", _cut(bytes(job.result).decode())))
    if job.error is not None:
        lines.append(("error", _cut(f"{job.error.type}: {job.error.message}")))
    return lines


def _attempt_row(attempt: PastAttempt) -> list[str]:
    error = "" if attempt.error is None else _cut(f"{attempt.error.type}: {attempt.error.message}")
    return [
        str(attempt.attempt), str(attempt.claim_no), attempt.ended, moment(attempt.started_at),
        moment(attempt.ended_at), moment(attempt.next_run_at), error,
    ]  # fmt: skip


def _cut(text: str) -> str:
    line = quiet_text(text)
    return line if len(line) <= _WIDE else line[:_WIDE] + "…"


@command.command("retry", short_help="Run finished jobs once more.")
@click.argument("ids", metavar="ID...", type=click.UUID, nargs=-1, required=True)
@json_option
@database_options
def retry_command(ids: tuple[UUID, ...], as_json: bool, database_url: str | None, schema: str) -> None:
    """Bring jobs back that ended, with the same config, due now, their attempts counted anew.

    \b
    Each job is answered:
      retried  it is pending again
      live     it has not ended, so it will run anyway
      held     a live job of its type has its key, so it stays as it is
      unknown  there is no such job, or its config is no longer kept
    Exit code 1 unless all are retried. Keys of --json: answers [{id, answer, holder}].

    Example: piecework jobs retry 01970e0c-3f1c-7a7b-b0a4-93d2d3b0f0c7
    """
    given = ask(database_url, schema, lambda store: store.retry(ids))
    holders = [answer.holder if isinstance(answer, KeyHeld) else None for answer in given]
    answers = ["held" if isinstance(answer, KeyHeld) else answer for answer in given]
    _answer(ids, answers, {"retried"}, as_json, holders)


@command.command("cancel", short_help="End jobs, also those that run.")
@click.argument("ids", metavar="ID...", type=click.UUID, nargs=-1, required=True)
@json_option
@database_options
def cancel_command(ids: tuple[UUID, ...], as_json: bool, database_url: str | None, schema: str) -> None:
    """End jobs as cancelled. Of those that run it is requested; this does not wait.

    \b
    Each job is answered:
      cancelled  it will not run
      requested  a worker runs it and is told: it ends cancelled, unless it
                 completes all the same. A plain function cannot be stopped, it
                 has to look at job.cancel_requested
      finished   it had ended before
      unknown    there is no such job, or it is no longer kept
    Exit code 1 unless all are cancelled or requested. Keys of --json: answers [{id, answer}].

    Example: piecework jobs cancel 01970e0c-3f1c-7a7b-b0a4-93d2d3b0f0c7
    """
    _answer(ids, ask(database_url, schema, lambda store: store.cancel(ids)), {"cancelled", "requested"}, as_json)


_MEANINGS = {
    "live": "it has not ended, so it will run anyway",
    "requested": "a worker runs it and is told: it ends cancelled, unless it completes all the same",
    "finished": "it had ended before",
    "held": "a live job of its type has its key, so it stays as it is",
    "unknown": "there is no such job, or it is no longer kept",
}


def _answer(
    ids: Sequence[UUID], answers: Sequence[str], good: Set[str], as_json: bool, holders: Sequence[UUID | None] = ()
) -> None:
    if as_json:
        rows: list[dict[str, object]] = [{"id": id, "answer": each} for id, each in zip(ids, answers, strict=True)]
        for row, holder in zip(rows, holders, strict=False):
            row["holder"] = holder
        print_json({"answers": rows})
    else:
        for id, answer in zip(ids, answers, strict=True):
            click.echo(f"{id}  {answer}" + (f": {_MEANINGS[answer]}" if answer in _MEANINGS else ""))
    if any(answer not in good for answer in answers):
        raise click.exceptions.Exit(1)
