"""The rules that one job's history has to keep, whatever else happened. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, islice, pairwise

from piecework.testing.history.records import Attempt, JobHistory, JobRow, Run
from piecework.testing.history.terms import BEGINS_WITHIN, Cut, Fault, Rule, Terms, Violation

_ENDED_BY: Mapping[str, str] = {"errored": "fail", "cancelled": "cancel"}
_MOST_NAMED = 20
"""Of claims without an end, so many are named: a job may have had two thousand millions."""


class Cuts:
    """What befell processes, to be asked for by process and time."""

    def __init__(self, cuts: Sequence[Cut]) -> None:
        self._of: dict[str, list[Cut]] = defaultdict(list)
        for cut in sorted(cuts, key=lambda cut: cut.at):
            self._of[cut.process].append(cut)

    def gone(self, run: Run) -> float | None:
        """Return when the process of the run ended; None: it is not known to have."""
        cuts = self._of.get(run.process, ())
        return next((cut.at for cut in cuts if cut.how == "gone" and cut.at >= run.began), None)

    def excuses(self, run: Run, later: Run) -> bool:
        """Whether the run was cut, or stood still, so that the later one may have begun before its end."""
        until = later.began if run.ended is None else min(run.ended, later.began)
        return any(
            cut.at <= until and run.began <= (cut.at if cut.until is None else cut.until)
            for cut in self._of.get(run.process, ())
        )

    def claimed(self, process: str, began: float) -> float:
        """Return when a process claimed at the earliest what it began at this moment: it may have stood still since."""
        claimed = began - BEGINS_WITHIN
        for cut in reversed(self._of.get(process, ())):
            if cut.until is not None and cut.at < began and cut.until > claimed:
                claimed -= min(cut.until, began) - cut.at
        return claimed


def deadline(terms: Terms, at: float) -> float:
    """Return by when what was lost at this moment is to be found: faults that hinder everybody put it off."""
    assert terms.promised is not None
    due = at + terms.promised
    for fault in sorted(terms.faults, key=lambda fault: fault.began):
        if fault.hinders and at <= fault.over and fault.began <= due:
            due = max(due, fault.over + terms.promised)
    return due


def last_before(faults: Sequence[Fault], at: float) -> Fault | None:
    """Return the fault that began last before this moment; they are in the order of their begins."""
    place = bisect_left(faults, at, key=lambda fault: fault.began)
    return faults[place - 1] if place else None


class JobRules:
    """Applies the rules to one job: iterate over `broken`."""

    def __init__(self, history: JobHistory, runs: Sequence[Run], terms: Terms, cuts: Cuts | None) -> None:
        self.history = history
        self.runs = runs
        self.terms = terms
        self.cuts = cuts
        self.row: JobRow | None = history.rows[0] if history.rows else None
        self.by_claim: dict[int, Attempt] = {attempt.claim_no: attempt for attempt in history.attempts}
        self.taken_over = 0
        """Runs that overlapped with a later one, and may."""
        self.rescued: list[tuple[float | None, float]] = []
        """When each claim that was rescued was lost, as far as that is known, and when it was given back."""
        self.forgotten = False
        """Whether it was accepted, and a failover has forgotten it."""

    def broken(self, workers: frozenset[str] | None) -> Iterator[Violation]:
        """Yield what is violated.

        Args:
            workers: the ids of the workers there are; None: not known.
        """
        yield from self._ends()
        if self.row is None:
            return
        yield from self._claims(self.row)
        yield from self._runs(self.row)
        yield from self._effects(self.row)
        yield from self._counters(self.row)
        yield from self._visible()
        worker = self.row.worker
        if self.row.status == "live" and worker is not None and workers is not None and worker not in workers:
            yield self._found("held by nobody", f"claim {self.row.claim_no} is held by {worker}, which is no worker")

    def _found(self, rule: Rule, what: str, *evidence: object) -> Violation:
        records = evidence or (*self.history.rows, *self.history.attempts, *self.runs)
        moments = [entry.at for entry in self.history.entries] + [attempt.ended for attempt in self.history.attempts]
        moments += [row.created if row.ended is None else row.ended for row in self.history.rows]
        return Violation(rule, (self.history.id,), what, tuple(map(repr, records)), max(moments, default=None))

    def _ends(self) -> Iterator[Violation]:
        rows, accepted = self.history.rows, self.terms.accepted.get(self.history.id)
        if not rows:
            if accepted is not None:
                self.forgotten = may_be = self.terms.was_forgotten(accepted)
            else:
                may_be = any(self.terms.was_forgotten(attempt.ended) for attempt in self.history.attempts) or any(
                    self.terms.claim_was_forgotten(run.began) for run in self.runs
                )
            if not may_be:
                yield self._found("lost", "it was accepted, and is nowhere")
        live = [row for row in rows if row.status == "live"]
        if len(rows) > 1:
            yield self._found("ended twice", f"it has {len(rows) - len(live)} ends and is live {len(live)} times")
        elif live and not self.terms.live:
            yield self._found("not ended", f"it is live, with claim {live[0].claim_no}")

    def _claims(self, row: JobRow) -> Iterator[Violation]:
        for claim_no, count in Counter(attempt.claim_no for attempt in self.history.attempts).items():
            if count > 1:
                yield self._found("settled twice", f"claim {claim_no} has {count} ends")
        last = self.by_claim.get(row.claim_no)
        running = row.status == "live" and row.worker is not None
        if (row.status == "completed" or running) and last is not None:
            what = "completed the job" if row.status == "completed" else "is held"
            yield self._found("settled twice", f"claim {row.claim_no} {what}, and ended by {last.move}")
        elif row.status in _ENDED_BY and last is not None and row.worker is not None:
            if last.move != _ENDED_BY[row.status] or last.worker != row.worker:
                yield self._found("fence", f"claim {row.claim_no} is {row.status}, and ended by {last.move}", row, last)
        ends = {"fail", "cancel"}
        for attempt in self.history.attempts:
            if not 0 < attempt.claim_no <= row.claim_no:
                yield self._found("fence", f"claim {attempt.claim_no} ended, the job has had {row.claim_no}", attempt)
            elif (
                self.terms.whole
                and attempt.move in ends
                and (attempt.claim_no < row.claim_no or row.status not in _ENDED_BY)
            ):
                yield self._found("ended twice", f"claim {attempt.claim_no} ended it by {attempt.move}, it went on")
        if self.terms.whole:
            yield from self._accounted(row)

    def _accounted(self, row: JobRow) -> Iterator[Violation]:
        held_last = row.status == "completed" or (row.status == "live" and row.worker is not None)
        without_end = (n for n in range(1, row.claim_no + (not held_last)) if n not in self.by_claim)
        if missing := list(islice(without_end, _MOST_NAMED)):
            yield self._found("claim without an end", f"claims {missing} of {row.claim_no} have no end")
        for earlier, later in pairwise(sorted(self.history.attempts, key=lambda attempt: attempt.claim_no)):
            if later.ended < earlier.ended - self.terms.slack:
                what = f"claim {later.claim_no} ended before claim {earlier.claim_no}"
                yield self._found("fence", what, earlier, later)

    def _runs(self, row: JobRow) -> Iterator[Violation]:
        for claim_no, count in Counter(run.claim_no for run in self.runs).items():
            of_claim = [run for run in self.runs if run.claim_no == claim_no]
            if count > 1 and not any(self.terms.claim_was_forgotten(run.began) for run in of_claim):
                yield self._found("claim ran twice", f"claim {claim_no} has {count} runs", *of_claim)
        for place, later in enumerate(self.runs):
            for earlier in self.runs[:place]:
                yield from self._overlap(earlier, later)
        if row.status == "completed" and row.job_type in self.terms.runs_of:
            if not any(run.claim_no == row.claim_no and run.ended is not None and run.well for run in self.runs):
                yield self._found("completed without a run", f"no run of claim {row.claim_no} has returned")

    def _overlap(self, earlier: Run, later: Run) -> Iterator[Violation]:
        ended = earlier.ended
        if ended is None:
            # Who knows what befell the processes knows that this run goes on; else its end may merely be unwritten.
            ended = float("inf") if self.cuts is not None else later.began
            if self.cuts is not None and (gone := self.cuts.gone(earlier)) is not None:
                ended = gone
        if ended <= later.began or self.terms.claim_was_forgotten(earlier.began):
            return
        lost = self.by_claim.get(earlier.claim_no)
        rescued = lost is not None and lost.move == "rescue"
        if rescued and (self.cuts is None or self.cuts.excuses(earlier, later)):
            self.taken_over += 1
            return
        why = "its worker was given up for dead, and went on undisturbed" if rescued else "its worker had its lease"
        what = f"claim {later.claim_no} began while claim {earlier.claim_no} ran: {why}"
        yield self._found("runs overlap", what, earlier, later, *([lost] if lost else []))

    def repeated(self) -> bool:
        """Whether it ran again after a run had returned, the claim or the end of which a failover has forgotten."""
        return self.row is not None and any(
            earlier.well and earlier.ended is not None and earlier.ended <= later.began and self._was_forgotten(earlier)
            for earlier, later in combinations(self.runs, 2)
        )

    def _was_forgotten(self, run: Run) -> bool:
        ended = self.by_claim.get(run.claim_no)
        if ended is not None and ended.move not in ("release", "rescue"):
            return False
        return self.terms.claim_was_forgotten(run.began) or (
            run.ended is not None and self.terms.was_forgotten(run.ended)
        )

    def _effects(self, row: JobRow) -> Iterator[Violation]:
        effects = Counter(entry.claim_no for entry in self.history.entries if entry.event == "effect")
        if not effects:
            if row.status == "completed" and row.job_type in self.terms.effects_of:
                yield self._found("effect missing", f"claim {row.claim_no} completed it, without its effect")
            return
        for claim_no, count in effects.items():
            ended = self.by_claim.get(claim_no)
            landed = (row.status == "completed" and claim_no == row.claim_no) or (
                ended is not None and ended.move == "reschedule"
            )
            if count > 1:
                yield self._found("effect doubled", f"claim {claim_no} has {count} effects")
            elif not landed:
                how = "has not ended" if ended is None else f"ended by {ended.move}"
                yield self._found("effect of a lost claim", f"claim {claim_no} {how}, and its effect is there")
        completes = row.status == "completed" and row.job_type in self.terms.effects_of
        if completes and row.claim_no not in effects:
            yield self._found("effect missing", f"claim {row.claim_no} completed it; effects are of {sorted(effects)}")

    def _counters(self, row: JobRow) -> Iterator[Violation]:
        wrong = list(self._counted_since(row)) if self.terms.whole else []
        if not 1 <= row.attempt <= row.failures + 1:
            wrong.append(f"attempt is {row.attempt} after {row.failures} failures")
        if row.crashes > row.failures:
            wrong.append(f"crashes is {row.crashes} of {row.failures} failures")
        most = self.terms.n_attempts.get(row.job_type)
        if most is not None and row.failures > most:
            wrong.append(f"failures is {row.failures}, n_attempts {most}")
        if self.terms.max_crashes is not None and row.crashes > self.terms.max_crashes:
            wrong.append(f"crashes is {row.crashes}, the most allowed is {self.terms.max_crashes}")
        if wrong:
            yield self._found("counters", "; ".join(wrong))

    def _counted_since(self, row: JobRow) -> Iterator[str]:
        """Count what came since the last reschedule, where everything is counted anew."""
        moves = [attempt.move for attempt in sorted(self.history.attempts, key=lambda each: each.claim_no)]
        since = moves[len(moves) - moves[::-1].index("reschedule") :] if "reschedule" in moves else moves
        crashes = since.count("rescue")
        least = crashes + since.count("retry")
        if row.crashes != crashes:
            yield f"crashes is {row.crashes}, {crashes} workers were lost since the last reschedule"
        if not least <= row.failures <= least + since.count("fail") + since.count("cancel"):
            yield f"failures is {row.failures}, {least} attempts failed since the last reschedule"

    def _visible(self) -> Iterator[Violation]:
        for attempt in self.history.attempts:
            if attempt.move != "rescue":
                continue
            lost_at = self._lost_at(attempt)
            self.rescued.append((lost_at, attempt.ended))
            if self.terms.promised is None:
                continue
            if lost_at is None:
                what = f"claim {attempt.claim_no} was taken from a worker that nothing had befallen"
                yield self._found("invisible", what, attempt)
            elif attempt.ended > (due := deadline(self.terms, lost_at)):
                what = f"claim {attempt.claim_no} was given back {attempt.ended - due:.1f} s later than promised"
                yield self._found("invisible", what, attempt)

    def _lost_at(self, attempt: Attempt) -> float | None:
        """Return when the worker of a claim was gone, or else when the fault began that came last; None: none did."""
        run = next((run for run in self.runs if run.claim_no == attempt.claim_no), None)
        gone = None if run is None or self.cuts is None else self.cuts.gone(run)
        if gone is None or gone > attempt.ended:
            fault = last_before(self.terms.faults, attempt.ended)
            return None if fault is None else fault.began
        return gone
