"""What log records and spans say of a job, under one name for each fact."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from piecework.model.job import ClaimedJob
from piecework.model.settlement import Settlement

Facts: TypeAlias = dict[str, str | int | bool]
_MOST_NAMED = 20


def facts_of(job: ClaimedJob, worker_id: str = "") -> Facts:
    """Return which attempt of which job this is, and, where it is known, in which worker."""
    facts: Facts = {"job_id": job.id, "job_type": job.job_type, "attempt": job.attempt, "queue": job.queue}
    if worker_id:
        facts["worker_id"] = worker_id
    return facts


def failure_facts(settlement: Settlement, worker_id: str = "") -> Facts:
    """Return what there is to say of a failed attempt."""
    job, error = settlement.job, settlement.error
    assert error is not None
    facts = facts_of(job, worker_id)
    facts["attempt"] = attempt_of(settlement)
    facts["failures"] = settlement.failures
    facts["will_retry"] = settlement.will_retry
    # A boolean: backends take it as one, and drop a text (whose name is exception.message).
    facts["error"] = True
    facts["error.type"] = facts["exception.type"] = error.type
    facts["error.message"] = facts["exception.message"] = error.message
    facts["error.level"] = "WARN" if settlement.level < logging.ERROR else "ERROR"
    if settlement.will_retry:
        delay = settlement.delay or timedelta(0)
        facts["retry_delay_ms"] = delay // timedelta(milliseconds=1)
        facts["next_run_at"] = (datetime.now(UTC) + delay).isoformat()
        facts["attempt_reset"] = settlement.attempt <= job.attempt
    return facts


def attempt_of(settlement: Settlement) -> int:
    """Return the number of the attempt that ended; of a claim that was refused that of the last one that ran."""
    return settlement.attempt if settlement.move == "fail" else settlement.job.attempt


def listed(jobs: Sequence[tuple[str, str]]) -> str:
    """Name jobs, given by id and job type, for a line of the log."""
    named = ", ".join(f"{job_type} {id}" for id, job_type in jobs[:_MOST_NAMED])
    if not jobs:
        return "none"
    return f"{named} and {len(jobs) - _MOST_NAMED} more" if len(jobs) > _MOST_NAMED else named
