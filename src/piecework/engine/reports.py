"""What the log says of the ends of jobs, and of those that do not end."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta

from piecework.base.texts import quiet_text
from piecework.engine.facts import attempt_of, facts_of, failure_facts
from piecework.engine.held import Held
from piecework.engine.tracing import RunTrace
from piecework.model.job import ClaimedJob
from piecework.model.settlement import Settlement
from piecework.store.settling import Answer

log = logging.getLogger("piecework.job")
_log = logging.getLogger("piecework.worker")


def failed(settlement: Settlement, worker_id: str, trace: RunTrace | None) -> None:
    if trace is None:
        _failed(settlement, worker_id)
    else:
        trace.context.run(_failed, settlement, worker_id)


def _failed(settlement: Settlement, worker_id: str) -> None:
    job, error = settlement.job, settlement.error
    assert error is not None
    delay = settlement.delay or timedelta(0)
    after = f"again in {delay.total_seconds():.1f} s" if settlement.will_retry else "no attempt is left"
    log.log(
        settlement.level, "job %s (%s) failed in attempt %d: %s: %s; %s",
        job.id, job.job_type, attempt_of(settlement), quiet_text(error.type), quiet_text(error.message), after,
        extra=failure_facts(settlement, worker_id),
    )  # fmt: skip


def lost(settlement: Settlement, worker_id: str) -> None:
    job = settlement.job
    log.warning(
        "job %s (%s): its claim %d was lost, its end (%s) changed nothing",
        job.id, job.job_type, job.claim_no, settlement.move, extra=facts_of(job, worker_id),
    )  # fmt: skip


def standing(settlement: Settlement, answer: Answer, worker_id: str) -> Settlement:
    """Return how the job has ended: as its run ended it in a transaction, where that was committed."""
    if settlement.sent is None or answer != "landed before":
        return settlement
    if settlement.surplus:
        job = settlement.job
        log.warning(
            "job %s (%s) %s after its completion was committed: that stays, and nothing else is stored",
            job.id, job.job_type, settlement.surplus, extra=facts_of(job, worker_id),
        )  # fmt: skip
    return settlement.sent


def unsettled(claim: Held, held: Mapping[str, Held]) -> None:
    """Name a claim if it is held still."""
    job = claim.job
    if held.get(job.id) is not claim:
        return
    log.warning(
        "job %s (%s) has returned, and the transaction in which it completed is still open, or the database is away: "
        "its capacity stays taken until that is known",
        job.id, job.job_type, extra=facts_of(job, claim.worker_id),
    )  # fmt: skip


def left_behind(job: ClaimedJob, worker_id: str) -> None:
    log.warning(
        "job %s (%s) ended after its worker had closed: it will run again",
        job.id, job.job_type, extra=facts_of(job, worker_id),
    )  # fmt: skip


def to_be_cancelled(job: ClaimedJob) -> None:
    log.info("job %s (%s) is to be cancelled", job.id, job.job_type, extra=facts_of(job))


def waited_for(running: Sequence[Held]) -> None:
    for held in running:
        why = "runs in a thread, which cannot be stopped" if held.in_thread else "ignores that it was cancelled"
        _log.warning(
            "job %s (%s) %s: waiting for it", held.job.id, held.job.job_type, why, extra=facts_of(held.job)
        )  # fmt: skip


def not_stopped(worker_id: str, running: Sequence[Held], *, ends: bool) -> None:
    _log.critical(
        "worker %s could not stop %d runs, which others may start now%s: %s",
        worker_id, len(running), ", its process ends" if ends else "",
        ", ".join(f"{held.job.job_type} {held.job.id}" for held in running),
    )  # fmt: skip
