"""The demo's verdict: what must hold of the database, the ledger and the tree together. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from piecework.base.ids import JobId
from piecework.cli.demo.ledger import Run
from piecework.cli.demo.measure import Measure
from piecework.cli.demo.tree import Planned
from piecework.model.snapshot import JobStatus


@dataclass(frozen=True, slots=True)
class JobRow:
    """What the database says of a job in the end."""

    id: JobId
    status: JobStatus
    claim_no: int
    failures: int
    result: Measure | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is known after the demo."""

    spawned: Mapping[JobId, Planned]
    rows: Sequence[JobRow]
    runs: Sequence[Run]
    killed_pid: int | None
    killed_at: int
    """When the killed process was gone, by the clock of the runs."""
    recount: Mapping[str, Measure]
    """Fresh counts of the tree, by path."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that must hold, whether it does, and the figures."""

    name: str
    holds: bool
    figures: str


def check(evidence: Evidence) -> list[Finding]:
    """Judge the demo."""
    by_job: dict[JobId, list[Run]] = defaultdict(list)
    for run in sorted(evidence.runs, key=lambda run: (run.start, run.claim_no)):
        by_job[run.job_id].append(run)
    return [
        _all_completed(evidence),
        _nothing_lost(evidence, by_job),
        _no_overlap(evidence, by_job),
        _claims_rise(by_job),
        _finished_once(evidence, by_job),
        _rescued(evidence, by_job),
        _retried(evidence, by_job),
        _results_right(evidence),
    ]


def _all_completed(evidence: Evidence) -> Finding:
    statuses = Counter(row.status for row in evidence.rows)
    spawned, completed = len(evidence.spawned), statuses["completed"]
    others = ", ".join(f"{statuses[status]:,} {status}" for status in ("pending", "running", "errored", "cancelled"))
    holds = bool(spawned) and completed == spawned == len(evidence.rows)
    return Finding("every job completed", holds, f"{spawned:,} spawned = {completed:,} completed; {others}")


def _nothing_lost(evidence: Evidence, by_job: Mapping[JobId, Sequence[Run]]) -> Finding:
    rows = Counter(row.id for row in evidence.rows)
    missing = len(evidence.spawned.keys() - rows.keys())
    unknown = len((rows.keys() | by_job.keys()) - evidence.spawned.keys())
    doubled = sum(count > 1 for count in rows.values())
    unseen = sum(_final_run(row, by_job) is None for row in evidence.rows if row.status == "completed")
    figures = (
        f"{missing:,} jobs without a row, {doubled:,} with two, {unknown:,} that nobody spawned, {unseen:,} completed "
        "without a run that ended"
    )
    return Finding("nothing lost, nothing invented", not (missing or unknown or doubled or unseen), figures)


def _no_overlap(evidence: Evidence, by_job: Mapping[JobId, Sequence[Run]]) -> Finding:
    """No two runs of a job overlap. The kill is the end of the runs that it cut; nobody else may leave one open."""
    cut = [run for run in evidence.runs if run.end is None]
    stray = sum(run.pid != evidence.killed_pid for run in cut)

    def end(run: Run) -> int:
        return evidence.killed_at if run.end is None else run.end

    overlaps = sum(end(earlier) > later.start for runs in by_job.values() for earlier, later in pairwise(runs))
    figures = (
        f"{len(evidence.runs):,} runs, {overlaps:,} overlap another of their job; {len(cut) - stray:,} cut by the "
        f"kill, {stray:,} have no end for another reason"
    )
    return Finding("no job ran twice at once", not (overlaps or stray), figures)


def _claims_rise(by_job: Mapping[JobId, Sequence[Run]]) -> Finding:
    wrong = sum(earlier.claim_no >= later.claim_no for runs in by_job.values() for earlier, later in pairwise(runs))
    highest = max((runs[-1].claim_no for runs in by_job.values()), default=0)
    figures = f"{wrong:,} runs without a higher claim number than the run before; the highest is {highest}"
    return Finding("each run has a claim of its own", wrong == 0, figures)


def _finished_once(evidence: Evidence, by_job: Mapping[JobId, Sequence[Run]]) -> Finding:
    """A body may end twice only where the kill came between its end and the settle."""
    again, forgiven = 0, 0
    for runs in by_job.values():
        done = [run for run in runs if run.outcome == "done"]
        elsewhere = [run for run in done if run.pid != evidence.killed_pid]
        again += max(len(elsewhere), 1) - 1
        in_killed = len(done) - len(elsewhere)
        again += max(in_killed, 1) - 1
        forgiven += bool(in_killed and elsewhere)
    figures = f"{again:,} bodies ended well twice, besides {forgiven:,} whose end the kill kept from the database"
    return Finding("no job was done twice", again == 0, figures)


def _rescued(evidence: Evidence, by_job: Mapping[JobId, Sequence[Run]]) -> Finding:
    if evidence.killed_pid is None:
        return Finding("the killed worker's jobs were rescued", False, "no worker was killed")
    rows = {row.id: row for row in evidence.rows}
    lost, rescued = 0, 0
    for run in evidence.runs:
        if run.pid == evidence.killed_pid and run.outcome != "failed":
            row = rows.get(run.job_id)
            final = None if row is None or row.status != "completed" else _final_run(row, by_job)
            if final != run:
                lost += 1
                rescued += final is not None and final.pid != run.pid and final.claim_no > run.claim_no
    figures = f"{lost:,} runs lost by the kill, {rescued:,} of their jobs done elsewhere with a higher claim number"
    return Finding("the killed worker's jobs were rescued", 0 < rescued == lost, figures)


def _retried(evidence: Evidence, by_job: Mapping[JobId, Sequence[Run]]) -> Finding:
    rows = {row.id: row for row in evidence.rows}
    chosen = [id for id, planned in evidence.spawned.items() if planned.failures]
    retried = sum(
        id in rows and rows[id].status == "completed" and rows[id].failures >= evidence.spawned[id].failures
        for id in chosen
    )
    failed = [run for runs in by_job.values() for run in runs if run.outcome == "failed"]
    unplanned = sum(run.job_id in evidence.spawned and not evidence.spawned[run.job_id].failures for run in failed)
    figures = (
        f"{len(chosen):,} jobs failed on purpose, {retried:,} of them completed after it; {len(failed):,} failed runs, "
        f"{unplanned:,} not on purpose"
    )
    holds = 0 < len(chosen) == retried and unplanned == 0
    return Finding("failures were tried again", holds, figures)


def _results_right(evidence: Evidence) -> Finding:
    results = {row.id: row.result for row in evidence.rows}
    wrong = [
        planned.path
        for id, planned in evidence.spawned.items()
        if results.get(id) is None or results[id] != evidence.recount.get(planned.path)
    ]
    figures = f"{len(evidence.recount):,} files counted again, {len(wrong):,} differ"
    if wrong:
        figures += f", {wrong[0]!r} for one (did the tree change meanwhile?)"
    return Finding("the results are right", not wrong, figures)


def _final_run(row: JobRow, by_job: Mapping[JobId, Sequence[Run]]) -> Run | None:
    """Return the run of the claim that completed the job."""
    for run in by_job.get(row.id, ()):
        if run.claim_no == row.claim_no and run.outcome == "done":
            return run
    return None
