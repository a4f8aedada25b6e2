"""The garbage collector of a process that only works."""

from __future__ import annotations

import gc

_YOUNG = 10_000
"""Objects made and not gone again between two looks at the young ones; Python's own figure is 700 or 2,000."""


def spare_what_stays() -> None:
    """Have the garbage collector pass over all that is there by now, and look at new objects more seldom.

    What a program has imported and set up stays until its end, and each full collection would walk over it; what a run
    makes is mostly gone with its last reference. Settings of the application's own are left alone if they ask for less.
    """
    gc.collect()
    gc.freeze()
    young, *older = gc.get_threshold()
    if gc.isenabled() and young > 0:
        gc.set_threshold(max(young, _YOUNG), *older)
