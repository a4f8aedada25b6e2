"""Batches that end their jobs in a transaction of their own: isolated by savepoints, or bisected."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import psycopg
import pytest
from batched.helpers import ONCE, QUICK, Doc, loaded, statuses
from engine.helpers import SOON, count, moves, query, until, value

from piecework import BatchItem, BatchOutcomes, ClaimLost, CurrentBatch, Fail, Jobs, ProbeBudget, Reschedule
from piecework.store.connection import AsyncConnection
from piecework.store.lending import Lending

INSERT = "INSERT INTO written VALUES (%s)"


class Written:
    """A table of the application's, in which a number can stand once."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        query(dsn, "CREATE TABLE written (number int PRIMARY KEY)")

    def add(self, number: int) -> None:
        query(self._dsn, INSERT, number)

    def remove(self, number: int) -> None:
        query(self._dsn, "DELETE FROM written WHERE number = %s", number)

    def numbers(self) -> list[object]:
        return [number for (number,) in query(self._dsn, "SELECT number FROM written ORDER BY number")]


@pytest.fixture
def written(dsn: str) -> Written:
    return Written(dsn)


def failures(dsn: str, job: object) -> int:
    """How many attempts of a job have failed. It may have been handed back besides: due again, it was claimed while the
    batch that had ended its attempt was about to return."""
    return moves(dsn, job).count("retry")


async def write(item: BatchItem[Doc], conn: psycopg.AsyncConnection) -> int:
    await conn.execute(INSERT, [item.config.number])
    return item.config.number


@pytest.mark.postgres(18, 15)
async def test_one_job_that_fails_undoes_what_it_wrote_and_the_others_commit(
    jobs: Jobs, dsn: str, written: Written
) -> None:
    written.add(2)
    sizes: list[int] = []

    @jobs.batched(retry=QUICK)
    async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes[int]:
        sizes.append(len(batch.items))

        async def each(item: BatchItem[Doc], conn: psycopg.AsyncConnection) -> int:
            if item.config.number == 2:
                await conn.execute(INSERT, [100 + item.attempt])
            return await write(item, conn)

        if batch.items[0].attempt == 2:
            written.remove(2)
        return await batch.run_isolated(each)

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(4))
    async with jobs.worker():
        assert await handles.results(timeout=SOON) == [0, 1, 2, 3]
    assert sizes == [4, 1], "the failed one is retried alone"
    assert written.numbers() == [0, 1, 2, 3, 102]
    assert [failures(dsn, handle.id) for handle in handles] == [0, 0, 1, 0]
    error = value(dsn, "SELECT error->>'type' FROM piecework.attempts WHERE move = 'retry'")
    assert error == "psycopg.errors.UniqueViolation"


async def test_what_is_returned_keeps_what_was_written_whatever_the_outcome(
    jobs: Jobs, written: Written
) -> None:
    @jobs.batched(retry=ONCE)
    async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes[int]:
        async def each(item: BatchItem[Doc], conn: psycopg.AsyncConnection) -> int | Reschedule | Fail:
            await write(item, conn)
            match item.config.number:
                case 0:
                    return Fail("returned")
                case 1:
                    raise Fail("raised")
                case 2:
                    return Reschedule.after(SOON)
                case number:
                    return number

        return await batch.run_isolated(each)

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(4))
    async with jobs.worker():
        await until(written.numbers)
        for handle in (handles[0], handles[1], handles[3]):
            await handle.wait(timeout=SOON)
    assert await statuses(handles) == ["errored", "errored", "pending", "completed"]
    assert written.numbers() == [0, 2, 3]


async def test_the_ends_of_the_jobs_are_committed_with_what_they_wrote(
    jobs: Jobs, dsn: str, written: Written
) -> None:
    seen: list[object] = []

    @jobs.batched
    async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes[int]:
        outcomes = await batch.run_isolated(write)
        seen.append((written.numbers(), count(dsn, "finished_jobs WHERE status = 'completed'"), count(dsn, "jobs")))
        return outcomes

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(3))
    async with jobs.worker():
        assert await handles.results(timeout=SOON) == [0, 1, 2]
    assert seen == [([0, 1, 2], 3, 0)]
    assert count(dsn, "guards") == 0


