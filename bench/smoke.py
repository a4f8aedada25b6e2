"""The short form of the bench, with a verdict: is piecework fast enough beside the bare loop?"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from bench import own
from bench.report import GOAL, Rounds, ratios, spread
from bench.server import Server

JUDGED = ("drain", "steady")
# A drain as long as in the whole bench: the shorter it is, the more its begin and its end weigh, which is not the loop.
PLAN = replace(own.QUICK, rounds=5, drain_jobs=50_000)
WARM = replace(own.QUICK, rounds=1, drain_jobs=10_000)
ENOUGH = 75.0
"""Seconds after which no further round begins, so that a busy machine is done within two minutes."""

Measure = Callable[[str], list[float]]
"""Measures rounds of a shape; the ratios to the bare loop, round by round."""


def crosses(found: Sequence[float]) -> bool:
    """Whether some rounds say yes and others no."""
    return min(found) < GOAL <= max(found)


def judge(first: dict[str, list[float]], again: Measure) -> dict[str, list[float]]:
    """All ratios by shape; where the rounds disagree on the verdict they are made once more, and all of them count."""
    return {name: [*found, *(again(name) if crosses(found) else [])] for name, found in first.items()}


def fast_enough(found: Sequence[float]) -> bool:
    """The verdict: the median of the rounds."""
    return statistics.median(found) >= GOAL


def smoke(server: Server) -> int:
    """Measure briefly; 1 if piecework is too slow beside the bare loop."""
    began = time.monotonic()

    def measure(names: set[str]) -> dict[str, list[float]]:
        run = own.Run(server, PLAN, names)
        for _ in range(PLAN.rounds):
            if time.monotonic() - began < ENOUGH:
                run.measure_round()
        if failures := run.result.get("failures"):
            sys.exit("it cannot be judged: " + "; ".join(failures))
        figures = run.result["figures"]
        return {
            name: ratios(figures.get(f"{name} bare", ()), figures.get(f"{name} ours", ()), "jobs_per_s")
            for name in names
        }

    def again(name: str) -> list[float]:
        print(f"the rounds disagree on {name}: once more")
        return measure({name})[name]

    print("warming up")
    own.Run(server, WARM, {"drain"}).measure()
    found = judge(measure(set(JUDGED)), again)
    spawning: Rounds = ()
    if time.monotonic() - began < ENOUGH:
        spawning = own.Run(server, replace(PLAN, rounds=2), {"spawning"}).measure()["figures"]["spawning"]
    for name in JUDGED:
        print(
            f"{name}: {spread(found[name], '.2f')} of the bare loop in {len(found[name])} rounds, median with the "
            f"lowest and the highest; at least {GOAL} is wanted: {'reached' if fast_enough(found[name]) else 'MISSED'}"
        )
    for key, what in (("single_ratio", "one awaited spawn"), ("ten_ratio", "ten concurrent spawners")):
        if values := [float(value) for each in spawning if (value := each.get(key)) is not None]:
            print(f"{what}: {spread(values, '.2f')} times a one-row INSERT")
    return 0 if all(map(fast_enough, found.values())) else 1
