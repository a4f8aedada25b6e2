"""How many examples a property is tried with: the same ones each time, and few; or with PIECEWORK_EXAMPLES=n other ones
each time, and n times as many."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("PIECEWORK_EXAMPLES", "1"))


def examples(count: int, **options: int) -> settings:
    """Settings of a property, to be used as a decorator. The verdict does not depend on how busy the machine is."""
    return settings(
        max_examples=count * TIMES, derandomize=TIMES == 1, database=None, deadline=None, print_blob=True,
        suppress_health_check=list(HealthCheck), **options,
    )  # type: ignore[arg-type]  # fmt: skip
