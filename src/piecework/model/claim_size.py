"""How many jobs a claim asks for: fewer where their configs are large, and where a claim failed.

A claim is one text, which PostgreSQL, the network and the worker have to hold as a whole within the deadline of a
statement. So its size is bounded in bytes as well, by what the jobs before had.
"""

from __future__ import annotations

MOST = 500
"""Jobs in one claim."""
MOST_BYTES = 16 * 2**20
_WEIGHT = 0.5


class ClaimSize:
    """Learns from each claim what the next one may ask for."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._ceiling = MOST

    @property
    def most(self) -> int:
        """How many jobs the next claim may ask for, at least one."""
        fits = MOST if self._mean * MOST <= MOST_BYTES else int(MOST_BYTES / self._mean)
        return max(min(fits, self._ceiling), 1)

    def answered(self, jobs: int, size: int) -> None:
        """Note how many jobs a claim brought, and how many bytes. Large ones count at once, small ones by and by."""
        self._ceiling = min(self._ceiling * 2, MOST)
        if jobs:
            mean = size / jobs
            self._mean = mean if mean > self._mean else self._mean + _WEIGHT * (mean - self._mean)

    def failed(self) -> None:
        """Note that a claim got no answer: it may have been too large. The next one asks for a quarter."""
        self._ceiling = max(min(self.most, self._ceiling) // 4, 1)
