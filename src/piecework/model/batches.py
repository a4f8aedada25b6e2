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
    open_ones: list[tuple[list[ClaimedJob], set[tuple[str, str]]]] = []
    for job in sorted(jobs, key=_order):
        key = None if job.concurrency_key is None else (job.queue, job.concurrency_key)
        if job.attempt > 1:
            batches.append([job])
            continue
        place = next((each for each in open_ones if key is None or key not in each[1]), None)
        if place is None:
            place = ([], set[tuple[str, str]]())
            open_ones.append(place)
            batches.append(place[0])
        place[0].append(job)
        if key is not None:
            place[1].add(key)
        if len(place[0]) >= most:
            open_ones.remove(place)
    return batches


def _order(job: ClaimedJob) -> tuple[bool, str, str, str]:
    return job.concurrency_key is None, job.concurrency_key or "", job.queue, job.id
