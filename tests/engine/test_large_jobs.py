"""Jobs with large configs: claimed as many as a statement can answer with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from engine.helpers import SOON

from piecework import Jobs, WorkerSettings
from piecework.model import claim_size
from piecework.model.cursors import Place
from piecework.model.lanes import Lane
from piecework.store import claiming
from piecework.store.link import Link

JOBS = 200


async def test_no_claim_but_the_first_asks_for_more_than_fits(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_size, "MOST_BYTES", 100_000)
    claim, brought = claiming.claim, list[int]()

    async def counted(
        link: Link, worker_id: str, allotment: Sequence[tuple[Lane, int]], most: int, after: Place | None = None
    ) -> claiming.Claimed:
        claimed = await claim(link, worker_id, allotment, most, after)
        brought.append(len(claimed.jobs))
        return claimed

    monkeypatch.setattr(claiming, "claim", counted)

    @jobs.job
    async def length(text: str) -> int:
        return len(text)

    handles = await jobs.spawn_all([length.spec("x" * 10_000) for _ in range(JOBS)])
    async with jobs.worker(WorkerSettings(concurrency=50)):
        assert await handles.results(timeout=SOON) == [10_000] * JOBS
    assert sum(brought) == JOBS
    first, *others = [count for count in brought if count]
    assert first > 10
    assert max(others) <= 10


async def test_chains_are_no_longer_than_fits(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_size, "MOST_BYTES", 100_000)
    claim, brought = claiming.claim_keyed, list[int]()

    async def counted(*asked: Any) -> claiming.Keyed:
        claimed = await claim(*asked)
        brought.append(len(claimed.jobs))
        return claimed

    monkeypatch.setattr(claiming, "claim_keyed", counted)

    @jobs.job(concurrency_key="{key}")
    async def length(key: str, text: str) -> int:
        return len(text)

    handles = await jobs.spawn_all([length.spec("k", "x" * 10_000) for _ in range(JOBS)])
    async with jobs.worker():
        assert await handles.results(timeout=SOON) == [10_000] * JOBS
    assert sum(brought) == JOBS
    assert 1 < max(brought) <= 20


@pytest.mark.parametrize("error", [psycopg.errors.ProgramLimitExceeded, psycopg.errors.InternalError_])
async def test_a_claim_whose_answer_is_too_large_is_made_smaller_until_it_is_answered(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, error: type[psycopg.Error]
) -> None:
    value, refused = Link.value, list[int]()

    async def limited(self: Link, statement: str, *params: object) -> object:
        most = params[5] if statement == "claim" else 0
        if isinstance(most, int) and most > 20:
            refused.append(most)
            raise error("invalid memory alloc request size 1073741824")
        return await value(self, statement, *params)

    monkeypatch.setattr(Link, "value", limited)

    @jobs.job
    async def echo(number: int) -> int:
        return number

    handles = await jobs.spawn_all([echo.spec(number) for number in range(JOBS)])
    async with jobs.worker(WorkerSettings(concurrency=500)):
        assert await handles.results(timeout=SOON) == [*range(JOBS)]
    assert refused
