"""How arguments become a stored config, what is refused at spawn, and how old configs are read by new code."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from functools import cached_property
from typing import Annotated, Any, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest

from piecework import ConfigTooLarge, CurrentJob, InvalidConfig, Jobs, JobSpec, UndecodableConfig
from piecework.model.job import ClaimedJob
from piecework.work.registry import RegisteredJob

jobs = Jobs()


class Colour(Enum):
    RED = "red"


class Address(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    street: str
    number: int = pydantic.Field(alias="no")

    @pydantic.computed_field
    @cached_property
    def text(self) -> str:
        return f"{self.street} {self.number}"


class Line(TypedDict):
    sku: str
    count: int


class Point(NamedTuple):
    x: int
    y: int


class Price(msgspec.Struct):
    cents: int


@dataclass
class Order:
    id: UUID
    lines: list[Line]
    notes: list[str] = field(default_factory=list)


def stored(spec: JobSpec[Any]) -> bytes:
    return bytes(spec.new.config)


def registered(job_type: str, owner: Jobs = jobs) -> RegisteredJob:
    job = owner._service.registry.get(job_type)
    assert job is not None
    return job


def current(job_type: str, config: bytes, attempt: int = 1) -> CurrentJob:
    claimed = ClaimedJob(
        id="0198f3a0-0000-7000-8000-000000000001", claim_no=1, job_type=job_type, queue="default", priority=0,
        run_at=0, attempt=attempt, failures=0, crashes=0, config=msgspec.Raw(config),
    )  # fmt: skip
    return CurrentJob(claimed, threading.Event())


def run(job_type: str, config: bytes, owner: Jobs = jobs) -> object:
    return registered(job_type, owner).prepare(current(job_type, config))()


@jobs.job
def send(to: str, subject: str = "Hello", *, html: bool = False) -> tuple[str, str, bool]:
    return to, subject, html


@jobs.job
def everything(
    order: Order, price: Price, point: Point, when: datetime, day: date, span: timedelta, colour: Colour,
    numbers: dict[str, list[int]], free: object, width: Annotated[int, msgspec.Meta(ge=1)], address: Address | None,
) -> list[object]:  # fmt: skip
    return [order, price, point, when, day, span, colour, numbers, free, width, address]


def test_what_the_caller_did_not_pass_is_not_stored() -> None:
    assert stored(send.spec("a")) == b'{"to":"a"}'
    assert stored(send.spec("a", html=True)) == b'{"to":"a","html":true}'


def test_the_functions_own_default_applies_when_it_runs() -> None:
    assert run("send", b'{"to":"a"}') == ("a", "Hello", False)
    assert run("send", b'{"to":"a","subject":"b","html":true}') == ("a", "b", True)


def test_everything_that_msgspec_reads_comes_back_as_it_was() -> None:
    values: list[Any] = [
        Order(UUID(int=1), [{"sku": "a", "count": 2}]), Price(3), Point(1, 2), datetime(2026, 1, 2, tzinfo=UTC),
        date(2026, 1, 2), timedelta(seconds=3), Colour.RED, {"a": [1]}, {"any": [1, None]}, 7,
        Address(street="Main", no=3),
    ]  # fmt: skip
    assert run("everything", stored(everything.spec(*values))) == values


def test_parameters_may_have_any_name_and_any_kind() -> None:
    owner = Jobs()

    @owner.job
    def odd(self: int, make: int, /, unset: int = 3, config: int = 4, *, job: int, fn: int = 6, args: int) -> list[int]:
        return [self, make, unset, config, job, fn, args]

    assert run("odd", stored(odd.spec(1, 2, job=5, args=7)), owner) == [1, 2, 3, 4, 5, 6, 7]
    assert run("odd", stored(odd.spec(1, 2, config=0, fn=0, job=5, args=7)), owner) == [1, 2, 3, 0, 5, 0, 7]


def test_a_gap_among_positional_only_parameters_is_filled_with_the_default() -> None:
    owner = Jobs()

    @owner.job
    def gaps(a: int, b: int = 2, c: int = 3, /) -> list[int]:
        return [a, b, c]

    assert run("gaps", b'{"a":1,"c":9}', owner) == [1, 2, 9]


def test_a_mutable_or_none_default_is_safe() -> None:
    owner = Jobs()

    @owner.job
    def tags(names: list[str] | None = None, more: list[str] = []) -> object:  # noqa: B006
        return names, more

    assert stored(tags.spec()) == b"{}"
    assert run("tags", b"{}", owner) == (None, [])
    assert stored(tags.spec(None)) == b'{"names":null}'


def test_the_current_job_is_not_the_spawners_to_give_and_carries_the_config() -> None:
    owner = Jobs()

    @owner.job
    def report(job: CurrentJob, month: str) -> object:
        return job.attempt, job.job_type, job.queue, job.shutdown_requested, month

    assert stored(report.spec("2026-01")) == b'{"month":"2026-01"}'
    job = current("report", b'{"month":"2026-01"}', attempt=3)
    assert registered("report", owner).prepare(job)() == (3, "report", "default", False, "2026-01")
    assert getattr(job.config, "month") == "2026-01"  # noqa: B009
    assert job.id == UUID("0198f3a0-0000-7000-8000-000000000001")


async def test_the_call_of_an_async_function_answers_its_coroutine() -> None:
    owner = Jobs()

    @owner.job
    async def twice(n: int) -> int:
        return 2 * n

    assert await run("twice", b'{"n":4}', owner) == 8  # type: ignore[misc]


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: send.spec(), "send() missing 1 required positional argument: 'to'; the job type send takes (to:"),
        (lambda: send.spec("a", "b", True), "send() takes from 1 to 2 positional arguments but 3 were given"),
        (lambda: send.spec("a", subjekt="b"), "send() got an unexpected keyword argument 'subjekt'"),
        (lambda: send.spec(1), "job type send: the arguments do not fit its parameters"),
        (lambda: send.spec("a", html=1), "Expected `bool`, got `int` - at `$.html`"),
        (lambda: send.spec("\ud800"), "the argument to cannot be stored: 'utf-8' codec can't encode"),
    ],
)
def test_wrong_arguments_are_refused_at_spawn_and_the_message_names_them(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        call()
    assert says in str(refused.value)
    assert isinstance(refused.value, TypeError)


def test_an_unserialisable_argument_is_refused_and_named() -> None:
    owner = Jobs()

    @owner.job
    def store(n: int, value: object) -> None: ...

    with pytest.raises(InvalidConfig, match="the argument value cannot be stored: a value of type"):
        store.spec(1, threading.Lock())
    with pytest.raises(InvalidConfig, match="the argument value cannot be stored: a text in it has a NUL"):
        store.spec(1, ["\\\0"])
    assert stored(store.spec(1, "\\u0000")) == b'{"n":1,"value":"\\\\u0000"}'
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(InvalidConfig, match="the argument value cannot be stored: it refers to itself"):
        store.spec(1, circle)


def test_a_value_that_was_changed_after_it_was_built_is_checked_too() -> None:
    owner = Jobs()

    @owner.job
    def charge(price: Price, address: Address | None = None) -> None: ...

    price, address = Price(1), Address(street="Main", no=1)
    price.cents = "a lot"  # type: ignore[assignment]
    with pytest.raises(InvalidConfig, match=r"Expected `int`, got `str` - at `\$.price.cents`"):
        charge.spec(price)
    address.number = "three"  # type: ignore[assignment]
    with pytest.raises(InvalidConfig, match=r"parameters|serializer"):
        charge.spec(Price(1), address)


def test_constraints_in_annotations_hold_at_spawn_and_at_run() -> None:
    owner = Jobs()

    @owner.job
    def resize(width: Annotated[int, msgspec.Meta(ge=1)] = 100) -> None: ...

    with pytest.raises(InvalidConfig, match=r"Expected `int` >= 1 - at `\$.width`"):
        resize.spec(0)
    with pytest.raises(UndecodableConfig, match=r"Expected `int` >= 1 - at `\$.width`"):
        run("resize", b'{"width":0}', owner)


def test_a_config_over_the_size_limit_is_refused() -> None:
    owner = Jobs(max_config_size=100)

    @owner.job
    def store(text: str) -> None: ...

    store.spec("x" * (100 - len('{"text":""}')))
    with pytest.raises(ConfigTooLarge, match=r"takes 101 bytes, the limit is 100: .*max_config_size"):
        store.spec("x" * (101 - len('{"text":""}')))


def test_a_stored_config_with_a_missing_field_does_not_decode_and_the_error_names_it() -> None:
    with pytest.raises(UndecodableConfig) as refused:
        run("send", b'{"subject":"b"}')
    assert "a stored config of job type send does not fit" in str(refused.value)
    assert "missing required field `to`" in str(refused.value)
    with pytest.raises(UndecodableConfig, match=r"Expected `str`, got `int` - at `\$.to`"):
        run("send", b'{"to":3,"unknown":1}')
    with pytest.raises(UndecodableConfig, match="truncated"):
        run("send", b'{"to":')


def test_unknown_fields_are_ignored_with_one_warning_per_field(caplog: pytest.LogCaptureFixture) -> None:
    owner = Jobs()

    @owner.job
    def greet(to: str) -> str:
        return to

    with caplog.at_level(logging.WARNING, logger="piecework"):
        assert run("greet", b'{"to":"a","copy":1}', owner) == "a"
        assert run("greet", b'{"to":"a","copy":1}', owner) == "a"
        assert run("greet", b'{"to":"a","copy":1,"more":2}', owner) == "a"
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "job type greet: stored configs have a field 'copy'" in caplog.messages[0]
    assert "'more'" in caplog.messages[1]


def test_results_are_stored_as_json_and_none_is_stored_as_nothing() -> None:
    job = registered("send")
    assert job.encode_result(None) is None
    assert job.encode_result(Address(street="Main", no=3)) == msgspec.Raw(b'{"street":"Main","no":3}')
    with pytest.raises(TypeError, match=r"the result of .*send cannot be stored: a value of type _thread.lock"):
        job.encode_result(threading.Lock())
    with pytest.raises(ValueError, match=r"the result of .*send cannot be stored"):
        job.encode_result("\ud800")
