"""Numbers and moments at the ends of their ranges: taken, held to what can be read, or refused where they are given."""

from __future__ import annotations

import math
import threading
import time
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from uuid import UUID

import pytest
from engine.app import ONCE
from engine.helpers import SOON
from hypothesis import given
from hypothesis import strategies as st

from hostile.helpers import is_readable, refusal, sql, told
from piecework import (
    ConfigurationError,
    InvalidOptions,
    JobNotFinished,
    Jobs,
    LivenessSettings,
    Reschedule,
    RetrySettings,
    WorkerSettings,
)
from piecework.base.latch import Latch
from piecework.base.moments import EARLIEST, LATEST
from piecework.store import claiming
from piecework.testing import ManualClock
from piecework.testing.history import JobHistory, JobRow, Terms, judge
from support.examples import examples
from support.scene import Scene

bare = Jobs()
LARGE = [2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, 10**4000]
EDGES = st.sampled_from([0, 1, -1, 32767, 32768, -32768, -32769, *LARGE, *(-n for n in LARGE)])


@bare.job
def work(n: int) -> None: ...


@examples(60)
@given(st.integers() | EDGES, st.integers() | EDGES)
def test_priorities_and_limits_are_what_a_smallint_holds_or_refused(priority: int, limit: int) -> None:
    options = {"priority": priority, "concurrency_key": "k", "concurrency_limit": limit}
    refused = refusal(InvalidOptions, lambda: work.options(**options))  # type: ignore[arg-type]
    assert (refused is None) is (-32768 <= priority <= 32767 and 1 <= limit <= 32767)
    assert refused is None or is_readable(refused)


@examples(40)
@given(st.timedeltas())
def test_a_delay_is_a_hundred_years_at_most(delay: timedelta) -> None:
    refused = refusal(InvalidOptions, lambda: work.options(delay=delay))
    assert (refused is None) is (abs(delay) <= timedelta(days=36_525))
    assert refused is None or is_readable(refused)


ZONES = [UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-12)), timezone(timedelta(hours=23, minutes=59))]
moments = st.builds(
    lambda moment, zone: moment.replace(tzinfo=zone),
    st.datetimes() | st.sampled_from([datetime.min, datetime.max, datetime(1, 1, 2), datetime(9999, 12, 31)]),
    st.sampled_from([*ZONES, timezone(-timedelta(hours=23, minutes=59))]),
)


@examples(12)
@given(st.lists(moments, min_size=1, max_size=6))
async def test_a_moment_of_any_zone_comes_back_as_far_as_it_can_be_read(jobs: Jobs, asked: list[datetime]) -> None:
    job = jobs.job(work.fn)
    found = await (await jobs.spawn_all([job.options(run_at=moment).spec(1) for moment in asked])).load()
    for moment, snapshot in zip(asked, found, strict=True):
        assert snapshot.run_at is not None
        # PostgreSQL adds microseconds in floating point.
        assert abs(snapshot.run_at - min(max(moment, EARLIEST), LATEST)) < timedelta(milliseconds=1)


