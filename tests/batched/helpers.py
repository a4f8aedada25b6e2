"""What the tests of batched jobs share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from piecework import CurrentBatch, JobHandles, JobSnapshot, RetrySettings

QUICK = RetrySettings(min_backoff=timedelta(milliseconds=10), max_backoff=timedelta(milliseconds=50))
ONCE = RetrySettings.never()


@dataclass
class Doc:
    number: int


def numbers(batch: CurrentBatch[Doc]) -> list[int]:
    return [item.config.number for item in batch.items]


async def statuses(handles: JobHandles[object]) -> list[str]:
    return [snapshot.status for snapshot in await loaded(handles)]


async def loaded(handles: JobHandles[object]) -> Sequence[JobSnapshot]:
    return [await handle.load() for handle in handles]
