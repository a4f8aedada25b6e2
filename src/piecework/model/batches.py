"""Which claimed jobs of one type run together."""

from __future__ import annotations

from collections.abc import Sequence

from piecework.model.job import ClaimedJob


def form_batches(jobs: Sequence[ClaimedJob], most: int) -> list[list[ClaimedJob]]:
    """Divide jobs of one type, as one claim took them, into batches of at most `most`.

    No two jobs of one concurrency key are in one batch. A job whose earlier attempt has failed is alone: should it be
    the one that makes its batch fail, it does so to the others once. Jobs stand in the order of their concurrency keys,
    then those without in the order of their ids: so batches that run side by side touch what belongs to the keys in one
    order.
    """
    batches: list[list[ClaimedJob]] = []
    filling: list[tuple[list[ClaimedJob], set[tuple[str, str]]]] = []
    for job in sorted(jobs, key=_order):
        key = None if job.concurrency_key is None else (job.queue, job.concurrency_key)
        if job.attempt > 1:
            batches.append([job])
            continue
        at = next((at for at, (_, keys) in enumerate(filling) if key is None or key not in keys), len(filling))
        if at == len(filling):
            filling.append(([], set()))
            batches.append(filling[at][0])
        batch, keys = filling[at]
        batch.append(job)
        if key is not None:
            keys.add(key)
        if len(batch) >= most:
            del filling[at]
    return batches


def _order(job: ClaimedJob) -> tuple[bool, str, str, str]:
    return job.concurrency_key is None, job.concurrency_key or "", job.queue, job.id
