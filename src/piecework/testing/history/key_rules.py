"""The rules that jobs have to keep among each other: of a concurrency key, and of a key. Pure."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

from piecework.testing.history.job_rules import Cuts
from piecework.testing.history.records import Attempt, JobHistory, JobRow, Run
from piecework.testing.history.terms import Terms, Violation


class Held(NamedTuple):
    """A time in which a job ran under its concurrency key."""

    began: float
    ended: float
    job: str
    claim_no: int
    limit: int
    worker: str = ""
    """Whose run it was, where the end is that of its settle: the worker may have begun others in between."""


class First(NamedTuple):
    """The first run of a job that had one only, in the order in which such jobs are to begin."""

    priority: int
    run_at: float
    job: str
    seen: float
    """From when on everybody could see that it was due."""
    began: float
    claimed: float
    """At the earliest: the claim decides on the order, and what waits in hand lets nothing pass that is due since."""
    slack: float
    """How exact the begin is, in seconds: the rows have it by the moment of the settle."""


class Life(NamedTuple):
    """A time in which a job held its key."""

    began: float
    ended: float
    job: str


@dataclass(slots=True)
class KeyRules:
    """Gathers what the jobs of each key did, job by job, and judges it in the end."""

    terms: Terms
    cuts: Cuts
    _held: dict[tuple[str, str], list[Held]] = field(
        default_factory=lambda: defaultdict[tuple[str, str], list[Held]](list)
    )
    _firsts: dict[tuple[str, str], list[First]] = field(
        default_factory=lambda: defaultdict[tuple[str, str], list[First]](list)
    )
    _lives: dict[tuple[str, str], list[Life]] = field(
        default_factory=lambda: defaultdict[tuple[str, str], list[Life]](list)
    )

    def add(self, history: JobHistory, ran: Sequence[Run]) -> None:
        """Take note of a job.

        Args:
            history: of the job.
            ran: its runs by the ledger, each with an end that it had at the latest.
        """
        for row in history.rows:
            if row.key is not None and (self.terms.whole or row.status == "live"):
                ended = float("inf") if row.ended is None else row.ended
                self._lives[row.job_type, row.key].append(Life(row.created, ended, history.id))
        if not history.rows or (row := history.rows[0]).concurrency_key is None:
            return
        key = row.queue, row.concurrency_key
        own = row.concurrency_limit or 1
        limit = max(own, _operators_limit(self.terms.limits, *key))
        held = list(_times(row, history.attempts, ran))
        self._held[key] += (Held(began, ended, history.id, claim_no, limit, by) for began, ended, claim_no, by in held)
        first = limit == 1 and row.claim_no == 1 and not history.attempts and held != []
        if first and not self.terms.was_set_back(row.created, held[0][0]):
            # When its spawn was answered it was committed; else nobody knows, but that it takes a while.
            committed = self.terms.accepted.get(history.id, row.created + self.terms.slack)
            seen = max(committed, row.run_at + self.terms.slack)
            slack = 0.0 if ran else self.terms.slack
            began = held[0][0]
            claimed = self.cuts.claimed(ran[0].process if ran else "", began)
            self._firsts[key].append(First(row.priority, row.run_at, history.id, seen, began, claimed, slack))

    def broken(self) -> Iterator[Violation]:
        """Yield what is violated."""
        for (queue, key), held in self._held.items():
            yield from _limit(f"concurrency key {key!r} of queue {queue!r}", held, self.terms)
        for (queue, key), firsts in self._firsts.items():
            yield from _order(f"concurrency key {key!r} of queue {queue!r}", firsts)
        for (job_type, key), lives in self._lives.items():
            yield from _unique(f"key {key!r} of {job_type}", lives, self.terms.slack)


def _operators_limit(limits: Mapping[tuple[str, str], int], queue: str, key: str) -> int:
    """Return what operators say of a key: by its name, or the longest beginning of it, of its queue or of all."""
    found = [
        ((name == key, len(name), of), most)
        for (of, name), most in limits.items()
        if of in (queue, "") and (name == key or (name[-1:] == "*" and key.startswith(name[:-1])))
    ]
    return max(found)[1] if found else 0


def _times(row: JobRow, attempts: Iterable[Attempt], ran: Sequence[Run]) -> Iterator[tuple[float, float, int, str]]:
    """Yield begin, end, claim number and, by the rows, worker of each time in which a job ran; the ledger is exact."""
    if ran:
        for run in ran:
            ended = run.began if run.ended is None else run.ended
            if run.claim_no == row.claim_no and row.ended is not None:
                # Who ends a job in a transaction hands its key on with the commit, before the run hears of that.
                ended = max(run.began, min(ended, row.ended))
            yield run.began, ended, run.claim_no, ""
        return
    # By the rows, where a rescued claim may never have run.
    yield from (
        (each.started, each.ended, each.claim_no, each.worker)
        for each in attempts if each.started is not None and each.move not in ("rescue", "fail", "cancel")
    )  # fmt: skip
    if row.started is not None and row.ended is not None:
        yield row.started, row.ended, row.claim_no, row.worker or ""


def _limit(name: str, held: list[Held], terms: Terms) -> Iterator[Violation]:
    """Go through the begins in their order; a job may begin if, with itself, no more run than its limit says."""
    running: list[tuple[float, Held]] = []
    for each in sorted(held):
        while running and running[0][0] <= each.began:
            heappop(running)
        heappush(running, (each.ended, each))
        at_once = [other for _, other in running if other is each or not other.worker or other.worker != each.worker]
        if len(at_once) > each.limit and not any(terms.claim_was_forgotten(other.began) for other in at_once):
            others = sorted(at_once, key=lambda other: other.ended)
            yield Violation(
                "concurrency limit", tuple(other.job for other in others),
                f"{len(others)} jobs of {name} ran at once, limit {each.limit}", tuple(map(repr, others)), each.began,
            )  # fmt: skip


def _order(name: str, firsts: list[First]) -> Iterator[Violation]:
    """Find jobs that began before an older one which was due when they were claimed: the last of them is enough."""
    # Those that are to come later, the last to begin first: so the next one mostly belongs at the end.
    behind: list[First] = []
    for older in sorted(firsts, reverse=True):
        place = bisect_right(behind, older.slack - older.began, key=_latest)
        younger = behind[place] if place < len(behind) else None
        if younger is not None and older.seen < younger.claimed and younger.began < older.began - younger.slack:
            yield Violation(
                "order in a key", (older.job, younger.job),
                f"of {name} the younger job began {older.began - younger.began:.3f} s before the older", (
                    repr(older), repr(younger)), older.began,
            )  # fmt: skip
        insort(behind, older, key=_latest)


def _latest(first: First) -> float:
    return -first.began


def _unique(name: str, lives: list[Life], slack: float) -> Iterator[Violation]:
    before: Life | None = None
    for life in sorted(lives):
        if before is not None and life.began < before.ended - slack and life.job != before.job:
            yield Violation(
                "unique key", (before.job, life.job), f"two live jobs at once had the {name}", (
                    repr(before), repr(life)), life.began,
            )  # fmt: skip
        if before is None or life.ended > before.ended:
            before = life
