"""Short runs of the real engine in a simulated world, each by its seed, and the seeds that found something."""

from __future__ import annotations

import pytest

from simulation.runner import run

PARTS, SEEDS = 80, 25
"""So many tests of so many seeds each."""


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_is_lost_doubled_or_late_whatever_goes_wrong(part: int) -> None:
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        verdict = run(seed)
        assert not verdict.problems, f"`make simulate SEEDS={seed}` shows it: {verdict.problems[:3]}"


GUARDS = {
    "watchdog": (3, 50, 94, 99), "fence": (3, 4, 9, 21, 22, 88), "audit": (8, 22, 27, 35), "resend": (7, 12, 26, 40),
    "horizon": (6, 19, 31, 54), "unbroken time": (12, 17, 47, 86), "capacity": (3, 20, 26, 31),
    "heartbeat": (20, 21), "hand-over of keys": (21, 26, 28),
}  # fmt: skip
"""Seeds of runs of which at least one goes wrong if this one guard is missing: `tools/mutants.py` shows it."""


FOUND = {
    "a spawn that shares a statement is sent in halves after an error that says nothing of what landed": 2254,
    "a statement that is cancelled once its client has gone leaves its transaction open": 30269,
    "a statement that is cancelled once its client has gone leaves its rescheduling open": 30596,
    "a statement that is cancelled once its client has gone leaves it open, and the lease ends": 15570,
    "a process that stood still begins what it had claimed before, once it goes on": 16554,
    "a loop that hung begins what it had claimed before, though its lease is over": 9307,
    "a prefetched job begins when an older one of its concurrency key has long been due": 32343,
    "a claimed job begins when its loop goes on, and an older one of its concurrency key has long been due": 33439,
    "the row of a job is held by somebody when its concurrency key is free, and when the keys are swept": 48989,
    "the answer to taking the duty to sweep the keys is lost, and what it was to repair waits for the next": 50957,
    "a claim waits for its turn in a worker that has nothing else to wake up for, longer than it may": 84905,
    "a run ends its job in a transaction, and hears of it after the server's clock has stepped": 86697,
    "a job has ended before its spawn is answered, and another has its key": 54796,
}
"""Seeds that have found something, and what."""


@pytest.mark.parametrize("what", FOUND)
def test_a_run_that_has_found_something_goes_well_now(what: str) -> None:
    assert run(FOUND[what]).problems == []


@pytest.mark.parametrize("guard", GUARDS)
def test_a_run_in_which_much_depends_on_one_guard_goes_well(guard: str) -> None:
    assert [problem for seed in GUARDS[guard] for problem in run(seed).problems] == []


def test_a_seed_repeats_a_run_exactly() -> None:
    first, again = run(7), run(7)
    assert first.events > 500
    assert (first.digest, first.events) == (again.digest, again.events)


def test_another_seed_is_another_run() -> None:
    assert run(7).digest != run(8).digest