async def test_a_commit_that_is_refused_fails_every_job_of_the_batch(jobs: Jobs, dsn: str, written: Written) -> None:
    query(dsn, "ALTER TABLE written ADD COLUMN other int REFERENCES written DEFERRABLE INITIALLY DEFERRED")

    @jobs.batched(retry=ONCE)
    async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes:
        async def each(item: BatchItem[Doc], conn: psycopg.AsyncConnection) -> None:
            dangling = 999 if item.config.number == 1 else None
            await conn.execute("INSERT INTO written VALUES (%s, %s)", [item.config.number, dangling])

        return await batch.run_isolated(each)

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(3))
    async with jobs.worker():
        await handles.wait(timeout=SOON)
    assert await statuses(handles) == ["errored"] * 3
    assert written.numbers() == []


async def test_a_deadlock_at_the_commit_costs_no_attempt(jobs: Jobs, dsn: str, written: Written) -> None:
    query(dsn, "CREATE SEQUENCE commits")
    query(dsn, "CREATE FUNCTION deadlock_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
               "IF nextval('commits') = 1 THEN RAISE deadlock_detected; END IF; RETURN NULL; END $$")
    query(dsn, "CREATE CONSTRAINT TRIGGER deadlock_once AFTER INSERT ON written DEFERRABLE INITIALLY DEFERRED "
               "FOR EACH ROW EXECUTE FUNCTION deadlock_once()")

    @jobs.batched(retry=ONCE)
    async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes[int]:
        return await batch.run_isolated(write)

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(3))
    async with jobs.worker():
        assert await handles.results(timeout=SOON) == [0, 1, 2]
    assert [moves(dsn, handle.id) for handle in handles] == [["release"]] * 3


async def test_an_error_that_is_swallowed_fails_its_job_and_not_the_batch(jobs: Jobs, written: Written) -> None:
    written.add(1)

    @jobs.batched(retry=ONCE)
    async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes:
        async def each(item: BatchItem[Doc], conn: psycopg.AsyncConnection) -> None:
            try:
                await write(item, conn)
            except psycopg.errors.UniqueViolation:
                pass

        return await batch.run_isolated(each)

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(3))
    async with jobs.worker():
        await handles.wait(timeout=SOON)
    assert await statuses(handles) == ["completed", "errored", "completed"]
    error = (await handles[1].load()).error
    assert error is not None
    assert "its error was swallowed" in error.message


async def test_a_result_that_cannot_be_stored_undoes_what_its_job_wrote(jobs: Jobs, written: Written) -> None:
    @jobs.batched(retry=ONCE)
    async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes[object]:
        async def each(item: BatchItem[Doc], conn: psycopg.AsyncConnection) -> object:
            await write(item, conn)
            return "\0" if item.config.number == 1 else item.config.number

        return await batch.run_isolated(each)

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(3))
    async with jobs.worker():
        await handles.wait(timeout=SOON)
    assert await statuses(handles) == ["completed", "errored", "completed"]
    assert written.numbers() == [0, 2]


async def test_a_job_that_is_another_workers_by_now_lets_nothing_be_committed(
    jobs: Jobs, dsn: str, written: Written
) -> None:
    lost: list[ClaimLost] = []

    @jobs.batched
    async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes[int]:
        async def each(item: BatchItem[Doc], conn: psycopg.AsyncConnection) -> int:
            if not lost and item.config.number == 2:
                query(dsn, "UPDATE piecework.jobs SET worker_id = NULL, run_at = run_at + interval '1 day' "
                           "WHERE id = %s", item.id)
            return await write(item, conn)

        try:
            return await batch.run_isolated(each)
        except ClaimLost as error:
            lost.append(error)
            assert written.numbers() == []
            raise

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(3))
    async with jobs.worker():
        assert await handles[0].result(timeout=SOON) == 0
        assert await handles[1].result(timeout=SOON) == 1
    assert len(lost) == 1
    assert str(handles[2].id) in str(lost[0])
    snapshots = await loaded(handles)
    assert [(each.status, each.attempt, each.failures) for each in snapshots] == [
        ("completed", 1, 0), ("completed", 1, 0), ("pending", 1, 0)
    ]  # fmt: skip
    assert moves(dsn, handles[0].id) == ["release"]
    assert written.numbers() == [0, 1]


async def test_what_a_batch_does_after_its_jobs_have_ended_changes_nothing(
    jobs: Jobs, dsn: str, written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    @jobs.batched
    async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes[int]:
        await batch.run_isolated(write)
        with pytest.raises(RuntimeError, match="was called for this batch before"):
            await batch.run_isolated(write)
        raise ValueError("too late")

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(2))
    async with jobs.worker():
        assert await handles.results(timeout=SOON) == [0, 1]
    assert count(dsn, "attempts") == 0
    assert sum("raised ValueError('too late') after its completion was committed" in m for m in caplog.messages) == 2


