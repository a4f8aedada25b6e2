"""Judges a history, job by job: nothing of the database, so that histories from elsewhere can be judged too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from piecework.testing.history.job_rules import Cuts, JobRules
from piecework.testing.history.key_rules import KeyRules
from piecework.testing.history.records import JobHistory, Run, runs_of
from piecework.testing.history.setbacks import put_right
from piecework.testing.history.terms import Report, Rule, Terms, Violation

_MOST = 20
"""So many violations of one rule are kept; all are counted."""


class Judge:
    """Takes one job's history after the other, in any order, and tells in the end what was violated.

    It keeps what the rules among jobs need: a million jobs without a key cost nothing, a run of a job with a
    concurrency key about 200 bytes.

    Args:
        terms: what is known besides.
        workers: the ids of the workers there are; None: not known.
    """

    def __init__(self, terms: Terms, workers: Iterable[str] | None = None) -> None:
        self._terms = replace(terms, faults=sorted(terms.faults, key=lambda fault: fault.began))
        self._cuts = None if terms.cuts is None else Cuts(terms.cuts)
        self._workers = None if workers is None else frozenset(workers)
        self._keys = KeyRules(self._terms, self._cuts or Cuts(()))
        self._missing = dict(terms.accepted)
        self._counts: Counter[Rule] = Counter()
        self._violations: list[Violation] = []
        self._statuses: Counter[str] = Counter()
        self._moves: Counter[str] = Counter()
        self._rescued: list[tuple[float | None, float]] = []
        self._refused: list[float] = []
        self._forgotten: list[str] = []
        self._repeated: list[str] = []
        self._jobs = self._runs = self._effects = self._taken_over = 0

    def add(self, history: JobHistory) -> None:
        """Judge one job by itself, and take note of what concerns others."""
        history = put_right(history, self._terms.setbacks)
        self._missing.pop(history.id, None)
        self._jobs += 1
        self._statuses.update(row.status for row in history.rows)
        self._moves.update(attempt.move for attempt in history.attempts)
        runs = runs_of(history.entries) if history.entries else []
        self._runs += len(runs)
        self._effects += sum(entry.event == "effect" for entry in history.entries)
        rules = JobRules(history, runs, self._terms, self._cuts)
        self._find(rules.broken(self._workers))
        self._taken_over += rules.taken_over
        if rules.forgotten:
            self._forgotten.append(history.id)
        if self._terms.forgotten and rules.repeated():
            self._repeated.append(history.id)
        self._rescued += rules.rescued
        rescued = {attempt.claim_no: attempt.ended for attempt in history.attempts if attempt.move == "rescue"}
        self._refused += [
            run.ended for run in runs if run.ended is not None and run.ended > rescued.get(run.claim_no, float("inf"))
        ]
        self._keys.add(history, list(self._bounded(rules, runs)))

    def report(self) -> Report:
        """Judge what is left, and return what was found. Called once, after the last `add`."""
        for job, at in self._missing.items():
            if self._terms.was_forgotten(at):
                self._forgotten.append(job)
            else:
                self._find(
                    [Violation("lost", (job,), "it was accepted, and nothing is known of it", (f"at {at}",), at)]
                )
        self._find(self._keys.broken())
        return Report(
            jobs=self._jobs, statuses=self._statuses, attempts=self._moves, runs=self._runs, effects=self._effects,
            forgotten=self._forgotten, repeated=self._repeated, taken_over=self._taken_over,
            rescued=self._rescued, refused=sorted(self._refused),
            counts=self._counts, violations=self._violations,
        )  # fmt: skip

    def _find(self, violations: Iterable[Violation]) -> None:
        for violation in violations:
            self._counts[violation.rule] += 1
            if self._counts[violation.rule] <= _MOST:
                self._violations.append(violation)

    def _bounded(self, rules: JobRules, runs: Sequence[Run]) -> Iterator[Run]:
        """Give each run the end that it had at the latest: when its process was gone, or others might take over."""
        for run in runs:
            ends = [] if run.ended is None else [run.ended]
            if self._cuts is not None and (gone := self._cuts.gone(run)) is not None:
                ends.append(gone)
            ended = rules.by_claim.get(run.claim_no)
            if ended is not None and ended.move == "rescue":
                ends.append(ended.ended)
            bound = max(min(ends), run.began) if ends else None
            yield Run(run.claim_no, run.process, run.began, bound, run.well)


def judge(histories: Iterable[JobHistory], terms: Terms | None = None, workers: Iterable[str] | None = None) -> Report:
    """Judge a whole history.

    Args:
        histories: one of each job.
        terms: what is known besides; without it that all jobs have ended, and that all of the history is there.
        workers: the ids of the workers there are; None: not known.
    """
    judge = Judge(terms or Terms(), workers)
    for history in histories:
        judge.add(history)
    return judge.report()