async def test_what_is_due_at_an_end_of_time_is_shown_in_every_zone(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.job(work.fn)
    early = await job.options(run_at=datetime.min.replace(tzinfo=UTC)).spawn(1)
    late = await job.options(run_at=datetime.max.replace(tzinfo=UTC)).spawn(1)
    try:
        for zone in ("<-12>12", "<+14>-14"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            for handle in (early, late):
                await told("jobs", "show", str(handle.id), dsn=jobs.dsn)
    finally:
        monkeypatch.undo()
        time.tzset()


class NoZone(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None

    dst = utcoffset

    def tzname(self, moment: datetime | None) -> str | None:
        return None


async def test_a_reschedule_to_any_moment_or_after_any_time_lands(jobs: Jobs) -> None:
    asked = [
        Reschedule.after(timedelta.max), Reschedule.after(timedelta.min),
        *(Reschedule.at(moment.replace(tzinfo=zone)) for moment in (datetime.min, datetime.max) for zone in ZONES),
    ]  # fmt: skip
    runs = [0] * len(asked)

    @jobs.job(retry=ONCE)
    async def again(number: int) -> int | Reschedule:
        runs[number] += 1
        return asked[number] if runs[number] == 1 else number

    async with jobs.worker():
        handles = await jobs.spawn_all([again.spec(n) for n in range(len(asked))])
        soon = range(1, 6)
        assert await handles[1:6].results(timeout=SOON) == list(soon)
    for n, handle in enumerate(handles):
        found = await handle.load()
        assert n in soon or (found.run_at is not None and found.run_at.year > 2100), n


def test_a_moment_without_an_offset_names_no_moment() -> None:
    vague = datetime(2031, 1, 1, tzinfo=NoZone())
    assert isinstance(refusal(ValueError, lambda: Reschedule.at(vague)), ValueError)
    assert refusal(InvalidOptions, lambda: work.options(run_at=vague)) is not None


others = st.sampled_from(["3", None, True, b"1", [], timedelta(0), timedelta.max])
numbers: st.SearchStrategy[Any] = st.one_of(st.integers(), EDGES, st.floats(), st.timedeltas(), others)


@examples(120)
@given(
    st.sampled_from([RetrySettings, WorkerSettings, LivenessSettings]),
    st.fixed_dictionaries({}, optional=dict.fromkeys(
        ("n_attempts", "n_warn_attempts", "min_backoff", "max_backoff", "backoff_jitter_pct", "concurrency", "threads",
         "prefetch", "shutdown_grace", "look_every", "max_crashes", "beat", "stop", "exit", "lease",
         "attempt_reset_after_backoff_multiples"), numbers)),
)  # fmt: skip
def test_settings_are_checked_where_they_are_made(kind: type[Any], chosen: dict[str, Any]) -> None:
    fields = {name: value for name, value in chosen.items() if name in kind.__dataclass_fields__}
    refused = refusal(ConfigurationError, lambda: kind(**fields))
    assert refused is None or is_readable(refused)
    if kind is WorkerSettings and refused is None:
        settings = kind(**fields)
        assert all(1 <= getattr(settings, name) < 2**31 for name in ("concurrency", "threads", "max_crashes"))


@pytest.mark.parametrize("queues", ["default", [], [""], ["a\0"], ["\ud800"], ["x" * 201], [5], [None], ("a", "")])
def test_a_worker_takes_from_queues_that_there_can_be(queues: Any) -> None:
    refused = refusal(ConfigurationError, lambda: WorkerSettings(queues=queues))
    assert refused is not None
    assert is_readable(refused)


async def test_waits_and_timeouts_may_be_as_long_as_a_timedelta_goes(jobs: Jobs) -> None:
    @jobs.job(timeout=timedelta.max)
    async def one() -> int:
        return 1

    settings = WorkerSettings(
        look_every=timedelta(days=36_500), shutdown_grace=timedelta(days=36_500), concurrency=1_000_000,
        prefetch=1_000_000, max_crashes=1_000_000,
    )  # fmt: skip
    async with jobs.worker(settings):
        assert await (await one.spawn()).result(timeout=timedelta.max) == 1
        later = await one.options(delay=timedelta(hours=1)).spawn()
        for timeout in (timedelta.min, timedelta(microseconds=-1), timedelta(0)):
            with pytest.raises(JobNotFinished):
                await later.result(timeout=timeout)
        await told("status", dsn=jobs.dsn)


def test_a_latch_is_waited_for_as_long_as_anybody_likes() -> None:
    latch = Latch()
    threading.Timer(0.05, latch.set).start()
    assert latch.block(timedelta.max.total_seconds())
    assert latch.block(math.inf)


async def test_a_clock_is_turned_within_what_can_be_read(jobs: Jobs) -> None:
    async with ManualClock(jobs) as clock:
        for moment in (datetime.min, datetime.max):
            for zone in ZONES:
                now = await clock.set(moment.replace(tzinfo=zone))
                assert now.year in (1, 9999)
                assert await clock.now() == now
        assert (await clock.advance(timedelta(days=36_500))).year == 9999
        with pytest.raises(ValueError, match="a hundred years"):
            await clock.advance(timedelta.max)
        assert (await clock.now()).year == 9999


async def test_large_numbers_are_printed_to_the_last_digit(jobs: Jobs) -> None:
    job = jobs.job(work.fn)
    for number in (2**53 + 1, 2**63 + 1, -(2**64) - 1, 10**40 + 1):
        handle = await job.spawn(number)
        shown = await told("jobs", "show", str(handle.id), dsn=jobs.dsn)
        assert shown["job"]["config"] == {"n": number}  # type: ignore[index]


async def test_transactions_and_beats_past_2_to_53_are_counted_to_the_last_digit(shared_dsn: str) -> None:
    large = 2**53 + 1
    answers = iter([f"[null, {large}, 0, 0, 0]", None, str(large + 2)])

    class Told:
        async def value(self, statement: str, *params: object) -> object:
            return next(answers)

    assert (await claiming.look(Told(), "w", [], [])).xmin == large  # type: ignore[arg-type]
    assert await claiming.declare_idle(Told(), "w", [], []) == large + 2  # type: ignore[arg-type]
    async with Scene.open(shared_dsn) as scene:
        scene.clear()
        one, other = scene.worker(), scene.worker()
        scene.sql.execute("UPDATE workers SET beat_no = %s", [2**62 + 1])
        beat = scene.pulse.beat(one, draining=False, job_types=["work"])
        assert beat is not None
        assert [(id, beat_no) for id, beat_no, _ in beat.others] == [(other, 2**62 + 1)]
        assert scene.pulse.rescue(other, 2**62, 18.0) is None
        assert scene.pulse.rescue(other, 2**62 + 1, 18.0) == []


async def test_no_sequence_gives_out_numbers_that_could_run_out(jobs: Jobs) -> None:
    assert await sql(jobs.dsn, "SELECT sequencename FROM pg_sequences WHERE schemaname = 'piecework'") == []


def test_the_checker_of_histories_takes_claims_of_any_number() -> None:
    largest = 2**31 - 1
    row = JobRow("completed", "work", "default", 0, 0.0, 0.0, largest, "w", 1.0, 2.0)
    report = judge([JobHistory("a", [row])], Terms(live=True))
    assert report.counts["claim without an end"] == 1
    assert len(str(report.violations[0])) < 500


async def test_ids_of_any_version_and_age_are_ids(jobs: Jobs) -> None:
    job = jobs.job(work.fn)
    ids = [UUID(int=n) for n in (0, 1, 2**53 + 1, 2**64, 2**127, 2**128 - 1)]
    ids += [UUID(int=(ms << 80) | (7 << 76) | (2 << 62)) for ms in (0, 1, 2**47, 2**48 - 1)]
    handles = await jobs.spawn_all([job.options(id=id).spec(1) for id in ids])
    assert [found.id for found in await handles.load()] == ids
    assert await handles.cancel() == [True] * len(ids)
    assert [found.status for found in await jobs.handles(ids).load()] == ["cancelled"] * len(ids)
    assert await handles.retry() == [True] * len(ids)
    await told("jobs", "list", dsn=jobs.dsn)


