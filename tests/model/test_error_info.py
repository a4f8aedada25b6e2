from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import piecework.model.error_info
from piecework.base.errors import UndecodableConfig
from piecework.model.completion import Fail
from piecework.model.error_info import MAX_MESSAGE, MAX_TRACEBACK, describe, storable

ENGINE = Path(piecework.model.error_info.__file__).parents[1] / "engine" / "executor.py"


class Outer:
    class Refused(Exception):
        pass


class Unreadable(Exception):
    def __str__(self) -> str:
        raise SystemExit("str")

    def __repr__(self) -> str:
        raise ValueError("repr")


def raised_by(run: Callable[[], object]) -> BaseException:
    """What `run` raises, its traceback from the frame of `run` on."""
    with pytest.raises(Exception) as caught:
        run()
    error = caught.value
    assert error.__traceback__ is not None
    return error.with_traceback(error.__traceback__.tb_next)


def raised(error: Exception) -> BaseException:
    def job() -> None:
        raise error

    return raised_by(job)


def in_engine(source: str, **names: object) -> Callable[[], object]:
    """The function `run` of `source`, as if it were code of the engine."""
    exec(compile(source, str(ENGINE), "exec"), names)
    run = names["run"]
    assert callable(run)
    return run


def test_the_type_is_the_qualified_name_and_a_builtin_stays_bare() -> None:
    assert describe(ValueError("no")).type == "ValueError"
    assert describe(Outer.Refused()).type == f"{__name__}.Outer.Refused"
    assert describe(asyncio.CancelledError()).type == "asyncio.exceptions.CancelledError"


def test_errors_of_piecework_go_by_the_name_under_which_they_are_imported() -> None:
    assert describe(Fail("no")).type == "piecework.Fail"
    assert describe(UndecodableConfig("no")).type == "piecework.UndecodableConfig"


def test_the_message_is_the_repr_where_the_text_is_empty_or_fails() -> None:
    assert describe(KeyboardInterrupt()).message == "KeyboardInterrupt()"
    assert describe(Fail("")).message == "Fail('')"

    class HalfReadable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

        def __repr__(self) -> str:
            return "HalfReadable!"

    assert describe(HalfReadable()).message == "HalfReadable!"


def test_an_error_that_cannot_be_shown_at_all_is_still_described() -> None:
    info = describe(raised(Unreadable()))
    assert info.message == f"<{__name__}.Unreadable without a readable message>"
    assert "Unreadable" in info.traceback


def test_the_traceback_shows_where_and_from_what_the_error_came() -> None:
    def job() -> None:
        try:
            int("seven")
        except ValueError as cause:
            raise Outer.Refused("not a number") from cause

    text = describe(raised_by(job)).traceback
    assert 'int("seven")' in text
    assert "ValueError: invalid literal" in text
    assert text.endswith("Outer.Refused: not a number\n")


def test_an_error_that_was_never_raised_has_no_traceback() -> None:
    assert describe(ValueError("no")).traceback == ""


def test_the_traceback_starts_in_the_code_of_the_job() -> None:
    def job() -> None:
        raise ValueError("no")

    text = describe(raised_by(in_engine("def run():\n    job()", job=job))).traceback
    assert str(ENGINE) not in text
    assert ", in job\n" in text


def test_the_threads_under_a_job_are_not_part_of_its_traceback() -> None:
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(divmod, 1, 0).exception()
        named = pool.submit(lambda: divmod(1, 0)).exception()
    assert error is not None
    assert named is not None
    assert "thread.py" not in describe(named).traceback
    # With no frame of the job's at all there is nothing to hide the others for.
    assert "thread.py" in describe(error).traceback


def test_a_fault_of_the_engine_itself_keeps_its_traceback() -> None:
    text = describe(raised_by(in_engine("def run():\n    raise RuntimeError('ours')"))).traceback
    assert str(ENGINE) in text


def test_a_traceback_that_cannot_be_formatted_is_replaced_by_a_note() -> None:
    error = raised(ValueError("no"))
    error.__notes__ = Hostile()  # type: ignore[assignment]
    info = describe(error)
    assert info.message == "no"
    assert info.traceback


class Hostile:
    def __getattribute__(self, name: str) -> object:
        raise RuntimeError("hostile")


def test_a_long_message_and_a_long_traceback_lose_their_middle() -> None:
    info = describe(raised(ValueError("head" + "x" * 100_000 + "tail")))
    assert len(info.message) <= MAX_MESSAGE
    assert info.message.startswith("headxxx")
    assert info.message.endswith("xxxtail")
    assert "bytes left out" in info.message
    assert len(info.traceback) <= MAX_TRACEBACK
    assert info.traceback.startswith("Traceback")
    assert info.traceback.endswith("xxxtail\n")


def test_an_endless_recursion_fits() -> None:
    def deeper(n: int) -> int:
        return deeper(n + 1) if n else other(n)

    def other(n: int) -> int:
        return deeper(n) + deeper(n + 1)

    info = describe(raised_by(lambda: deeper(1)))
    assert info.type == "RecursionError"
    assert 0 < len(info.traceback.encode()) <= MAX_TRACEBACK


def test_what_postgresql_refuses_is_written_as_an_escape() -> None:
    assert describe(ValueError("a\0b\ud800c")).message == "a\\x00b\\ud800c"


@given(text=st.text(st.characters(exclude_categories=[])), limit=st.integers(128, 256))
def test_whatever_the_text_it_is_stored_within_its_limit_of_bytes(text: str, limit: int) -> None:
    stored = storable(text * 20, limit)
    assert len(stored.encode()) <= limit
    assert "\0" not in stored


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=32))
def test_ordinary_text_is_stored_as_it_is(text: str) -> None:
    assert storable(text, 128) == text
