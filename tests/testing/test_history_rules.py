"""Each rule of the history checker finds the made-up history that breaks it, and no rule another one's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from piecework.testing.history import Attempt, Cut, Entry, Fault, JobHistory, JobRow, Rule, Setback, Terms, judge

TYPE = "work"
BASE: dict[str, Any] = {
    "status": "completed", "job_type": TYPE, "queue": "default", "priority": 0, "run_at": 1.0, "created": 1.0,
    "claim_no": 1, "worker": "w1", "started": 2.0, "ended": 3.0,
}  # fmt: skip
LIVE: dict[str, Any] = {"status": "live", "worker": None, "started": None, "ended": None}


def row(**values: Any) -> JobRow:
    return JobRow(**{**BASE, **values})


def run(claim_no: int, began: float, ended: float | None, process: str = "p1", *, well: bool = True) -> list[Entry]:
    begin = Entry("began", claim_no, process, began)
    return [begin] if ended is None else [begin, Entry("ended", claim_no, process, ended, well)]


def effect(claim_no: int, at: float = 2.5) -> Entry:
    return Entry("effect", claim_no, "p1", at)


def rescue(claim_no: int = 1, ended: float = 10.0, **values: Any) -> Attempt:
    return Attempt(claim_no, values.get("worker", "w1"), claim_no, "rescue", 2.0, ended)


def retry(claim_no: int = 1) -> Attempt:
    return Attempt(claim_no, "w1", claim_no, "retry", 2.0, 3.0)


PLAIN = JobHistory("a", [row()], entries=run(1, 2.0, 2.9))
RETRIED = JobHistory(
    "b", [row(claim_no=2, attempt=2, failures=1, started=4.0, ended=5.0)], [retry()],
    run(1, 2.0, 2.9, well=False) + run(2, 4.0, 4.9),
)  # fmt: skip
TAKEN_OVER = JobHistory(
    "c", [row(claim_no=2, attempt=2, failures=1, crashes=1, worker="w2", started=11.0, ended=12.0)], [rescue()],
    [*run(1, 2.0, 20.0), *run(2, 11.0, 11.9, "p2"), effect(2)],
)  # fmt: skip
REFUSED = JobHistory("d", [row(status="errored")], [Attempt(1, "w1", 1, "fail", 2.0, 3.0)], run(1, 2.0, 2.9))
NEVER_RUN = JobHistory("e", [row(status="cancelled", claim_no=0, worker=None, started=None)])
RESCHEDULED = JobHistory(
    "f", [row(claim_no=3, started=6.0, ended=7.0)],
    [retry(), Attempt(2, "w1", 2, "reschedule", 4.0, 5.0)],
    [*run(1, 2.0, 2.9), *run(2, 4.0, 4.9), *run(3, 6.0, 6.9)],
)  # fmt: skip
CLEAN = [PLAIN, RETRIED, TAKEN_OVER, REFUSED, NEVER_RUN, RESCHEDULED]
FROZEN = [Cut("p1", 5.0, "frozen")]


def keyed(job: str, began: float, ended: float, **values: Any) -> JobHistory:
    return JobHistory(job, [row(concurrency_key="k", **values)], entries=run(1, began, ended))


def named(job: str, created: float, ended: float) -> JobHistory:
    return JobHistory(job, [row(key="k", created=created, ended=ended)])


def change(history: JobHistory, **values: Any) -> JobHistory:
    return JobHistory(history.id, [row(**values)], history.attempts, history.entries)


def test_a_run_that_hears_late_of_its_commit_holds_its_key_no_longer_than_that() -> None:
    key = {"concurrency_key": "k"}
    late = JobHistory("a", [row(**key)], entries=run(1, 2.0, 3.5))
    other = JobHistory("b", [row(**key, run_at=1.5, started=3.2, ended=4.1)], entries=run(1, 3.2, 4.0))
    assert not judge([late, other], Terms(), []).violations
    held = JobHistory("a", [row(**key, ended=3.3)], entries=run(1, 2.0, 3.5))
    assert judge([held, other], Terms(), []).counts["concurrency limit"]


@pytest.mark.parametrize("began, cuts", [(3.9, None), (28.9, [Cut("p1", 2.0, "frozen", 27.0)])])
def test_a_job_that_was_claimed_before_an_older_one_was_due_may_begin_before_it(
    began: float, cuts: list[Cut] | None
) -> None:
    histories = [keyed("a", 30.0, 31.0), keyed("b", began, 29.0, run_at=0.5, priority=1)]
    assert judge(histories, Terms(cuts=cuts), []).violations == []
    assert judge(histories, Terms(cuts=[Cut("p2", 2.0, "frozen", 27.0)]), []).holds == (began < 4.0)


def test_a_clean_history_passes_by_all_rules() -> None:
    terms = Terms(
        accepted=dict.fromkeys("abcdef", 1.0), runs_of=frozenset([TYPE]), cuts=FROZEN,
        n_attempts={TYPE: 5}, max_crashes=5, faults=[Fault("frozen", 5.0, 6.0)], promised=5.0,
    )  # fmt: skip
    in_turn = [keyed("g", 2.0, 3.0), keyed("h", 3.0, 4.0, run_at=1.5), named("i", 1.0, 2.0), named("j", 2.0, 3.0)]
    report = judge([*CLEAN, *in_turn[:2], *(JobHistory(h.id, h.rows, entries=run(1, 1.0, 2.0)) for h in in_turn[2:])],
                   terms, [])  # fmt: skip
    assert report.violations == []
    assert report.holds
    assert (report.jobs, report.runs, report.effects, report.taken_over) == (10, 13, 1, 1)
    assert report.statuses == {"completed": 8, "errored": 1, "cancelled": 1}


def test_a_worker_that_settles_several_jobs_of_a_key_at_once_has_run_them_one_after_the_other() -> None:
    by_the_rows = [
        JobHistory(job, [row(concurrency_key="k", started=2.0 + n / 10, ended=3.0, run_at=1.0 + n / 10)])
        for n, job in enumerate("bac")
    ]
    assert judge(by_the_rows, Terms(), ["w1"]).violations == []


OPEN = Terms(live=True)
BROKEN: list[tuple[str, Rule, list[JobHistory], Terms]] = [
    ("an accepted job is nowhere", "lost", [PLAIN], Terms(accepted={"x": 1.0})),
    ("an attempt has no job", "lost", [JobHistory("a", [], [retry()])], Terms()),
    ("a job is live", "not ended", [JobHistory("a", [row(**LIVE, claim_no=0)])], Terms()),
    ("a job has two ends", "ended twice", [JobHistory("a", [row(), row()])], Terms()),
    ("a job lives after its end", "ended twice", [JobHistory("a", [row(**LIVE, claim_no=0), row()])], OPEN),
    ("a job goes on after it failed", "ended twice", [
        JobHistory("a", [row(claim_no=2, failures=1)], [Attempt(1, "w1", 1, "fail", 2.0, 2.5)])], Terms()),
    ("a claim has two ends", "settled twice", [
        JobHistory("a", [row(claim_no=2, failures=1, attempt=2)], [
            retry(), Attempt(1, "w1", 1, "release", None, 3.0)])], Terms()),
    ("a claim that was given up completes the job", "settled twice", [
        JobHistory("a", [row(failures=1, crashes=1)], [rescue()])], Terms()),
    ("a held claim has ended", "settled twice", [
        JobHistory("a", [row(status="live", ended=None, failures=1, crashes=1)], [rescue()])], OPEN),
    ("a claim left no trace", "claim without an end", [JobHistory("a", [row(claim_no=2)])], Terms()),
    ("a claim that was never given out has ended", "fence", [
        JobHistory("a", [row(claim_no=1, failures=1)], [retry(2)])], Terms()),
    ("the worker that ended a claim did not hold it", "fence", [
        JobHistory("a", [row(status="errored")], [Attempt(1, "w2", 1, "fail", 2.0, 3.0)])], Terms()),
    ("a claim ended before the one before it", "fence", [
        JobHistory("a", [row(claim_no=3, failures=2, attempt=3)], [
            Attempt(1, "w1", 1, "retry", 2.0, 3.0), Attempt(2, "w1", 2, "retry", 2.0, 2.5)])], Terms()),
    ("no run returned", "completed without a run", [
        JobHistory("a", [row()], entries=run(1, 2.0, 3.0, well=False))], Terms(runs_of=frozenset([TYPE]))),
    ("a claim ran twice", "claim ran twice", [
        JobHistory("a", [row()], entries=run(1, 2.0, 3.0) + run(1, 4.0, 5.0, "p2"))], Terms()),
    ("runs overlap, the first was not given up", "runs overlap", [
        JobHistory("a", [row(claim_no=2, attempt=2, failures=1)], [retry()], [
            *run(1, 2.0, 4.5), *run(2, 4.0, 5.0, "p2")])], Terms()),
    ("runs overlap, nothing had befallen the first", "runs overlap", [TAKEN_OVER], Terms(cuts=[Cut("p1", 15.0)])),
    ("a run whose process lives has no end", "runs overlap", [
        JobHistory("a", [row(claim_no=2, attempt=2, failures=1)], [retry()], run(1, 2.0, None) + run(2, 4.0, 5.0))],
     Terms(cuts=[])),
    ("an effect is missing", "effect missing", [PLAIN], Terms(effects_of=frozenset([TYPE]))),
    ("an effect is there twice", "effect doubled", [
        JobHistory("a", [row()], entries=[*run(1, 2.0, 3.0), effect(1), effect(1)])], Terms()),
    ("a late write changed something", "effect of a lost claim", [
        JobHistory("a", TAKEN_OVER.rows, TAKEN_OVER.attempts, [*TAKEN_OVER.entries, effect(1)])], Terms()),
    ("two jobs of a key at once", "concurrency limit", [keyed("a", 2.0, 3.0), keyed("b", 2.5, 4.0)], Terms()),
    ("two jobs of a key at once, by the rows", "concurrency limit", [
        JobHistory("a", [row(concurrency_key="k", started=2.0, ended=3.0)]),
        JobHistory("b", [row(concurrency_key="k", started=2.5, ended=4.0, worker="w2")])], Terms()),
    ("four jobs of a key with room for three", "concurrency limit", [
        keyed(job, 2.0 + n / 10, 3.0, concurrency_limit=3) for n, job in enumerate("abcd")], Terms()),
    ("the younger job first", "order in a key", [keyed("a", 6.0, 7.0), keyed("b", 4.1, 5.0, run_at=1.5)], Terms()),
    ("the job of less priority first", "order in a key", [
        keyed("b", 6.0, 7.0), keyed("a", 4.1, 5.0, priority=1)], Terms()),
    ("the younger jobs first, the first of them early enough", "order in a key", [
        keyed("a", 6.0, 7.0), keyed("b", 3.0, 4.0, run_at=1.5), keyed("c", 4.1, 5.0, run_at=1.5)], Terms()),
    ("the younger job first, its process had gone on long before", "order in a key", [
        keyed("a", 10.0, 11.0), keyed("b", 9.1, 9.9, run_at=1.5)], Terms(cuts=[Cut("p1", 1.5, "frozen", 6.0)])),
    ("two live jobs with one key", "unique key", [named("a", 1.0, 3.0), named("b", 2.0, 4.0)], Terms()),
    ("more failures than attempts", "counters", [change(RETRIED, claim_no=2, attempt=2, failures=2)], Terms()),
    ("more crashes than lost workers", "counters", [change(RETRIED, claim_no=2, attempt=2, failures=1, crashes=1)],
     Terms()),
    ("an attempt that is not counted", "counters", [change(RETRIED, claim_no=2, attempt=1, failures=0)], Terms()),
    ("more attempts than failures", "counters", [change(PLAIN, attempt=3)], Terms()),
    ("more attempts than the settings allow", "counters", [RETRIED], Terms(n_attempts={TYPE: 0})),
    ("more crashes than allowed", "counters", [TAKEN_OVER], Terms(max_crashes=0)),
    ("nobody holds a running job", "held by nobody", [
        JobHistory("a", [row(status="live", ended=None, worker="w9")])], OPEN),
    ("a rescue comes late", "invisible", [TAKEN_OVER], Terms(
        promised=3.0, cuts=FROZEN, faults=[Fault("frozen", 5.0, 6.0)])),
    ("a rescue comes late after a kill", "invisible", [TAKEN_OVER], Terms(promised=3.0, cuts=[Cut("p1", 6.0)])),
    ("a rescue without a cause", "invisible", [TAKEN_OVER], Terms(promised=3.0)),
]  # fmt: skip


@pytest.mark.parametrize("rule, histories, terms", [each[1:] for each in BROKEN], ids=[each[0] for each in BROKEN])
def test_what_breaks_a_rule_is_found_by_it_alone(rule: Rule, histories: list[JobHistory], terms: Terms) -> None:
    report = judge(histories, terms, ["w1"])
    assert dict(report.counts) == {rule: 1}, report.violations
    [violation] = report.violations
    assert violation.evidence
    assert violation.job_ids[0] in str(violation)


def test_each_rule_is_broken_once() -> None:
    from piecework.testing.history import RULES

    assert {rule for _, rule, _, _ in BROKEN} == set(RULES)


def test_what_a_failover_has_forgotten_is_counted_and_is_no_loss() -> None:
    twice = JobHistory("a", [row()], entries=run(1, 2.0, 5.0) + run(1, 4.0, 4.5, "p2"))
    terms = Terms(accepted={"a": 1.0, "x": 2.5}, forgotten=[(1.5, 3.0)])
    report = judge([twice], terms)
    assert report.holds
    assert (report.forgotten, report.repeated) == (["x"], [])
    assert not judge([twice], replace(terms, forgotten=[(3.0, 4.0)])).holds


def test_a_job_that_ran_and_was_forgotten_is_named_like_one_that_did_not() -> None:
    nowhere = JobHistory("x", entries=run(1, 2.6, 2.7))
    terms = Terms(accepted={"x": 2.5}, forgotten=[(1.5, 3.0)])
    report = judge([nowhere], terms)
    assert (report.holds, report.forgotten) == (True, ["x"])
    assert dict(judge([nowhere], replace(terms, forgotten=())).counts) == {"lost": 1}
    # What was accepted before that second is there, or is lost, whenever it ran.
    assert dict(judge([nowhere], replace(terms, accepted={"x": 1.0})).counts) == {"lost": 1}


@pytest.mark.parametrize("again, attempts, repeated", [
    (1, [], True),
    (2, [Attempt(1, "w1", 1, "release", 2.0, 6.0)], True),
    (2, [Attempt(1, "w1", 1, "reschedule", 2.0, 2.9)], False),
])  # fmt: skip
def test_a_job_that_had_returned_and_runs_again_is_named_unless_its_end_is_on_record(
    again: int, attempts: list[Attempt], repeated: bool
) -> None:
    ran = JobHistory(
        "a", [row(claim_no=again, ended=9.0)], attempts, run(1, 2.0, 2.8) + run(again, 7.0, 8.0, "p2")
    )  # fmt: skip
    report = judge([ran], Terms(forgotten=[(2.5, 3.0)]))
    assert report.repeated == (["a"] if repeated else [])
    assert judge([ran], Terms(forgotten=[(20.0, 21.0)])).repeated == []
    # What went on before it was forgotten, and did not come back, has run as it should.
    gone = JobHistory("a", [], [], ran.entries)
    assert judge([gone], Terms(accepted={"a": 2.6}, forgotten=[(2.5, 9.0)])).repeated == []


BACK = Setback(9_000.0, 9_010.0, 3600.0)


def test_moments_of_a_clock_that_was_set_back_are_put_right() -> None:
    """A worker is killed at 9001, the clock goes back at 9000.5 and is right again at 9010."""
    rows = [row(claim_no=2, attempt=2, failures=1, crashes=1, created=8_999.0, run_at=5_405.0, worker="w2",
                started=5_406.0, ended=5_407.0)]  # fmt: skip
    killed = JobHistory("a", rows, [rescue(1, 5_404.0)], [*run(1, 9_000.0, None), *run(2, 9_006.0, 9_006.9, "p2")])
    terms = Terms(promised=4.0, cuts=[Cut("p1", 9_001.0)], faults=[Fault("kill", 9_001.0, 9_001.0)])
    assert judge([killed], replace(terms, setbacks=[BACK])).holds
    # As they stand, nothing had befallen the worker when it was given up.
    assert dict(judge([killed], terms).counts) == {"invisible": 1}


def test_while_a_clock_is_set_back_the_younger_job_may_begin_first() -> None:
    def waited(job: str, created: float, began: float, behind: float = 0.0) -> JobHistory:
        start, end = began - behind, began + 1.0 - behind
        of_key = row(concurrency_key="k", run_at=created, created=created, started=start, ended=end)
        return JobHistory(job, [of_key], entries=run(1, began, began + 1.0))

    meanwhile = [waited("a", 8_999.0, 9_012.0), waited("b", 5_403.0, 9_004.0, behind=3600.0)]
    assert judge(meanwhile, Terms(setbacks=[BACK])).holds
    later = [waited("c", 9_020.0, 9_032.0), waited("d", 9_021.0, 9_030.0)]
    assert dict(judge([*meanwhile, *later], Terms(setbacks=[BACK])).counts) == {"order in a key": 1}


def test_a_fault_that_comes_meanwhile_puts_the_promise_off() -> None:
    faults = [Fault("frozen", 5.0, 6.0), Fault("restart", 8.0, 8.5)]
    assert judge([TAKEN_OVER], Terms(promised=2.5, cuts=[Cut("p1", 6.0)], faults=faults)).holds


def test_a_fault_that_does_not_hinder_a_rescue_does_not_put_it_off() -> None:
    """Every three seconds something breaks elsewhere, and a worker that was killed is noticed after a minute."""
    late = JobHistory("a", TAKEN_OVER.rows, [rescue(1, 60.0)], [*run(1, 2.0, None), *run(2, 61.0, 61.9, "p2")])
    elsewhere = [Fault("cut", at, at + 1.0, hinders=False) for at in range(3, 60, 3)]
    terms = Terms(promised=5.0, cuts=[Cut("p1", 3.0)])
    assert dict(judge([late], replace(terms, faults=elsewhere)).counts) == {"invisible": 1}
    assert judge([late], replace(terms, faults=[replace(fault, hinders=True) for fault in elsewhere])).holds


def test_a_process_that_stood_still_just_before_a_run_began_stands_still_in_it() -> None:
    """The signal takes a moment to arrive."""
    stood = Terms(cuts=[Cut("p1", 1.9, "frozen", 15.0)])
    assert judge([TAKEN_OVER], stood).holds
    assert dict(judge([TAKEN_OVER], Terms(cuts=[Cut("p1", 1.0, "frozen", 1.9)])).counts) == {"runs overlap": 1}


LIMITS = {("", "k"): 2, ("", "ac*"): 2, ("default", "acc*"): 3, ("", "acc*"): 1, ("other", "k"): 9}


@pytest.mark.parametrize("key, most", [("k", 2), ("acid", 2), ("account", 3), ("bank", 1)])
def test_limits_of_operators_count_by_the_longest_name_of_the_queue_or_of_all(key: str, most: int) -> None:
    def at_once(number: int) -> list[JobHistory]:
        return [
            JobHistory(str(n), [row(concurrency_key=key)], entries=run(1, 2.0 + n / 10, 2.9, f"p{n}"))
            for n in range(number)
        ]

    assert judge(at_once(most), Terms(limits=LIMITS)).holds
    assert dict(judge(at_once(most + 1), Terms(limits=LIMITS)).counts) == {"concurrency limit": 1}


def test_what_may_be_wrong_by_the_slack_is_left_alone() -> None:
    close = [named("a", 1.0, 3.0), named("b", 2.5, 4.0)]
    assert not judge(close, Terms(slack=0.4)).holds
    assert judge(close, Terms(slack=0.6)).holds


def test_of_many_violations_all_are_counted_and_some_kept() -> None:
    report = judge([JobHistory(str(n), [row(**LIVE, claim_no=0)]) for n in range(100)])
    assert report.counts["not ended"] == 100
    assert len(report.violations) == 20
