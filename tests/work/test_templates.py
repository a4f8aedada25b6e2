"""Keys that are templates of a job's arguments."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest

from piecework import InvalidConfig, InvalidOptions, Jobs, RegistrationError


class Colour(Enum):
    RED = "red"


class Tone(StrEnum):
    LOW = "low"


class Level(IntEnum):
    HIGH = 3


class Address(pydantic.BaseModel):
    city: str
    zip: int | None = None


class Line(TypedDict):
    sku: str
    lot: NotRequired[str]


class Point(NamedTuple):
    x: int
    y: float


class Price(msgspec.Struct):
    cents: int = msgspec.field(name="c")


@dataclass
class Order:
    id: int
    price: Price
    address: Address | None = None
    line: Line = field(default_factory=lambda: Line(sku="tea"))
    _secret: str = ""


ONE, DAY, ORIGIN = UUID(int=1), date(2026, 1, 31), Point(1, 0.5)


def key_of(fn: Any, template: str, *args: Any, **kwargs: Any) -> str | None:
    return Jobs().job(key=template)(fn).spec(*args, **kwargs).new.key


def many(
    text: str,
    number: int = 7,
    flag: bool = False,
    id: UUID = ONE,
    day: date = DAY,
    colour: Colour = Colour.RED,
    tone: Tone = Tone.LOW,
    level: Level | None = None,
    size: Literal["s", "m"] = "m",
    limited: Annotated[int, msgspec.Meta(ge=1)] = 1,
) -> None: ...


def takes(order: Order, point: Point = ORIGIN, maybe: Order | None = None) -> None: ...


@pytest.mark.parametrize(
    "template, arguments, key",
    [
        ("fixed", {}, "fixed"),
        ("account:{number}", {}, "account:7"),
        ("account:{number}", {"number": -3}, "account:-3"),
        ("{text}/{number}", {}, "a b/7"),
        ("{{{text}}}", {}, "{a b}"),
        ("{flag}", {}, "false"),
        ("{flag}", {"flag": True}, "true"),
        ("{id}", {}, "00000000-0000-0000-0000-000000000001"),
        ("{day}", {"day": date(2026, 2, 1)}, "2026-02-01"),
        ("{colour}-{tone}-{level}", {"level": Level.HIGH}, "red-low-3"),
        ("{level}", {}, None),
        ("{text}{level}", {}, None),
        ("{size}{limited}", {"limited": 5}, "m5"),
    ],
)
def test_a_key_is_made_of_the_arguments_and_the_defaults_of_the_function(
    template: str, arguments: dict[str, Any], key: str | None
) -> None:
    assert key_of(many, template, "a b", **arguments) == key


@pytest.mark.parametrize(
    "template, key",
    [
        ("{order.id}", "5"),
        ("{order.price.cents}", "99"),
        ("{order.line.sku}", "tea"),
        ("{order.line.lot}", None),
        ("{order.address.city}", "Bern"),
        ("{order.address.zip}", None),
        ("{point.x}", "1"),
        ("{maybe.id}", None),
    ],
)
def test_a_key_is_made_of_the_fields_of_arguments_of_every_kind(template: str, key: str | None) -> None:
    assert key_of(takes, template, Order(5, Price(99), Address(city="Bern"))) == key


def test_a_field_of_what_is_none_makes_no_key() -> None:
    assert key_of(takes, "{order.address.city}", Order(5, Price(99))) is None


def test_both_keys_come_from_templates_and_options_replace_them() -> None:
    @Jobs().job(key="{n}", concurrency_key="account:{n}", concurrency_limit=4)
    def sync(n: int | None) -> None: ...

    job = sync.spec(3).new
    assert (job.key, job.concurrency_key, job.concurrency_limit) == ("3", "account:3", 4)
    job = sync.options(key="{n}", concurrency_key="b", concurrency_limit=1).spec(3).new
    assert (job.key, job.concurrency_key, job.concurrency_limit) == ("{n}", "b", 1)
    job = sync.spec(None).new
    assert (job.key, job.concurrency_key, job.concurrency_limit) == (None, None, None)


def test_a_key_that_cannot_be_stored_is_refused_at_the_spawn() -> None:
    job = Jobs().job(key="{text}", concurrency_key="{text}-{number}")(many)
    with pytest.raises(InvalidOptions, match="job type many: the key made of its arguments takes 1 to 200 characters"):
        job.spec("")
    with pytest.raises(InvalidOptions, match="got 201"):
        job.spec("x" * 201)
    with pytest.raises(InvalidConfig):
        job.spec(7)
    with pytest.raises(InvalidOptions, match="the concurrency_key made of its arguments takes 1 to 200"):
        job.options(key="k").spec("x" * 199)


def unsuitable(number: float, when: datetime, items: list[int], either: int | float) -> None: ...
def odd(n: int = 0.5, order: Order = None) -> None: ...  # type: ignore[assignment]


@pytest.mark.parametrize(
    "fn, template, says",
    [
        (many, "", "is empty"),
        (many, 7, "takes a template text such as 'account:{account_id}', not 7"),
        (many, "{txt}", "there is no parameter txt; the function has text, number"),
        (many, "{}", "in braces stands a parameter's name"),
        (many, "{0}", "in braces stands a parameter's name"),
        (many, "{text[0]}", "no index, no conversion, no format"),
        (many, "{text!r}", "no index, no conversion, no format"),
        (many, "{number:03}", "no index, no conversion, no format"),
        (many, "{text", "is no template: expected '}' before end of string"),
        (many, "text}", "is no template: Single '}'"),
        (many, "{text.__class__}", "begins with an underscore"),
        (many, "{_x}", "begins with an underscore"),
        (many, "{text.upper}", "str has no field upper; it has no fields"),
        (takes, "{order}", "test_templates.Order: a key is made from str, int, bool, UUID, date or an Enum"),
        (takes, "{order.nothing}", "Order has no field nothing; its fields are id, price, address, line"),
        (takes, "{order._secret}", "begins with an underscore"),
        (takes, "{order.address.street}", "Address has no field street; its fields are city, zip"),
        (takes, "{point.y}", "is of type float"),
        (unsuitable, "{number}", "{number} is of type float"),
        (unsuitable, "{when}", "{when} is of type datetime"),
        (unsuitable, "{items}", "{items} is of type list"),
        (unsuitable, "{either}", "{either} is of type union"),
        (odd, "{n}", "with the default of n there is no key: 0.5 makes no key"),
    ],
)
@pytest.mark.parametrize("setting", ["key", "concurrency_key"])
def test_a_template_that_does_not_fit_is_refused_where_the_job_is_defined(
    setting: str, fn: Any, template: Any, says: str
) -> None:
    with pytest.raises(RegistrationError) as refused:
        Jobs().job(**{setting: template})(fn)
    message = str(refused.value)
    assert says in message
    assert fn.__name__ in message
    assert f"{setting}=" in message


def test_a_default_of_none_makes_no_key_whatever_the_annotation() -> None:
    assert key_of(odd, "{order.id}") is None


def test_a_template_is_checked_at_the_first_use_where_an_annotation_comes_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fresh = Jobs()

    @fresh.job(key="{order.id}")
    def early(order: LateOrder) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    late = msgspec.defstruct("LateOrder", [("id", int)], module=__name__)
    monkeypatch.setitem(globals(), "LateOrder", late)
    assert early.spec(late(4)).new.key == "4"
