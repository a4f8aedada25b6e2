"""Where and when a job is spawned: settings, options, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from piecework import InvalidOptions, Jobs
from piecework.model.job import NewJob

jobs = Jobs()


@jobs.job
def bare(n: int) -> None: ...


@jobs.job(queue="mail", priority=-3, tags=["a", "b"])
def placed(n: int) -> None: ...


def new(**options: Any) -> NewJob:
    return bare.options(**options).spec(1).new


def test_settings_place_a_job_and_options_replace_them() -> None:
    assert (placed.spec(1).new.queue, placed.spec(1).new.priority) == ("mail", -3)
    assert tuple(placed.spec(1).new.tags) == ("a", "b")
    other = placed.options(queue="bulk", tags=("c",)).spec(1).new
    assert (other.queue, other.priority, tuple(other.tags)) == ("bulk", -3, ("c",))
    assert placed.spec(1).new.queue == "mail"


def test_times_become_microseconds() -> None:
    assert (new().run_at, new().delay) == (None, None)
    moment = datetime(1970, 1, 1, 2, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))
    assert new(run_at=moment).run_at == 3_600_000_005
    assert new(delay=timedelta(milliseconds=1)).delay == 1000
    assert new(delay=timedelta(seconds=-1)).delay == -1_000_000


def test_a_later_option_replaces_an_earlier_one_and_a_delay_replaces_a_run_at() -> None:
    spawner = bare.options(run_at=datetime.now(UTC), queue="a").options(delay=timedelta(seconds=1), queue="b")
    job = spawner.spec(1).new
    assert (job.run_at, job.delay, job.queue) == (None, 1_000_000, "b")


def test_an_id_is_made_or_taken() -> None:
    spec = bare.spec(1)
    assert spec.new.id == spec.id
    assert not spec.new.chosen
    chosen = bare.options(id=UUID(int=5)).spec(1)
    assert (chosen.id, chosen.new.id, chosen.new.chosen) == (UUID(int=5), UUID(int=5), True)
    assert chosen.job_type == "bare"


@pytest.mark.parametrize(
    "options, says",
    [
        ({"run_at": datetime.now(UTC), "delay": timedelta(1)}, "each says when the job is due, so give one of them"),
        ({"run_at": datetime(2026, 1, 1)}, "has no time zone, so it names no moment: write datetime.now(UTC)"),
        ({"run_at": "tomorrow"}, "run_at=…) takes an aware datetime, not 'tomorrow'"),
        ({"run_at": timedelta(1)}, "for a span of time use delay="),
        ({"delay": 5}, "delay=…) takes a timedelta, not 5: write timedelta(seconds=…)"),
        ({"delay": timedelta.max}, "more than a hundred years"),
        ({"queue": ""}, "queue=…) takes 1 to 200 characters, got 0"),
        ({"queue": "q" * 201}, "queue=…) takes 1 to 200 characters, got 201"),
        ({"queue": "a\0"}, "stores no NUL"),
        ({"queue": "a\ud800"}, "no lone surrogate"),
        ({"queue": None}, "queue=…) takes a text, not None"),
        ({"priority": 40_000}, "priority=…) takes -32768 to 32767, got 40000; lower runs first"),
        ({"priority": -32_769}, "got -32769"),
        ({"priority": "high"}, "takes an int, not 'high'"),
        ({"priority": True}, "takes an int, not True"),
        ({"tags": "abc"}, "takes a list of texts, not 'abc': write tags=['…']"),
        ({"tags": [1]}, "takes tags of 1 to 100 characters, got 1"),
        ({"tags": [""]}, "takes tags of 1 to 100 characters"),
        ({"tags": ["x" * 101]}, "takes tags of 1 to 100 characters"),
        ({"tags": ["a"] * 51}, "at most 50 tags, got 51"),
        ({"tags": ["a\0"]}, "stores no NUL"),
        ({"id": "0198"}, "takes a uuid.UUID, not '0198'"),
        ({"key": ""}, "key=…) takes 1 to 200 characters, got 0"),
        ({"key": "k" * 201}, "key=…) takes 1 to 200 characters, got 201"),
        ({"key": 7}, "key=…) takes a text, not 7"),
        ({"key": "a\0"}, "stores no NUL"),
        ({"concurrency_key": ""}, "concurrency_key=…) takes 1 to 200 characters, got 0"),
        ({"concurrency_key": "a\ud800"}, "no lone surrogate"),
        ({"concurrency_key": "a", "concurrency_limit": 0}, "takes an int from 1 to 32767, not 0"),
        ({"concurrency_key": "a", "concurrency_limit": True}, "takes an int from 1 to 32767, not True"),
        ({"concurrency_limit": 2}, "the jobs of type bare have no concurrency key to limit: give concurrency_key="),
        ({"prio": 3}, "options() takes no 'prio'; it takes concurrency_key, concurrency_limit, delay"),
    ],
)
def test_a_wrong_option_is_refused_and_the_message_says_what_to_write(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidOptions) as refused:
        bare.options(**options)
    assert says in str(refused.value)
    assert isinstance(refused.value, ValueError)


def test_keys_are_taken_as_they_are() -> None:
    job = new(key="{n}", concurrency_key="account:7", concurrency_limit=3)
    assert (job.key, job.concurrency_key, job.concurrency_limit) == ("{n}", "account:7", 3)
    assert (new().key, new().concurrency_key, new().concurrency_limit) == (None, None, None)
    later = bare.options(concurrency_key="a", concurrency_limit=2).options(concurrency_limit=4).spec(1).new
    assert (later.concurrency_key, later.concurrency_limit) == ("a", 4)
