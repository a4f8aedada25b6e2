"""What can be a job, what is refused where it is defined, and what stays of the function."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import annotated_types
import msgspec
import pydantic
import pytest

from piecework import CurrentJob, Fail, Jobs, RegistrationError, Reschedule, RetrySettings

T = TypeVar("T")
jobs = Jobs()


@jobs.job
async def documented(to: str, subject: str = "Hello") -> str:
    """Send a letter."""
    return f"{subject}, {to}"


@jobs.job("plain-one")
def plain(n: int) -> int:
    return n + 1


async def test_a_job_function_stays_the_function() -> None:
    assert await documented("Ada") == "Hello, Ada"
    assert plain(1) == 2
    assert plain.fn(1) == 2
    assert documented.__name__ == "documented"
    assert documented.__doc__ == "Send a letter."
    assert documented.__module__ == __name__
    assert list(inspect.signature(documented).parameters) == ["to", "subject"]


def test_the_job_type_is_the_bare_name_unless_another_is_given() -> None:
    assert documented.job_type == "documented"
    assert plain.job_type == "plain-one"
    assert repr(plain) == "<JobFunction plain-one>"


def test_an_async_job_function_is_known_as_one() -> None:
    assert asyncio.iscoroutinefunction(documented)
    assert not asyncio.iscoroutinefunction(plain)
    if sys.version_info >= (3, 12):
        assert inspect.iscoroutinefunction(documented)


def test_pickling_or_copying_a_job_function_gives_the_very_object_back() -> None:
    assert pickle.loads(pickle.dumps(documented)) is documented
    assert copy.deepcopy(documented) is documented


def test_attributes_of_the_function_are_kept_but_hide_no_method() -> None:
    async def marked() -> None: ...

    marked.pytestmark = ["slow"]  # type: ignore[attr-defined]
    marked.spawn = "mine"  # type: ignore[attr-defined]
    job = Jobs().job(marked)
    assert vars(job)["pytestmark"] == ["slow"]
    assert callable(job.spawn)


def test_a_static_method_can_be_a_job() -> None:
    class Mailer:
        @staticmethod
        @jobs.job
        async def mail(to: str) -> None: ...

    assert Mailer.mail.job_type == "mail"


def test_local_types_of_a_factory_are_found() -> None:
    class Letter(msgspec.Struct):
        to: str

    job = Jobs().job(_takes(Letter))
    assert bytes(job.spec(Letter("a")).new.config) == b'{"letter":{"to":"a"}}'

    @Jobs().job
    async def local(letter: Letter) -> None: ...

    assert bytes(local.spec(Letter("a")).new.config) == b'{"letter":{"to":"a"}}'


def _takes(kind: type[T]) -> Callable[[T], None]:
    def takes(letter: Any) -> None: ...

    takes.__annotations__["letter"] = kind
    return takes


# Each of these functions is refused, and the message names the function and what is wrong with it.


def variadic(*names: str) -> None: ...
def keywords(**names: str) -> None: ...
def bare(name) -> None: ...  # type: ignore[no-untyped-def]
def generator(n: int) -> Iterator[int]:
    yield n
async def async_generator(n: int) -> AsyncIterator[int]:
    yield n
def late_job(n: int, job: CurrentJob) -> None: ...
def keyword_job(*, job: CurrentJob) -> None: ...
def typed_job(job: CurrentJob[int]) -> None: ...
def maybe_job(job: CurrentJob | None) -> None: ...
def anything(value: object, n: int) -> None: ...
def any_thing(value: Any) -> None: ...
def generic(value: T) -> T: return value
def awaitable(n: int) -> Awaitable[int]: raise NotImplementedError
def connection(to: str, via: socket.socket) -> None: ...
def nested_connection(to: str, via: list[dict[str, socket.socket]]) -> None: ...
def field(n: Annotated[int, pydantic.Field(gt=3)]) -> None: ...
def field_default(n: int = pydantic.Field(default=3)) -> None: ...
def annotated(n: Annotated[int, annotated_types.Gt(3)]) -> None: ...
def two_lists(value: str, other: list[int] | set[int]) -> None: ...
def unstorable_result(n: int) -> socket.socket: raise NotImplementedError
def nonsense(n: os.nothing) -> None: ...  # type: ignore
async def wrapped(n: int) -> int: return n
@functools.wraps(wrapped)
def wrapping(n: int) -> Any: return wrapped(n)


class Service:
    def method(self, n: int) -> None: ...
    @classmethod
    def of_class(cls, n: int) -> None: ...


@pytest.mark.parametrize(
    "fn, says",
    [
        (variadic, "variadic: *names: 'str' has no fixed names"),
        (keywords, "**names"),
        (bare, "bare: the parameter name has no type"),
        (generator, "generator is a generator"),
        (async_generator, "async_generator is a generator"),
        (late_job, "late_job: the parameter job: the current job is the first parameter"),
        (keyword_job, "keyword_job: the parameter job: the current job is the first parameter, by position"),
        (typed_job, "bare CurrentJob"),
        (maybe_job, "bare CurrentJob"),
        (anything, "anything: the parameter value is typed <class 'object'>"),
        (any_thing, "any_thing: the parameter value is typed typing.Any"),
        (generic, "generic: the parameter value is typed ~T"),
        (awaitable, "awaitable returns an awaitable: write it with async def"),
        (connection, "connection: the parameter via is or holds socket.socket, which has no JSON form"),
        (nested_connection, "socket.socket"),
        (field, "the parameter n: FieldInfo"),
        (field_default, "the parameter n: FieldInfo"),
        (annotated, "the parameter n: Gt(gt=3) would not be enforced"),
        (two_lists, "two_lists: the parameter other: Type unions"),
        (unstorable_result, "unstorable_result: what it returns is or holds socket.socket"),
        (nonsense, "nonsense: the annotation 'os.nothing' of n cannot be evaluated"),
        (wrapping, "wrapped is an async function wrapped in a plain one"),
        (Service.method, "a method cannot be a job"),
        (Service.__dict__["of_class"], "write @staticmethod above @jobs.job"),
        (staticmethod(documented.fn), "write @staticmethod above @jobs.job"),
        (Service, "takes a function written with def or async def"),
        (functools.partial(plain.fn, 1), "takes a function written with def or async def"),
        (lambda: None, "a job needs a name"),
        (plain, "is a job already"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_job_is_refused_where_it_is_defined(fn: Any, says: str) -> None:
    fresh = Jobs()
    with pytest.raises(RegistrationError) as refused:
        fresh.job(fn)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "settings, error, says",
    [
        ({"retries": 3}, RegistrationError, "takes no 'retries'; it takes aliases, concurrency_key"),
        ({"retry": 5}, RegistrationError, "retry= takes RetrySettings, not 5"),
        ({"queue": ""}, RegistrationError, "queue= takes 1 to 200 characters, got 0"),
        ({"queue": "a\0b"}, RegistrationError, "no NUL"),
        ({"queue": 3}, RegistrationError, "queue= takes a text, not 3"),
        ({"priority": 32768}, RegistrationError, "priority= takes -32768 to 32767, got 32768"),
        ({"priority": True}, RegistrationError, "priority= takes an int, not True"),
        ({"tags": "abc"}, RegistrationError, "tags= takes a list of texts, not 'abc'"),
        ({"fail_on": ValueError}, RegistrationError, "fail_on=(ValueError,)"),
        ({"fail_on": (KeyboardInterrupt,)}, RegistrationError, "derive from Exception"),
        ({"max_concurrent_per_process": 0}, RegistrationError, "an int of 1 or more, not 0"),
        ({"aliases": "old"}, RegistrationError, "aliases=['…']"),
        ({"aliases": [""]}, RegistrationError, "aliases= takes 1 to 200 characters"),
        ({"timeout": 600}, RegistrationError, "timeout=timedelta(minutes=10)"),
        ({"timeout": timedelta(0)}, RegistrationError, "leaves no time to run"),
        ({"timeout": timedelta(seconds=-1)}, RegistrationError, "leaves no time to run"),
        ({"concurrency_limit": 0}, RegistrationError, "concurrency_limit= takes an int from 1 to 32767, not 0"),
        ({"concurrency_limit": 2}, RegistrationError, "concurrency_limit= needs a concurrency_key; to limit how many"),
        ({"inherits_state": True}, RegistrationError, "inherits_state=True needs a key"),
        ({"inherits_state": 1}, RegistrationError, "inherits_state= takes True or False, not 1"),
        ({"strict": "yes"}, RegistrationError, "strict= takes True or False, not 'yes'"),
    ],
)
def test_a_wrong_setting_is_refused_and_the_message_names_function_and_setting(
    settings: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as refused:
        Jobs().job(**settings)(plain.fn)
    assert "plain" in str(refused.value)
    assert says in str(refused.value)


def test_a_job_type_without_a_usable_name_is_refused() -> None:
    with pytest.raises(RegistrationError, match="the job type takes 1 to 200 characters"):
        Jobs().job("x" * 201)(plain.fn)


def test_a_second_function_of_one_job_type_is_an_error_that_names_both_places() -> None:
    fresh = Jobs()

    @fresh.job("mail")
    def first() -> None: ...

    with pytest.raises(RegistrationError) as refused:

        @fresh.job("mail")
        def second() -> None: ...

    message = str(refused.value)
    assert "'mail' is registered twice" in message
    assert "first (" in message
    assert "second (" in message
    assert message.count(f"{__file__}:") == 2


def test_an_alias_that_is_taken_is_an_error() -> None:
    fresh = Jobs()
    fresh.job("mail", aliases=["post"])(plain.fn)
    with pytest.raises(RegistrationError, match="'post' is registered twice"):
        fresh.job("post")(documented.fn)
    with pytest.raises(RegistrationError, match="'mail' is registered twice"):
        fresh.job("letter", aliases=["mail"])(documented.fn)


def test_a_reloaded_function_replaces_itself_with_its_aliases() -> None:
    fresh = Jobs()
    registry = fresh._service.registry
    fresh.job("mail", aliases=["post", "letter"])(plain.fn)
    before = registry.generation
    fresh.job("mail", aliases=["post"], queue="mails")(plain.fn)
    assert registry.generation > before
    assert registry.job_types == ("mail", "post")
    job = registry.get("post")
    assert job is not None
    assert job is registry.get("mail")
    assert job.placement.queue == "mails"
    assert registry.get("letter") is None


def test_settings_reach_what_a_worker_reads() -> None:
    fresh = Jobs()
    retry = RetrySettings(n_attempts=2)
    fresh.job(retry=retry, fail_on=(KeyError,), max_concurrent_per_process=3, aliases=["old"])(documented.fn)
    job = fresh._service.registry.get("old")
    assert job is not None
    assert (job.job_type, job.aliases, job.is_async) == ("documented", ("old",), True)
    assert (job.retry, job.fail_on, job.max_concurrent_per_process) == (retry, (KeyError,), 3)


def test_a_forward_reference_is_resolved_at_the_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = Jobs()

    @fresh.job
    def early(order: LateOrder) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(RegistrationError) as refused:
        early.spec(None)
    assert "job type early: the annotation of the parameter order of" in str(refused.value)
    assert "names LateOrder, which does not exist" in str(refused.value)
    with pytest.raises(RegistrationError, match="parameter order"):
        fresh._service.registry.resolve()
    late = msgspec.defstruct("LateOrder", [("id", int)], module=__name__)
    monkeypatch.setitem(globals(), "LateOrder", late)
    fresh._service.registry.resolve()
    assert bytes(early.spec(late(1)).new.config) == b'{"order":{"id":1}}'


def test_rescheduling_and_failing_are_no_part_of_the_result_type() -> None:
    def read(returns: object, stored: bytes) -> object:
        fresh = Jobs()

        def fn() -> None: ...

        fn.__annotations__["return"] = returns
        job = fresh.job("x")(fn)
        return job._read(msgspec.Raw(stored))

    assert read(int | Reschedule | Fail, b"3") == 3
    assert read(list[int] | None, b"[1]") == [1]
    assert read(Reschedule, b'"anything"') == "anything"
    with pytest.raises(msgspec.ValidationError, match="Expected `int`, got `str`"):
        read(int | Fail, b'"3"')


def test_pydantic_is_not_imported_for_those_who_do_not_use_it(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom piecework import Jobs\njobs = Jobs()\n@jobs.job\ndef f(n: int) -> int:\n    return n\n"
        "f.spec(1)\nassert 'pydantic' not in sys.modules\n"
        "assert [m for m in sys.modules if m.startswith('piecework.engine')] == []\n"
    )
    subprocess.run([sys.executable, str(program)], check=True)
