"""Which claimed jobs run together."""

from __future__ import annotations

import msgspec

from piecework.model.batches import form_batches
from piecework.model.job import ClaimedJob


def job(id: str, *, key: str | None = None, attempt: int = 1, queue: str = "default") -> ClaimedJob:
    return ClaimedJob(id, 1, "work", queue, 0, 0, attempt, attempt - 1, 0, msgspec.Raw(b"{}"), key)


def formed(jobs: list[ClaimedJob], most: int) -> list[list[str]]:
    return [[each.id for each in batch] for batch in form_batches(jobs, most)]


def test_no_batch_is_larger_than_the_most() -> None:
    assert formed([job(id) for id in "gfedcba"], 3) == [["a", "b", "c"], ["d", "e", "f"], ["g"]]


def test_a_retry_is_alone() -> None:
    assert formed([job("a"), job("b", attempt=2), job("c"), job("d", attempt=7)], 10) == [["a", "c"], ["b"], ["d"]]


def test_jobs_of_one_concurrency_key_are_in_batches_of_their_own() -> None:
    jobs = [job("a", key="x"), job("b", key="x"), job("c", key="y"), job("d", key="x"), job("e")]
    assert formed(jobs, 10) == [["a", "c", "e"], ["b"], ["d"]]


def test_a_concurrency_key_of_another_queue_is_another_key() -> None:
    assert formed([job("a", key="x"), job("b", key="x", queue="other")], 10) == [["a", "b"]]


def test_jobs_stand_in_the_order_of_their_keys_and_then_of_their_ids() -> None:
    jobs = [job("e"), job("d"), job("c", key="m"), job("b", key="n"), job("a", key="z")]
    assert formed(jobs, 10) == [["c", "b", "a", "d", "e"]]


def test_nothing_makes_no_batch() -> None:
    assert form_batches([], 5) == []
