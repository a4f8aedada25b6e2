"""Names, keys and tags: each is taken as it is, or refused at the door by a message that names it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from engine.helpers import SOON
from hypothesis import given
from hypothesis import strategies as st

from hostile.helpers import call, connected, is_readable, refusal, told
from hostile.texts import any_texts, can_be_stored, is_name, names
from piecework import (
    ConfigTooLarge,
    ConfigurationError,
    CurrentJob,
    InvalidConfig,
    InvalidOptions,
    Jobs,
    JobSpec,
    RegistrationError,
    WorkerSettings,
)
from support.examples import examples

bare = Jobs()


@bare.job
def work(n: int) -> None: ...


@bare.job(key="account:{account}", concurrency_key="{account}")
def keyed(account: str) -> None: ...


def are_taken(option: str, value: Any) -> bool:
    return all(is_name(tag, 100) for tag in value) if option == "tags" else is_name(value)


all_options = st.fixed_dictionaries({}, optional={
    "queue": any_texts(), "key": any_texts(), "concurrency_key": any_texts(),
    "tags": st.lists(any_texts(), max_size=3) | st.lists(st.just("x"), min_size=50, max_size=52),
})  # fmt: skip


@examples(80)
@given(all_options)
def test_an_option_is_taken_as_it_is_or_refused_by_its_name(options: dict[str, Any]) -> None:
    wrong = {name for name, value in options.items() if not are_taken(name, value)}
    wrong |= {"tags"} if len(options.get("tags", ())) > 50 else set()
    refused = refusal(InvalidOptions, lambda: work.options(**options))
    assert (refused is not None) is bool(wrong)
    if refused is not None:
        assert [name for name in wrong if f"options({name}=…)" in str(refused)]
        assert is_readable(refused)
        return
    new = work.options(**options).spec(1).new
    assert {name: getattr(new, name) for name in options if name != "tags"} == {
        name: value for name, value in options.items() if name != "tags"
    }
    assert list(new.tags) == options.get("tags", [])


@examples(30)
@given(any_texts(), any_texts())
def test_a_job_type_and_an_alias_are_names(name: str, alias: str) -> None:
    jobs = Jobs()
    made: list[str] = []
    refused = refusal(RegistrationError, lambda: made.append(jobs.job(name, aliases=[alias])(work.fn).job_type))
    assert made == ([name or "work"] if is_name(name or "work") and is_name(alias) else [])
    assert refused is None or is_readable(refused)


@examples(30)
@given(any_texts())
def test_a_key_that_is_made_of_arguments_is_a_name_as_well(account: str) -> None:
    refused = refusal((InvalidOptions, InvalidConfig, ConfigTooLarge), lambda: keyed.spec(account))
    assert (refused is None) is (is_name(f"account:{account}") and is_name(account))
    if refused is not None:
        assert is_readable(refused)
        assert "account" in str(refused) or "keyed" in str(refused)
        return
    new = keyed.spec(account).new
    assert (new.key, new.concurrency_key) == (f"account:{account}", account)


@pytest.mark.parametrize(
    "value", [b"a", None, object(), "x" * 10**6, b"x" * 10**6, 10**4000, -(10**4000), {"a": "b" * 10**6}], ids=range(8)
)
@pytest.mark.parametrize("option", ["queue", "key", "concurrency_key", "tags", "id", "run_at", "delay", "priority"])
def test_a_refusal_is_short_whatever_was_given(option: str, value: object) -> None:
    with pytest.raises(InvalidOptions, match=f"options\\({option}") as refused:
        work.options(**{option: value})  # type: ignore[arg-type]
    assert is_readable(refused.value)


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("option", ["queue", "key", "tags", "id", "run_at", "delay", "priority", "concurrency_limit"])
def test_a_value_that_cannot_even_be_shown_is_refused(option: str) -> None:
    with pytest.raises(InvalidOptions, match="Unspeakable"):
        work.options(**{option: Unspeakable()})  # type: ignore[arg-type]


class Name(str):
    """A text of a class of its own, which may have methods of its own."""

    def __len__(self) -> int:
        return 5

    def __contains__(self, what: object) -> bool:
        return False


async def test_a_text_of_a_class_of_its_own_is_a_text(jobs: Jobs) -> None:
    job = jobs.job(work.fn)
    options = {"queue": Name("q"), "key": Name("k"), "concurrency_key": Name("c"), "tags": [Name("t")]}
    handle = await job.options(**options).spawn(1)  # type: ignore[arg-type]
    found = await handle.load()
    assert (found.queue, found.key, found.concurrency_key, found.tags) == ("q", "k", "c", ("t",))
    with pytest.raises(InvalidOptions):
        job.options(queue=Name("\0"))
    with pytest.raises(InvalidOptions):
        job.options(queue=Name("x" * 300))


stored_options = st.fixed_dictionaries({}, optional={
    "queue": names(), "key": names(), "concurrency_key": names(),
    "tags": st.lists(names().map(lambda text: text[:100]), max_size=5),
})  # fmt: skip


@examples(15)
@given(chosen=st.lists(stored_options, min_size=1, max_size=8))
async def test_names_come_back_from_the_database_as_they_were(jobs: Jobs, chosen: list[dict[str, Any]]) -> None:
    job = jobs.job(work.fn)
    specs: list[JobSpec[None]] = [job.options(**options).spec(1) for options in chosen]
    handles = await jobs.spawn_all(specs)
    for options, handle in zip(chosen, handles, strict=True):
        found = await handle.load()
        if handle.created:
            assert {name: getattr(found, name) for name in options} == {
                name: tuple(value) if name == "tags" else value for name, value in options.items()
            }
        else:
            assert found.key == options["key"]
        if "key" in options:
            holder = await job.keyed_handle(options["key"])
            assert holder is not None
            assert holder.id == handle.id


NAMES = (
    "o'brien", 'a "b" c', "back\\slash\\", "%s {} $1 :x ? $$ --", "two\nlines\r", "\x1b[31mred\x07", "\u202etfel",
    "\x9b2J", "שלום e\u0301", "😀👩\u200d👧", " ", "null", '["a"]', "x" * 200, "\U0010ffff" * 200, "\x01" * 200,
)  # fmt: skip


async def test_a_worker_takes_jobs_of_any_type_queue_and_key_and_the_command_line_shows_them(jobs: Jobs) -> None:
    async def tell(job: CurrentJob, n: int) -> tuple[int, str]:
        return n, job.job_type

    spawners = {name: jobs.job(name)(tell) for name in NAMES}
    async with jobs.worker(WorkerSettings(queues=NAMES)):
        for n, name in enumerate(NAMES):
            options = {"queue": name, "key": name, "tags": [name[:100]]}
            plain = await spawners[name].options(**options).spawn(n)  # type: ignore[arg-type]
            assert await plain.result(timeout=SOON) == (n, name)
            both = [spawners[name].options(queue=name, concurrency_key=name).spec(n) for _ in range(2)]
            assert await (await jobs.spawn_all(both)).results(timeout=SOON) == [(n, name)] * 2
        waiting = await spawners[NAMES[5]].options(queue=NAMES[5], delay=timedelta(days=1), key="k").spawn(1)
        assert "it may run at" in (await waiting.explain()).text
        listed = await told("jobs", "list", "--type", NAMES[5], "--queue", NAMES[5], dsn=jobs.dsn)
        assert len(listed["jobs"]) == 4  # type: ignore[arg-type]
        assert {each["job_type"] for each in listed["jobs"]} == {NAMES[5]}  # type: ignore[attr-defined]
        for name in NAMES[:8]:
            await asyncio.to_thread(call, "limits", "pause", name, "--queue", name, dsn=jobs.dsn)
        limits = (await told("limits", "list", dsn=jobs.dsn))["limits"]
        assert {each["key"] for each in limits} == set(NAMES[:8])  # type: ignore[attr-defined]
        shown = await told("jobs", "show", str(waiting.id), dsn=jobs.dsn)
        assert shown["job"]["queue"] == NAMES[5]  # type: ignore[index]
        status = await told("status", dsn=jobs.dsn)
        assert {each["job_type"] for each in status["jobs"]} == set(NAMES)  # type: ignore[attr-defined]
        assert await waiting.cancel()
        assert await waiting.retry()


@examples(30)
@given(any_texts())
def test_a_schema_has_a_name_that_postgresql_takes_or_is_refused(schema: str) -> None:
    fits = can_be_stored(schema) and 0 < len(schema.encode()) <= 63 and not schema.startswith("pg_")
    fits = fits and not any(part in schema for part in ("$$", "$text$", "$apply$"))
    refused = refusal(ConfigurationError, lambda: Jobs("host=nowhere", schema=schema))
    assert (refused is None) is fits
    assert refused is None or is_readable(refused)


@pytest.mark.parametrize("schema", ["\"Gro\u00df\" 'x' %s :y", "{} \\ $1\n\t; --", "👩\u200d👧 e\u0301 שלום"])
async def test_jobs_run_in_a_schema_of_any_name(empty_dsn: str, schema: str) -> None:
    jobs = Jobs(empty_dsn, schema=schema)

    @jobs.job(concurrency_key="{n}")
    async def double(n: int) -> int:
        return 2 * n

    async with jobs, jobs.worker():
        first = await double.spawn(1)
        async with await psycopg.AsyncConnection.connect(empty_dsn) as conn:
            second = await double.options(conn=conn).spawn(2)
        async with connected(empty_dsn) as other:
            third = await double.options(conn=other).spawn(3)
        assert [await each.result(timeout=SOON) for each in (first, second, third)] == [2, 4, 6]
    result = await asyncio.to_thread(call, "status", "--schema", schema, "--json", dsn=empty_dsn)
    assert result.exit_code == 0
