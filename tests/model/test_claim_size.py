"""How many jobs a claim asks for."""

from __future__ import annotations

from piecework.model.claim_size import MOST, MOST_BYTES, ClaimSize


def test_small_jobs_are_claimed_in_full_batches() -> None:
    size = ClaimSize()
    assert size.most == MOST
    size.answered(MOST, MOST * 200)
    assert size.most == MOST


def test_large_jobs_are_claimed_as_many_as_fit_and_at_least_one() -> None:
    size = ClaimSize()
    size.answered(10, 10 * 2**20)
    assert size.most == MOST_BYTES // 2**20
    size.answered(1, 2 * MOST_BYTES)
    assert size.most == 1


def test_after_large_jobs_small_ones_bring_the_full_batch_back() -> None:
    size = ClaimSize()
    size.answered(1, MOST_BYTES)
    for _ in range(20):
        size.answered(size.most, size.most * 200)
    assert size.most == MOST


def test_a_failed_claim_has_the_next_ones_ask_for_ever_fewer_until_one_is_answered() -> None:
    size = ClaimSize()
    asked: list[int] = []
    for _ in range(6):
        size.failed()
        asked.append(size.most)
    assert asked == [125, 31, 7, 1, 1, 1]
    for _ in range(9):
        size.answered(0, 0)
    assert size.most == MOST