async def test_the_concurrency_keys_of_a_batch_are_handed_on(jobs: Jobs, dsn: str, written: Written) -> None:
    @jobs.batched(concurrency_key="even" * 3 + "{number}")
    async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes[int]:
        async def each(item: BatchItem[Doc], conn: psycopg.AsyncConnection) -> int:
            await conn.execute(INSERT, [len(written.numbers()) * 100 + item.config.number])
            return item.config.number

        return await batch.run_isolated(each)

    handles = await jobs.spawn_all(index.spec(Doc(number % 3)) for number in range(9))
    async with jobs.worker():
        assert await handles.results(timeout=SOON) == [number % 3 for number in range(9)]
        await until(lambda: count(dsn, "concurrency_keys") == 0)


@pytest.fixture
def broken_commits(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Let the connection of the first transaction break when it is to be committed: before that happens, or after."""

    def break_once(*, committed: bool) -> None:
        transaction = Lending.transaction

        @asynccontextmanager
        async def broken(self: Lending) -> AsyncGenerator[AsyncConnection]:
            monkeypatch.setattr(Lending, "transaction", transaction)
            async with transaction(self) as conn:
                yield conn
                if not committed:
                    await conn.close()
            raise psycopg.OperationalError("the connection is lost")

        monkeypatch.setattr(Lending, "transaction", broken)

    return break_once  # type: ignore[return-value]


@pytest.mark.parametrize("committed", [True, False])
async def test_when_the_answer_to_the_commit_is_lost_the_jobs_end_as_was_committed_or_run_again(
    jobs: Jobs, dsn: str, written: Written, broken_commits: Callable[..., None], committed: bool
) -> None:
    runs: list[int] = []
    broken_commits(committed=committed)

    @jobs.batched(retry=ONCE)
    async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes[int]:
        runs.append(len(batch.items))
        return await batch.run_isolated(write)

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(3))
    async with jobs.worker():
        assert await handles.results(timeout=SOON) == [0, 1, 2]
    assert written.numbers() == [0, 1, 2]
    assert runs == [3] if committed else [3, 3]
    assert [moves(dsn, handle.id) for handle in handles] == [[] if committed else ["release"]] * 3


class Bisecting:
    """A job type whose batches write their numbers at once, and fail for those that are there already."""

    def __init__(self, jobs: Jobs, budget: ProbeBudget = ProbeBudget.auto()) -> None:  # noqa: B008
        self.probes: list[list[int]] = []
        self.batches: list[int] = []
        self.conflicts = 0
        self.domain: set[int] = set()

        @jobs.batched(retry=ONCE)
        async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes[None]:
            self.batches.append(len(batch.items))
            return await batch.run_bisected(self._some, budget=budget)

        self.type = index

    async def _some(self, items: Sequence[BatchItem[Doc]], conn: psycopg.AsyncConnection) -> None:
        numbers = [item.config.number for item in items]
        self.probes.append(numbers)
        await conn.execute("INSERT INTO written SELECT unnest(%s::int[])", [numbers])
        if self.conflicts:
            self.conflicts -= 1
            await conn.execute("DO $$ BEGIN RAISE deadlock_detected; END $$")
        if self.domain & set(numbers):
            raise ValueError("not this one")

    async def run(self, jobs: Jobs, numbers: Sequence[int]) -> list[str]:
        handles = await jobs.spawn_all(self.type.spec(Doc(number)) for number in numbers)
        async with jobs.worker():
            await handles.wait(timeout=SOON)
        return await statuses(handles)


@pytest.mark.postgres(18, 15)
async def test_a_clean_batch_is_written_by_one_statement(jobs: Jobs, written: Written) -> None:
    bisecting = Bisecting(jobs)
    assert await bisecting.run(jobs, range(10)) == ["completed"] * 10
    assert bisecting.probes == [list(range(10))]
    assert written.numbers() == list(range(10))


async def test_one_culprit_is_isolated_and_the_others_commit(jobs: Jobs, written: Written) -> None:
    written.add(6)
    bisecting = Bisecting(jobs)
    assert await bisecting.run(jobs, range(10)) == ["errored" if n == 6 else "completed" for n in range(10)]
    assert len(bisecting.probes) <= 2 * math.ceil(math.log2(10)) + 1
    assert written.numbers() == list(range(10))


async def test_culprits_are_isolated_by_errors_that_are_not_the_databases(jobs: Jobs, written: Written) -> None:
    bisecting = Bisecting(jobs, ProbeBudget.full())
    bisecting.domain = {0, 5}
    assert await bisecting.run(jobs, range(8)) == ["errored" if n in (0, 5) else "completed" for n in range(8)]
    assert written.numbers() == [1, 2, 3, 4, 6, 7]


async def test_what_the_budget_did_not_reach_fails_and_recovers_alone(jobs: Jobs, dsn: str, written: Written) -> None:
    written.add(0)
    sizes: list[int] = []

    @jobs.batched(retry=QUICK)
    async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes[None]:
        sizes.append(len(batch.items))
        if sizes == [10, 1]:
            written.remove(0)

        async def some(items: Sequence[BatchItem[Doc]], conn: psycopg.AsyncConnection) -> None:
            await conn.execute("INSERT INTO written SELECT unnest(%s::int[])", [[i.config.number for i in items]])

        return await batch.run_bisected(some, budget=ProbeBudget.at_most(4))

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(10))
    async with jobs.worker():
        await handles.wait(timeout=SOON)
    assert sizes == [10, 1, 1], "four probes save eight of ten"
    assert await statuses(handles) == ["completed"] * 10
    assert [failures(dsn, handle.id) for handle in handles[:3]] == [1, 1, 0]
    types = query(dsn, "SELECT DISTINCT error->>'type' FROM piecework.attempts WHERE move = 'retry'")
    assert types == [("piecework.ProbesSpent",)]
    assert written.numbers() == list(range(10))


async def test_a_batch_that_may_be_probed_once_fails_as_a_whole(jobs: Jobs, written: Written) -> None:
    written.add(3)
    bisecting = Bisecting(jobs, ProbeBudget.at_most(1))
    assert await bisecting.run(jobs, range(5)) == ["errored"] * 5
    assert len(bisecting.probes) == 1
    assert written.numbers() == [3]


async def test_of_two_jobs_that_want_the_same_the_first_wins_and_the_second_fails_alone(
    jobs: Jobs, written: Written
) -> None:
    bisecting = Bisecting(jobs)
    assert await bisecting.run(jobs, [0, 1, 2, 1]) == ["completed", "completed", "completed", "errored"]
    assert written.numbers() == [0, 1, 2]


@pytest.mark.parametrize("budget", [ProbeBudget.auto(), ProbeBudget.at_most(1)])
async def test_a_deadlocked_probe_is_run_again_whole_and_is_not_charged_for(
    jobs: Jobs, written: Written, budget: ProbeBudget
) -> None:
    bisecting = Bisecting(jobs, budget)
    bisecting.conflicts = 1
    assert await bisecting.run(jobs, range(6)) == ["completed"] * 6
    assert bisecting.probes == [list(range(6))] * 2


async def test_the_third_conflict_gives_the_batch_up(jobs: Jobs, written: Written) -> None:
    bisecting = Bisecting(jobs)
    bisecting.conflicts = 3
    assert await bisecting.run(jobs, range(6)) == ["errored"] * 6
    assert bisecting.probes == [list(range(6))] * 3
    assert written.numbers() == []


async def test_a_batch_uses_a_connection_of_its_own_while_its_jobs_spawn(jobs: Jobs, written: Written) -> None:
    @jobs.job
    async def child(number: int) -> int:
        return number

    @jobs.batched(max_size=2, max_concurrent_batches=6)
    async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes[int]:
        async def each(item: BatchItem[Doc], conn: psycopg.AsyncConnection) -> int:
            await write(item, conn)
            await child.options(conn=conn).spawn(item.config.number)
            handle = await child.spawn(item.config.number)
            return await handle.result(timeout=SOON)

        return await batch.run_isolated(each)

    handles = await jobs.spawn_all(index.spec(Doc(number)) for number in range(12))
    async with jobs.worker():
        async with asyncio.timeout(SOON.total_seconds()):
            assert await handles.results(timeout=SOON) == list(range(12))


async def test_a_job_that_is_due_again_before_its_batch_has_returned_runs_soon_after(
    jobs: Jobs, dsn: str, written: Written
) -> None:
    runs, returned = 0, 0.0

    @jobs.batched
    async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes[int]:
        nonlocal runs, returned
        runs += 1
        if runs > 1:
            return batch.outcomes(lambda item: 2)

        async def each(item: BatchItem[Doc], conn: psycopg.AsyncConnection) -> int | Reschedule:
            return Reschedule.now()

        outcomes = await batch.run_isolated(each)
        await until(lambda: moves(dsn, batch.items[0].id).count("release") > 0)
        returned = time.monotonic()
        return outcomes

    handle = await index.spawn(Doc(1))
    async with jobs.worker():
        assert await handle.result(timeout=SOON) == 2
        assert time.monotonic() - returned < 4
    assert runs == 2
