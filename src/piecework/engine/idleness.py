"""Whether a worker may sleep: pure bookkeeping of the sleep protocol (invariant F)."""

from __future__ import annotations

_STAY_BUSY = 1.0
_UNDECLARED, _UNSURE = 0.1, 0.5


class Idleness:
    """From a second without a full claim on the worker is declared idle: spawns send hints.

    A spawn that was open when the declaration was committed may have missed it. So the worker goes on looking, at least
    every half second, until a look shows that every transaction from before the declaration has ended. From then on,
    and as long as its LISTEN stands, it is calm: all that comes is hinted at, and it looks every `look_every` seconds.
    """

    def __init__(self, look_every: float) -> None:
        self.declared = False
        self.flagged = False
        """Whether the database may say that the worker sleeps: spawns then send hints, and name it."""
        self.listening = False
        self._look_every = look_every
        self._horizon: int | None = None
        self._last_full = float("-inf")

    @property
    def calm(self) -> bool:
        """Whether all that comes is hinted at."""
        return self.declared and self.listening and self._horizon is None

    @property
    def longest(self) -> float:
        """The most seconds between two looks while nothing is due."""
        return self._look_every if self.calm else min(_UNSURE if self.declared else _UNDECLARED, self._look_every)

    def claimed_all(self, now: float) -> None:
        """Note a claim that brought all it could: there is more."""
        self._last_full = now

    def may_declare(self, now: float) -> bool:
        """Whether it is time to declare the worker idle."""
        return not self.declared and now - self._last_full >= _STAY_BUSY

    def declare(self, horizon: int) -> None:
        """Note the declaration, and the first transaction id that cannot have missed it."""
        self.declared, self._horizon = True, horizon
        self.flagged = True

    def looked(self, xmin: int) -> None:
        """Note a look before which every transaction older than `xmin` had ended."""
        if self._horizon is not None and xmin >= self._horizon:
            self._horizon = None

    def revoke(self) -> None:
        """Note that the declaration is withdrawn, or that it is not known whether it stands."""
        self.declared, self._horizon = False, None
