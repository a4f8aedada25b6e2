"""The job of the Chancy driver: a worker imports it by its name."""

from __future__ import annotations

import asyncio

from harness import PAUSE, hit


async def noop(*, number: int, text: str, sent: int | None = None) -> None:
    hit(sent)
    if PAUSE:
        await asyncio.sleep(PAUSE)
