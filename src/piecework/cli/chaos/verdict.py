"""What a chaos run came to: pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

import msgspec

from piecework.testing.history import RULES, Fault, Report

RESUMED_WITHIN = 5.0
"""Seconds after a fault is over, within which a job has to begin."""
_LOST = frozenset({"lost", "not ended"})
DOUBLED = frozenset({
    "ended twice", "settled twice", "claim ran twice", "effect doubled", "effect of a lost claim", "fence",
})  # fmt: skip
_SHOWN = 20
_MOMENT = 0.001


class FaultReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one kind of fault. Seconds; None: there was none to measure."""

    name: str
    times: int
    cut_short: int
    """So many of them were ended by another fault, or could not be done."""
    first_job: float | None
    """From the end of the fault to the next begin of a run of any job, without the time of other faults: the median."""
    first_job_worst: float | None
    given_back_worst: float | None
    """From the begin of the fault to when the last of its claims was taken from a worker that was given up."""
    lost: int
    doubled: int
    refused: int
    """Runs that ended after their claim had been taken from them, and changed nothing."""


class ChaosReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a chaos run came to."""

    status: str
    """`ok` | `failed`."""
    seed: int
    seconds: float
    lease: float
    workers: int
    spawners: int
    started: Mapping[str, int]
    """Processes, by what they did."""
    exits: Mapping[str, int]
    """How workers ended: exit code, negative for a signal."""
    postgresql: str
    jobs: int
    accepted: int
    runs: int
    effects: int
    statuses: Mapping[str, int]
    attempts: Mapping[str, int]
    forgotten: int
    """Accepted jobs that a failover to an asynchronous standby has forgotten."""
    taken_over: int
    refused: int
    drained_in: float | None
    """Seconds from the last fault until all had ended; None: they had not."""
    promised: float
    faults: Sequence[FaultReport]
    skipped: Mapping[str, str]
    """Faults that were not done, and why."""
    must_be_none: Mapping[str, int]
    violations: Sequence[str]


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """What the run itself knows; moments by the clock of the rows."""

    faults: Sequence[Fault]
    begins: Sequence[float]
    """When runs began, in their order."""
    accepted: int
    cut_short: Mapping[str, int] = {}
    """How many faults of each kind were ended by another, or could not be done."""


def recoveries(course: Course) -> list[float | None]:
    """Return for each fault how long after its end a run began, without the time of other faults; None: none did."""
    found: list[float | None] = []
    faults = sorted(course.faults, key=lambda fault: fault.began)
    for fault in course.faults:
        place = bisect_left(course.begins, fault.over)
        first = course.begins[place] if place < len(course.begins) else None
        found.append(None if first is None else _undisturbed(faults, fault.over, first))
    return found


def _undisturbed(faults: Sequence[Fault], since: float, until: float) -> float:
    """Return how much of a time lies outside of all faults, which come in the order of their begins."""
    seconds, at = 0.0, since
    for fault in faults:
        if fault.began >= until:
            break
        seconds += max(fault.began - at, 0.0)
        at = max(at, fault.over)
    return seconds + max(until - at, 0.0)


def by_fault(course: Course, report: Report) -> list[FaultReport]:
    """Gather what came of each kind: what happened belongs to the fault that had begun last."""
    faults = sorted(course.faults, key=lambda fault: fault.began)
    begins = [fault.began for fault in faults]

    def belongs(at: float | None) -> Fault | None:
        place = len(begins) if at is None else bisect_left(begins, at)
        return faults[place - 1] if place else None

    took = recoveries(Course(faults=faults, begins=course.begins, accepted=course.accepted))
    given_back: dict[str, float] = {}
    for lost_at, at in report.rescued:
        # What a fault is to blame for ends a moment after it began.
        fault = belongs(at if lost_at is None else lost_at + _MOMENT)
        if fault is not None:
            given_back[fault.name] = max(given_back.get(fault.name, 0.0), at - fault.began)
    refused = Counter(fault.name for at in report.refused if (fault := belongs(at)) is not None)
    lost, doubled = Counter[str](), Counter[str]()
    for violation in report.violations:
        fault = belongs(violation.at)
        if fault is not None:
            lost[fault.name] += violation.rule in _LOST
            doubled[fault.name] += violation.rule in DOUBLED
    reports: list[FaultReport] = []
    for name in sorted({fault.name for fault in faults}):
        times = [second for fault, second in zip(faults, took, strict=True) if fault.name == name]
        measured = [second for second in times if second is not None]
        reports.append(FaultReport(
            name=name, times=len(times), cut_short=course.cut_short.get(name, 0),
            first_job=median(measured) if measured else None, first_job_worst=max(measured, default=None),
            given_back_worst=given_back.get(name), lost=lost[name], doubled=doubled[name], refused=refused[name],
        ))  # fmt: skip
    return reports


def must_be_none(course: Course, report: Report) -> dict[str, int]:
    """Count what must not be, in words."""
    found = {what: report.counts[rule] for rule, what in RULES.items()}
    late = sum(second is not None and second > RESUMED_WITHIN for second in recoveries(course))
    found[f"no job began within {RESUMED_WITHIN:.0f} s after a fault was over"] = late
    return found


def shown(report: Report) -> list[str]:
    """Return the first violations with their evidence, in words."""
    return [
        "\n".join([str(violation), *(f"  {record}" for record in violation.evidence)])
        for violation in report.violations[:_SHOWN]
    ]
