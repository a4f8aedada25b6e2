"""Errors that jobs raise, whatever they are made of: the attempt fails, what can be stored is, and all others go on."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from engine.app import ONCE
from engine.helpers import SOON, moves
from hypothesis import given
from hypothesis import strategies as st

from hostile.helpers import call, told
from hostile.texts import NASTY, STRAY, texts
from piecework import CurrentBatch, CurrentJob, JobErrored, Jobs, RetrySettings
from piecework.model.error_info import MAX_MESSAGE, MAX_TRACEBACK, describe
from support.examples import examples


class Mute(Exception):
    """Neither `str` nor `repr` answer."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Leaving(Exception):
    """Whoever asks for its text is to leave."""

    def __str__(self) -> str:  # noqa: PLE0307
        sys.exit("now")

    def __repr__(self) -> str:
        raise KeyboardInterrupt


class Text(str):
    """A text that does not do what texts do."""

    def replace(self, *args: object) -> str:  # type: ignore[override]
        raise RuntimeError("no replacement")

    def encode(self, *args: object) -> bytes:  # type: ignore[override]
        raise RuntimeError("no bytes")

    def __len__(self) -> int:
        raise RuntimeError("no length")


class Texted(Exception):
    def __str__(self) -> str:
        return Text("of a class of its own")


class Number(Exception):
    """Its text is none."""

    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307


class Nameless(type):
    @property
    def __module__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no module")


class OfNowhere(Exception, metaclass=Nameless):
    pass


class Untraced(Exception):
    @property
    def __traceback__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no traceback")


class Unlike(Exception):
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no class")


def cyclic() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    first.__context__ = first
    return first


def chained(length: int) -> Exception:
    error: Exception = ValueError("the first")
    for n in range(length):
        error, before = ValueError(f"number {n}"), error
        error.__cause__ = before
    return error


def grouped(depth: int) -> Exception:
    error: Exception = ValueError("inside")
    for _ in range(depth):
        error = ExceptionGroup("group", [error, KeyError("beside")])
    return error


HOSTILE: dict[str, Callable[[], BaseException]] = {
    "mute": Mute, "leaving": Leaving, "text": Texted, "number": Number, "of nowhere": OfNowhere, "untraced": Untraced,
    "unlike": Unlike, "no module": type("None", (Exception,), {"__module__": None}),
    "a name": type("\x1b[31m\u202e", (Exception,), {}), "a long name": type("x" * 10**5, (Exception,), {}),
    "nul": lambda: ValueError("a\0b\ud800"), "a mebibyte": lambda: ValueError("ü\0" * 2**19),
    "nothing": lambda: ValueError(), "escapes": lambda: ValueError("".join(NASTY)), "cyclic": cyclic,
    "chain of 3000": lambda: chained(3000), "groups of 1000": lambda: grouped(1000), "groups of 5": lambda: grouped(5),
    "wide group": lambda: ExceptionGroup("wide", [ValueError("x" * 1000)] * 2000),
    "notes": lambda: _with_notes(), "syntax": lambda: SyntaxError("bad", ("\0", "x", object(), "\ud800")),  # type: ignore[arg-type]
    "unicode": lambda: UnicodeDecodeError("utf-8", b"\xff" * 10**6, 0, 1, "because"),
    "os": lambda: OSError(5, "\0", "\ud800"), "exit": lambda: SystemExit("\0"), "interrupt": KeyboardInterrupt,
    "cancelled": lambda: asyncio.CancelledError("\0"), "generator": lambda: GeneratorExit("x"),
    "stop": lambda: StopIteration("\0"), "stop async": StopAsyncIteration,
}  # fmt: skip


def _with_notes() -> Exception:
    error = ValueError("noted")
    error.add_note("\0\ud800\x1b" * 1000)
    error.__notes__.append(5)  # type: ignore[arg-type]
    return error


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("raised", [True, False])
def test_whatever_an_error_is_what_is_stored_of_it_is_bounded_and_can_be_stored(
    make: Callable[[], BaseException], raised: bool
) -> None:
    error = make()
    if raised:
        try:
            raise error
        except BaseException:
            pass
    told = describe(error)
    assert told.type
    assert told.message
    assert len(told.type.encode()) <= 512 + 64
    assert len(told.message.encode()) <= MAX_MESSAGE
    assert len(told.traceback.encode()) <= MAX_TRACEBACK
    assert "\0" not in told.type + told.message + told.traceback


@examples(40)
@given(st.lists(st.sampled_from((*NASTY, *STRAY)), max_size=30).map("".join))
def test_a_message_is_stored_as_it_is_but_for_what_cannot_be(text: str) -> None:
    stored = describe(ValueError(text)).message
    assert stored == (text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode() or "ValueError('')")


