"""Runs seeds, one or many."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from simulation.scenario import Scenario


@dataclass
class Verdict:
    """What came of a seed."""

    seed: int
    problems: list[str]
    events: int
    jobs: int
    runs: int
    faults: list[str]
    strikes: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)
    digest: int = 0


class _Listener(logging.Handler):
    """Hears what the engine says: an error that it did not expect is one of the run's."""

    def __init__(self) -> None:
        super().__init__()
        self.scenario: Scenario | None = None
        self.verbose = False

    def emit(self, record: logging.LogRecord) -> None:
        if self.scenario is None:
            return
        if record.exc_info and record.exc_info[1] is not None:
            self.scenario.world.wrong(f"logged: {record.getMessage()}: {record.exc_info[1]!r}")
            if self.verbose:
                logging.Formatter().formatException(record.exc_info)
        elif self.verbose:
            self.scenario.world.say("log", record.getMessage())


_listener = _Listener()


def run(seed: int, *, trace: bool = False, change: Callable[[Scenario], None] = lambda scenario: None) -> Verdict:
    """Run one seed.

    Args:
        change: made to the scenario before it begins: for seeds that were found with another plan.
    """
    logger = logging.getLogger("piecework")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(_listener)
    logger.setLevel(logging.INFO if trace else logging.WARNING)
    logger.propagate = False
    collects = gc.isenabled()
    gc.disable()
    scenario = Scenario(seed, change)
    _listener.scenario, _listener.verbose = scenario, trace
    try:
        problems = scenario.run()
    finally:
        scenario.close()
        _listener.scenario = None
        logger.removeHandler(_listener)
        logger.setLevel(level)
        logger.propagate = propagate
        if collects:
            gc.enable()
    world = scenario.world
    lines = [f"{at:10.4f}  {what}  {' '.join(map(str, facts))}" for at, what, facts in world.trace] if trace else []
    return Verdict(
        seed, list(problems), world.events, len(scenario.given), len(scenario.runs), scenario.faults,
        Counter(scenario.weather.counts), lines, zlib.crc32(repr(world.trace).encode()),
    )  # fmt: skip


def _seeds(arguments: Iterable[str]) -> list[int]:
    seeds: list[int] = []
    for argument in arguments:
        first, dots, last = argument.partition("..")
        seeds += range(int(first), int(last)) if dots else [int(first)]
    return seeds


def run_many(seeds: list[int], processes: int | None = None) -> Iterable[Verdict]:
    """Run seeds in several processes; yields their verdicts as they come."""
    with multiprocessing.get_context("fork").Pool(processes or os.cpu_count(), maxtasksperchild=2000) as pool:
        yield from pool.imap_unordered(run, seeds, chunksize=20)


def main(arguments: list[str]) -> int:
    """Run what is asked for; return 1 if anything was wrong."""
    seeds = _seeds(arguments or ["0..1000"])
    if len(seeds) == 1:
        verdict = run(seeds[0], trace=True)
        print("\n".join(verdict.trace))
        print(*verdict.problems, sep="\n")
        return bool(verdict.problems)
    began = time.monotonic()
    wrong: list[Verdict] = []
    events = jobs = runs = 0
    faults: Counter[str] = Counter()
    for verdict in run_many(seeds):
        events, jobs, runs = events + verdict.events, jobs + verdict.jobs, runs + verdict.runs
        faults.update(dict.fromkeys(set(verdict.faults), 1))
        if verdict.problems:
            wrong.append(verdict)
            print(f"seed {verdict.seed}: {verdict.problems[0][:300]}", flush=True)
    took = time.monotonic() - began
    print(f"{len(seeds)} seeds, {len(seeds) / took:.0f} a second; {events} events, {jobs} jobs, {runs} runs; "
          f"faults: {', '.join(f'{name} {n}' for name, n in sorted(faults.items()))}; {len(wrong)} seeds failed")
    return bool(wrong)
