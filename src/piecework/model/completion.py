"""How a runner says that a job is not simply done: it returns (or raises) one of these."""

from __future__ import annotations

from datetime import datetime, timedelta

from piecework.base.texts import shown


class Reschedule:
    """Run the same job again, attempts counted anew.

    Args:
        when: a delay from the end of this attempt (a `timedelta`, negative means now), or a moment (an aware
            `datetime`).

    Raises:
        TypeError: `when` is neither.
        ValueError: `when` is a naive `datetime`.
    """

    __slots__ = ("when",)

    def __init__(self, when: timedelta | datetime, /) -> None:
        if isinstance(when, datetime):
            if when.utcoffset() is None:
                raise ValueError(
                    f"Reschedule.at({when!r}) got a naive datetime: give it a time zone, as in datetime.now(UTC)"
                )
        elif not isinstance(when, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"Reschedule takes a timedelta or an aware datetime, not {shown(when)}")
        self.when = when

    @classmethod
    def now(cls) -> Reschedule:
        """Run again at once."""
        return cls(timedelta(0))

    @classmethod
    def after(cls, delay: timedelta) -> Reschedule:
        """Run again when `delay` has passed, counted by the database's clock from the end of this attempt."""
        return cls(delay)

    @classmethod
    def at(cls, run_at: datetime) -> Reschedule:
        """Run again at `run_at`, an aware moment, by the database's clock."""
        return cls(run_at)

    def __repr__(self) -> str:
        return f"Reschedule({self.when!r})"


class Fail(Exception):
    """End the job as `errored` without any further attempt. Return it or raise it.

    Args:
        reason: what whoever waits, and whoever reads the history, is told.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
