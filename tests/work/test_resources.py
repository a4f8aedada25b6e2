"""Resources: what they are made of, and how a test stands in for them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from piecework import Jobs, NotOpen, RegistrationError

jobs = Jobs()


@jobs.resource
async def db() -> AsyncIterator[list[int]]:
    """The database."""
    yield [1]


@jobs.resource
def model() -> Iterator[str]:
    yield "a model"


@jobs.job
async def charge(amount: int) -> int:
    return sum(db.get()) + amount


def test_a_resource_that_is_not_open_says_so_and_what_to_write() -> None:
    with pytest.raises(NotOpen) as refused:
        db.get()
    assert f"the resource {__name__}.db is not open: a worker opens it before its first job" in str(refused.value)
    assert "write `with db.override(…):` around the call" in str(refused.value)
    assert repr(model) == "<Resource model>"
    assert db.__doc__ == "The database."


async def test_an_override_stands_in_for_it_and_the_inner_one_holds() -> None:
    with db.override([5]) as outer:
        assert outer == [5]
        with db.override([6]), model.override("fake"):
            assert await charge(1) == 7
            assert model.get() == "fake"
        assert await charge(1) == 6
    with pytest.raises(NotOpen):
        db.get()


def test_an_override_may_be_none_or_equal_to_another_and_ends_with_an_error() -> None:
    with contextlib.suppress(ValueError), db.override([1]), db.override([2]), db.override([1]):
        assert db.get() == [1]
        raise ValueError
    with pytest.raises(NotOpen):
        db.get()
    anything: Any = db
    with anything.override(None):
        assert db.get() is None


def test_an_override_holds_in_every_thread() -> None:
    seen: list[object] = []
    with db.override([3]):
        thread = threading.Thread(target=lambda: seen.append(db.get()))
        thread.start()
        thread.join()
    assert seen == [[3]]


async def returns() -> int:
    return 1


def takes(dsn: str) -> Iterator[int]:
    yield 1


@contextlib.asynccontextmanager
async def managed() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    "opens, says",
    [
        (returns, "takes a function that yields the resource once"),
        (managed, "leave @contextmanager and the like out"),
        (3, "takes a function that yields the resource once"),
        (takes, "takes: nobody gives it arguments"),
    ],
)
def test_what_is_no_generator_without_parameters_is_refused(opens: Any, says: str) -> None:
    with pytest.raises(RegistrationError) as refused:
        Jobs().resource(opens)
    assert says in str(refused.value)