async def test_every_one_of_them_is_a_failed_attempt_and_the_worker_goes_on(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    kinds = [name for name in HOSTILE if name != "generator"]  # a coroutine that is closed raises it

    @jobs.job(retry=ONCE)
    async def fail(kind: str) -> None:
        raise HOSTILE[kind]()

    @jobs.job(retry=ONCE)
    def fail_in_thread(kind: str) -> None:
        raise HOSTILE[kind]()

    @jobs.job
    async def good(number: int) -> int:
        return number

    async with jobs.worker():
        specs = [job.spec(kind) for job in (fail, fail_in_thread) for kind in kinds]
        handles = await jobs.spawn_all([each for spec in specs for each in (spec, good.spec(7))])
        outcomes = await handles.wait(timeout=SOON)
        assert await (await good.spawn(8)).result(timeout=SOON) == 8
    for kind, outcome in zip([*kinds, *kinds], outcomes[::2], strict=True):
        assert outcome.status == "errored", kind
        assert outcome.error is not None, kind
        assert outcome.error.message, kind
    assert {outcome.result for outcome in outcomes[1::2]} == {7}
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("piecework")]
    assert len([line for line in lines if "no attempt is left" in line]) == 2 * len(kinds)
    assert [line for line in lines if not line.isprintable()] == []
    assert [line for line in lines if "starts anew" in line] == []
    await told("jobs", "list", dsn=jobs.dsn)
    shown = await told("jobs", "show", str(handles[2 * kinds.index("escapes")].id), dsn=jobs.dsn)
    assert shown["job"]["error"]["message"] == "".join(NASTY)  # type: ignore[index]


@dataclass
class Numbered:
    n: int


@pytest.mark.parametrize("kind", ["unlike", "mute", "a mebibyte", "nul", "of nowhere", "groups of 1000"])
async def test_a_batch_that_raises_it_fails_and_each_job_of_it_is_tried_alone(jobs: Jobs, kind: str) -> None:
    @jobs.batched(max_size=10, retry=RetrySettings(n_attempts=2, min_backoff=timedelta(0)))
    async def fail(batch: CurrentBatch[Numbered]) -> None:
        if len(batch.items) > 1 or batch.items[0].config.n == 3:
            raise HOSTILE[kind]()

    async with jobs.worker():
        outcomes = await (await jobs.spawn_all([fail.spec(Numbered(n)) for n in range(5)])).wait(timeout=SOON)
    assert [outcome.status for outcome in outcomes] == ["completed"] * 3 + ["errored"] + ["completed"]


class Odd:
    """A value whose class nobody may ask for, and that nobody can show."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no class")

    def __repr__(self) -> str:
        raise SystemExit("no form")


async def test_a_value_of_an_odd_class_is_a_failed_attempt_and_the_worker_goes_on(jobs: Jobs) -> None:
    @jobs.job(retry=ONCE)
    async def give() -> object:
        return Odd()

    @jobs.job(retry=ONCE)
    async def give_late(job: CurrentJob) -> object:
        async with job.completing():
            pass
        return Odd()

    @jobs.job(retry=ONCE)
    async def raise_late(job: CurrentJob) -> object:
        async with job.completing():
            pass
        raise Mute

    async with jobs.worker():
        handles = await jobs.spawn_all([give.spec(), give_late.spec(), raise_late.spec()])
        outcomes = await handles.wait(timeout=SOON)
    assert [outcome.status for outcome in outcomes] == ["errored", "completed", "completed"]


@examples(15)
@given(st.lists(texts(20), min_size=1, max_size=10))
async def test_messages_come_back_to_whoever_waits_and_to_the_command_line(jobs: Jobs, sent: list[str]) -> None:
    @jobs.job(retry=ONCE)
    async def fail(text: str) -> None:
        raise ValueError(text)

    async with jobs.worker():
        handles = await jobs.spawn_all([fail.spec(text) for text in sent])
        for text, handle in zip(sent, handles, strict=True):
            outcome = await handle.wait(timeout=SOON)
            assert outcome.error is not None
            assert outcome.error.message == (text or "ValueError('')")
    await asyncio.to_thread(call, "jobs", "show", str(handles[0].id), dsn=jobs.dsn)


async def test_an_error_of_a_retried_attempt_is_not_lost_among_others(jobs: Jobs, dsn: str) -> None:
    @jobs.job(retry=RetrySettings(n_attempts=3, min_backoff=timedelta(0), max_backoff=timedelta(0)))
    async def fail() -> None:
        raise Mute

    async with jobs.worker():
        handle = await fail.spawn()
        with pytest.raises(JobErrored, match="Mute without a readable message"):
            await handle.result(timeout=SOON)
    assert moves(dsn, handle.id) == ["retry", "retry", "fail"]
