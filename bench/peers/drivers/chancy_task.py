"""The job of the Chancy driver: a worker imports it by its name."""

from __future__ import annotations

from harness import hit


async def noop(*, number: int, text: str, sent: int | None = None) -> None:
    hit(sent)
