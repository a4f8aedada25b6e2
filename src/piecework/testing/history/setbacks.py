"""Puts the moments of rows right that were written while the server's clock was behind. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from piecework.testing.history.records import JobHistory
from piecework.testing.history.terms import Setback


def put_right(history: JobHistory, setbacks: Sequence[Setback]) -> JobHistory:
    """Return the history by one clock: a moment from long before the run is one of a setback."""
    if not setbacks:
        return history
    seconds = setbacks[0].seconds
    before = min(setback.since for setback in setbacks) - seconds / 2

    def right(at: float) -> float:
        return at + seconds if at < before else at

    def right_or_none(at: float | None) -> float | None:
        return None if at is None else right(at)

    return replace(
        history,
        rows=[
            replace(row, run_at=right(row.run_at), created=right(row.created), started=right_or_none(row.started),
                    ended=right_or_none(row.ended))
            for row in history.rows
        ],
        attempts=[
            replace(each, started=right_or_none(each.started), ended=right(each.ended)) for each in history.attempts
        ],
        entries=[replace(entry, at=right(entry.at)) for entry in history.entries],
    )  # fmt: skip
