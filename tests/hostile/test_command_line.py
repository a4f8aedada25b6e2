"""Arguments of the command line: whatever they are, it says what is wrong, and never how it came to find that out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostile.helpers import call
from hostile.texts import NASTY, any_texts, is_name, names, texts
from piecework import new_id
from support.examples import examples

COMMANDS = [
    ["status"], ["jobs"], ["jobs", "list"], ["jobs", "show"], ["jobs", "retry"], ["jobs", "cancel"], ["limits"],
    ["limits", "list"], ["limits", "set"], ["limits", "pause"], ["limits", "resume"], ["migrate", "--check"],
    ["migrate", "--sql"], ["doctor"], [],
]  # fmt: skip
WORDS = [
    "--json", "--help", "-h", "--version", "--debug", "--status", "errored", "--queue", "--type", "--limit", "--long",
    "--running", "--schema", "--pending", "--sql", "--check", "--", "-", "--listen-url", "", "=", "--limit=",
    "--nothing", "0", "1", "-1", "1e400", "nan", "inf", "-inf", "9" * 30, "9" * 5000, "0x10", "1_000", "١", "null",
    "*", "--no-json", "00000000-0000-0000-0000-000000000000", str(new_id()), "{x}", "jobs", "list",
]  # fmt: skip
words = st.one_of(st.sampled_from(WORDS), st.sampled_from(WORDS), any_texts(), texts(4))


@examples(150)
@given(st.sampled_from(COMMANDS), st.lists(words, max_size=5))
def test_no_argument_brings_about_a_traceback(shared_dsn: str, command: list[str], more: list[str]) -> None:
    arguments = [*command, *more]
    if "--debug" in arguments or ("--listen-url" in arguments and any("=" in each for each in more)):
        return  # it is to show tracebacks; it might ask for the address of who knows what host
    result = call(*arguments, dsn=shared_dsn)
    assert "Traceback" not in result.output


@examples(60)
@given(st.lists(words, min_size=1, max_size=4))
def test_no_target_of_a_worker_brings_about_a_traceback(target: list[str]) -> None:
    result = call("worker", *[word for word in target if word not in ("-h", "--help")])
    assert result.exit_code == 2
    assert "Traceback" not in result.output


@pytest.mark.parametrize("arguments", [
    ["status", "--long", "nan"], ["status", "--watch", "nan"], ["status", "--watch", "1e400"],
    ["status", "--long", "-1"], ["demo", "--lease", "nan"],
    ["bench", "--seconds", "nan"], ["bench", "--jobs", "9" * 5000], ["chaos", "--seconds", "nan"],
    ["chaos", "--lease", "nan"], ["chaos", "--rate", "nan"], ["chaos", "--fault", "\x1b[31m"],
    ["chaos", "--check", "--schema", "\ud800"], ["limits", "set", "k", "9" * 5000], ["limits", "set", "k", "١"],
    ["limits", "set", "", "1"], ["limits", "set", "x" * 201, "1"], ["limits", "pause", "\0"],
    ["limits", "resume", "\ud800"], ["limits", "set", "k", "2147483648"], ["limits", "pause", "k", "--queue", "\0"],
    ["jobs", "list", "--limit", "9" * 5000], ["jobs", "list", "--queue", "\ud800"], ["jobs", "list", "--type", "a\0"],
    ["jobs", "show", "x" * 10**6], ["jobs", "show", "\x1b[31m"], ["jobs", "list", "--status", "\x1b[31m"],
    ["jobs", "list", "--\x1b[31m"], ["\x1b[31m"], ["--\x1b[31m"], ["status", "--schema", "x" * 10**6],
    ["status", "--schema", "a\0"], ["migrate", "--schema", "pg_x"], ["worker", "app:jobs", "--grace", "nan"],
    ["worker", "app:jobs", "--grace", "1e400"], ["worker", "app:jobs", "--lease", "-1"],
    ["worker", "app:jobs", "--lease", "1e300"], ["worker", "app:jobs", "--lease", "1e-7"],
    ["worker", "app:jobs", "--queues", ","], ["worker", "app:jobs", "--queues", "\ud800"],
    ["worker", "app:jobs", "--queues", "a\0"], ["worker", "\ud800:jobs"],
    ["worker", "app:jobs", "--concurrency", "9" * 30], ["worker", "app:jobs", "--threads", "0"],
    ["worker", "x" * 10**5], ["worker", "app:jobs", "--prefetch", "-1"], ["worker", "nowhere\x1b[31m:jobs"],
    ["worker", "json:\x1b[31m"], ["worker", "json", "--import", "\x1b[31m"], ["worker", "os.path:join"],
    ["worker", "..:x"], ["worker", "/etc/passwd"],
], ids=lambda arguments: " ".join(arguments)[:40].encode("ascii", "backslashreplace").decode())  # fmt: skip
def test_a_wrong_call_is_called_wrong(arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert len(result.output) < 3000


@examples(25)
@given(names() | any_texts(), st.sampled_from(["", "q"]) | names(), st.integers(-5, 2**31) | st.just(10**30))
def test_a_limit_is_set_under_the_very_name_or_refused(shared_dsn: str, key: str, queue: str, limit: int) -> None:
    result = call("limits", "set", "--queue", queue, "--json", "--", key, str(limit), dsn=shared_dsn)
    fits = is_name(key) and 0 <= limit < 2**31
    assert result.exit_code == (0 if fits else 2)
    if fits:
        found = {(each["key"], each["queue"]): each["limit"] for each in json.loads(result.output)["limits"]}
        assert found[key, queue] == limit
        call("limits", "set", "--queue", queue, "--", key, "-", dsn=shared_dsn)


def run(arguments: Sequence[str | bytes], **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "piecework", *arguments], capture_output=True, check=False, timeout=60,
        env=os.environ | environment,
    )  # fmt: skip


def test_bytes_that_are_no_text_are_refused_by_the_real_command(shared_dsn: str) -> None:
    for arguments in (
        ["jobs", "list", "--queue", b"\xff\xfe"], ["limits", "set", b"\xc3\x28", "1"], ["status", "--schema", b"\xff"],
        [b"\xff"], ["status", "--database-url", b"\xffhost=h"],
    ):  # fmt: skip
        ended = run(arguments, PIECEWORK_DATABASE_URL=shared_dsn)
        assert ended.returncode == 2, ended
        assert b"Traceback" not in ended.stderr, ended


def test_what_an_encoding_lacks_is_escaped_by_the_real_command(shared_dsn: str) -> None:
    name = "".join(NASTY)[:60]
    environment = {"PIECEWORK_DATABASE_URL": shared_dsn, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    assert call("limits", "pause", "--", name, dsn=shared_dsn).exit_code == 0
    for arguments in (["limits", "list"], ["limits", "list", "--json"], ["limits", "list", "--queue"]):
        ended = run(arguments, **environment)
        assert ended.returncode in (0, 2), ended
        assert b"Traceback" not in ended.stderr, ended
        assert b"\x1b" not in ended.stdout + ended.stderr
    call("limits", "resume", "--", name, dsn=shared_dsn)
