"""By what a history is judged, and what is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Rule: TypeAlias = Literal[
    "lost", "not ended", "ended twice", "settled twice", "claim without an end", "fence",
    "completed without a run", "claim ran twice", "runs overlap",
    "effect missing", "effect doubled", "effect of a lost claim",
    "concurrency limit", "order in a key", "unique key", "counters", "held by nobody", "invisible",
]  # fmt: skip

RULES: Mapping[Rule, str] = {
    "lost": "an accepted job is neither live nor finished, or an attempt has no job",
    "not ended": "a job is live though all should have ended",
    "ended twice": "a job has two ends, or is live and has ended",
    "settled twice": "a claim has two ends",
    "claim without an end": "a claim has no end, and the job went on",
    "fence": "a claim that was never given out has ended, or somebody else has ended it",
    "completed without a run": "a job completed by a claim of which no run returned",
    "claim ran twice": "one claim has two runs",
    "runs overlap": "two runs of a job at the same time, the first not by a worker that had lost its lease",
    "effect missing": "a job completed without the effect that its transaction brings",
    "effect doubled": "the effect of a job's transaction is there twice",
    "effect of a lost claim": "an effect is there whose claim has not ended the job",
    "concurrency limit": "more jobs of a concurrency key ran at once than its limit",
    "order in a key": "a job began before an older one of its concurrency key that was due when it was claimed",
    "unique key": "two live jobs of one type had the same key",
    "counters": "attempts, failures or crashes do not go with the attempts that are on record",
    "held by nobody": "a job is held by a worker that is none",
    "invisible": "after a fault a job was neither run nor given back within the promised time",
}


BEGINS_WITHIN = 3.0
"""What was claimed begins within so many seconds, or is handed back."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What befell a process, so that its runs ended, or stood still.

    Args:
        process: as the ledger names it.
        at: when.
        how: `gone`: the process ended. `frozen`: it stood still, and may have gone on.
        until: when one that was frozen went on; None: not known.
    """

    process: str
    at: float
    how: Literal["gone", "frozen"] = "gone"
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that broke at `began` and was whole again at `over`."""

    name: str
    began: float
    over: float
    hinders: bool = True
    """Whether nobody could give back meanwhile what a lost worker held, so that the time begins anew after it."""


@dataclass(frozen=True, slots=True)
class Setback:
    """The server's clock was `seconds` behind for a while: more than twice of what the whole run takes, and was before.

    Args:
        since: from when on a session may have gone by it, by the clock that the rows have otherwise.
        until: until when.
        seconds: the same in all setbacks of a run.
    """

    since: float
    until: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is known of a run besides its history. All moments are seconds, of the clock of the rows."""

    live: bool = False
    """Whether the run goes on: then jobs may be live."""
    whole: bool = True
    """Whether no history was removed, and no job brought back by an operator: then each claim is accounted for. What is
    in `accepted`, or in a ledger, is to be there in any case."""
    accepted: Mapping[str, float] = field(default_factory=dict[str, float])
    """Jobs whose spawn was answered, by their id (as `str(handle.id)`), and when."""
    runs_of: frozenset[str] = frozenset()
    """Job types that write their runs into a ledger."""
    effects_of: frozenset[str] = frozenset()
    """Job types that write one effect in the transaction that completes them."""
    cuts: Sequence[Cut] | None = None
    """What befell processes. None: not known; then a rescue alone excuses an overlap."""
    faults: Sequence[Fault] = ()
    promised: float | None = None
    """Within so many seconds after a fault what its workers held is given back. None: not judged."""
    forgotten: Sequence[tuple[float, float]] = ()
    """Times of which the database has forgotten what was committed, by a failover to an asynchronous standby."""
    n_attempts: Mapping[str, int] = field(default_factory=dict[str, int])
    """At most so many failed attempts, by job type; others are not judged by it."""
    max_crashes: int | None = None
    """At most so many crashes."""
    limits: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    """Operators' limits, by queue (empty: all) and concurrency key (with an asterisk: all that begin so): where one is
    larger than a job's own it counts. They are taken as they are in the end."""
    setbacks: Sequence[Setback] = ()
    """When the server's clock was set back. Jobs that were to begin then are not judged by their order in a key."""
    slack: float = 0.0
    """By so much two moments of the rows may be wrong: between the begin of a transaction and its commit."""

    def was_forgotten(self, at: float) -> bool:
        """Whether what was committed at this moment may be forgotten."""
        return any(since <= at <= until for since, until in self.forgotten)

    def was_set_back(self, since: float, until: float) -> bool:
        """Whether the server's clock was behind at any time between these moments."""
        return any(setback.since <= until and since <= setback.until for setback in self.setbacks)

    def claim_was_forgotten(self, began: float) -> bool:
        """Whether the claim of a run that began at this moment may be forgotten: it was made a while before."""
        return any(since <= began <= until + BEGINS_WITHIN for since, until in self.forgotten)


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be."""

    rule: Rule
    job_ids: tuple[str, ...]
    what: str
    """In a sentence, with the values."""
    evidence: tuple[str, ...] = ()
    """The records that show it."""
    at: float | None = None
    """The latest moment that they name."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.what} ({', '.join(self.job_ids)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a history came to."""

    jobs: int
    statuses: Mapping[str, int]
    """How many rows there are of each status, `live` among them."""
    attempts: Mapping[str, int]
    """How many attempts ended by each move."""
    runs: int
    effects: int
    forgotten: Sequence[str]
    """The accepted jobs that a failover has forgotten: what an asynchronous standby may lose."""
    repeated: Sequence[str]
    """The jobs that ran again although a run of them had returned, since a failover has forgotten that."""
    taken_over: int
    """Runs that overlapped with a later one, by workers that had lost their lease: excused."""
    rescued: Sequence[tuple[float | None, float]]
    """When each claim of a worker that was given up for dead was lost, as far as that is known, and given back."""
    refused: Sequence[float]
    """When runs ended whose claim had been taken from them: what they wrote late changed nothing."""
    counts: Counter[Rule]
    """How many violations there are of each rule."""
    violations: Sequence[Violation]
    """The first ones of each rule."""

    @property
    def holds(self) -> bool:
        """Whether nothing was violated."""
        return not self.counts
