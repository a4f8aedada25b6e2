"""What the log says of the ends of jobs."""

from __future__ import annotations

import logging
from datetime import timedelta

from piecework.engine.facts import attempt_of, facts_of, failure_facts
from piecework.model.job import ClaimedJob
from piecework.model.settlement import Settlement

log = logging.getLogger("piecework.job")


def failed(settlement: Settlement, worker_id: str) -> None:
    job, error = settlement.job, settlement.error
    assert error is not None
    delay = settlement.delay or timedelta(0)
    after = f"again in {delay.total_seconds():.1f} s" if settlement.will_retry else "no attempt is left"
    log.log(
        settlement.level, "job %s (%s) failed in attempt %d: %s: %s; %s",
        job.id, job.job_type, attempt_of(settlement), error.type, error.message, after,
        extra=failure_facts(settlement, worker_id),
    )  # fmt: skip


def lost(settlement: Settlement, worker_id: str) -> None:
    job = settlement.job
    log.warning(
        "job %s (%s): its claim %d was lost, its end (%s) changed nothing",
        job.id, job.job_type, job.claim_no, settlement.move, extra=facts_of(job, worker_id),
    )  # fmt: skip


def surplus(settlement: Settlement, worker_id: str) -> None:
    job = settlement.job
    log.warning(
        "job %s (%s) %s after its completion was committed: that stays, and nothing else is stored",
        job.id, job.job_type, settlement.surplus, extra=facts_of(job, worker_id),
    )  # fmt: skip


def unsettled(job: ClaimedJob, worker_id: str) -> None:
    log.warning(
        "job %s (%s) has returned, and the transaction in which it completed is still open, or the database is away: "
        "its capacity stays taken until that is known",
        job.id, job.job_type, extra=facts_of(job, worker_id),
    )  # fmt: skip


def left_behind(job: ClaimedJob, worker_id: str) -> None:
    log.warning(
        "job %s (%s) ended after its worker had closed: it will run again",
        job.id, job.job_type, extra=facts_of(job, worker_id),
    )  # fmt: skip


def to_be_cancelled(job: ClaimedJob) -> None:
    log.info("job %s (%s) is to be cancelled", job.id, job.job_type, extra=facts_of(job))
