"""What log records say of jobs, at which level."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from engine.helpers import SOON
from telemetry.seen import Seen, facts, itself

from piecework import CurrentJob, JobLogFilter, Jobs, Reschedule, RetrySettings
from piecework.engine.facts import listed
from piecework.work import log_filter

QUICK = {"min_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=5)}


def failures(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if "failed in attempt" in record.getMessage()]


async def levels(jobs: Jobs, caplog: pytest.LogCaptureFixture, retry: RetrySettings) -> list[int]:
    @jobs.job(retry=retry)
    async def unlucky() -> None:
        raise LookupError("no such account")

    async with jobs.worker():
        await (await unlucky.spawn()).wait(timeout=SOON)
    return [record.levelno for record in failures(caplog)]


async def test_s13_failure_number_n_warn_attempts_is_the_last_warning(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    told = await levels(jobs, caplog, RetrySettings(n_attempts=5, n_warn_attempts=2, **QUICK))
    assert told == [logging.WARNING, logging.WARNING, logging.ERROR, logging.ERROR, logging.ERROR]


async def test_s12_s13_without_a_limit_of_warnings_only_the_failure_that_ends_the_job_is_an_error(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    told = await levels(jobs, caplog, RetrySettings(n_attempts=5, n_warn_attempts=None, **QUICK))
    assert told == [logging.WARNING] * 4 + [logging.ERROR]
    assert [record.__dict__["will_retry"] for record in failures(caplog)] == [True] * 4 + [False]


async def test_s13_failures_in_a_row_end_with_a_completion_or_a_reschedule(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[int] = []

    @jobs.job(retry=RetrySettings(n_warn_attempts=1, **QUICK))
    async def wavering(job: CurrentJob) -> Reschedule | None:
        runs.append(job.attempt)
        if len(runs) == 2:
            return Reschedule.now()
        if len(runs) in (1, 3):
            raise LookupError
        return None

    async with jobs.worker():
        await (await wavering.spawn()).result(timeout=SOON)
    assert runs == [1, 2, 1, 2]
    assert [record.levelno for record in failures(caplog)] == [logging.WARNING] * 2


async def test_s10_s14_the_record_of_a_failure_has_the_facts_of_its_span(
    jobs: Jobs, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    retry = RetrySettings(n_attempts=2, min_backoff=timedelta(milliseconds=30), backoff_jitter_pct=0)
    before = datetime.now(UTC)
    await levels(jobs, caplog, retry)
    spans, records = seen.all("job.fail_job"), failures(caplog)
    own = {name for name in facts(spans[0]) if not name.startswith("messaging.")} - {"next_run_at"}
    assert own > {
        "job_id", "job_type", "attempt", "queue", "worker_id", "will_retry", "error", "error.type", "error.message",
        "error.level", "exception.type", "exception.message", "retry_delay_ms",
    }  # fmt: skip
    for span, record in zip(spans, records, strict=True):
        for name in own & facts(span).keys():
            assert record.__dict__[name] == facts(span)[name], name
    assert [record.__dict__.get("retry_delay_ms") for record in records] == [30, None]
    due = datetime.fromisoformat(records[0].__dict__["next_run_at"])
    assert before < due < datetime.now(UTC) + timedelta(seconds=1)


async def test_s10_without_opentelemetry_the_record_has_them_as_well(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    await levels(jobs, caplog, RetrySettings.never())
    [record] = failures(caplog)
    assert record.__dict__["error.message"] == "no such account"
    assert record.__dict__["worker_id"]


@pytest.fixture
def own_logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[logging.Logger, list[logging.LogRecord]]]:
    """A logger of the application's whose handler has the filter, and the records that it handled."""
    monkeypatch.setattr(log_filter, "_wanted", False)
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Keep()
    handler.addFilter(JobLogFilter())
    logger = logging.getLogger("app.of.the.filter")
    logger.addHandler(handler)
    yield logger, records
    logger.removeHandler(handler)


async def test_the_filter_says_of_each_record_which_job_wrote_it(
    jobs: Jobs, own_logger: tuple[logging.Logger, list[logging.LogRecord]]
) -> None:
    logger, records = own_logger

    @jobs.job
    async def on_the_loop() -> None:
        logger.warning("hello")

    @jobs.job
    def in_a_thread() -> None:
        logger.warning("hello")

    async with jobs.worker():
        for job in (on_the_loop, in_a_thread):
            handle = await job.spawn()
            await handle.result(timeout=SOON)
            said = records.pop().__dict__
            assert (said["job_id"], said["job_type"], said["attempt"]) == (str(handle.id), job.job_type, 1)
            assert said["queue"] == "default"
            assert said["worker_id"]
            assert said["trace_id"] == said["span_id"] == ""
    logger.warning("outside, %(job_id)s", {"job_id": "as it says"})
    said = records.pop().__dict__
    assert [said[name] for name in ("job_id", "job_type", "attempt", "queue", "worker_id")] == ["", "", 0, "", ""]
    logger.warning("of another's", extra={"job_id": "its own"})
    assert records.pop().__dict__["job_id"] == "its own"


async def test_the_filter_names_the_trace_of_the_run(
    jobs: Jobs, seen: Seen, own_logger: tuple[logging.Logger, list[logging.LogRecord]]
) -> None:
    logger, records = own_logger

    @jobs.job
    async def traced() -> None:
        logger.warning("hello")

    async with jobs.worker():
        await (await traced.spawn()).result(timeout=SOON)
    run = itself(seen.one("job.run"))
    assert records[0].__dict__["trace_id"] == f"{run.trace_id:032x}"
    assert records[0].__dict__["span_id"] == f"{run.span_id:016x}"


def test_a_line_that_names_many_jobs_stays_short() -> None:
    assert listed([]) == "none"
    assert listed([("1", "a"), ("2", "b")]) == "a 1, b 2"
    assert listed([(str(n), "a") for n in range(25)]).endswith("a 19 and 5 more")
