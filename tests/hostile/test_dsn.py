"""Connection strings: read, or refused in words that quote nothing of them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from hostile.helpers import MOST, call, is_readable, refusal
from hostile.texts import NASTY, any_texts, drives_terminal
from piecework import ConfigurationError, Jobs, PieceworkError
from piecework.store.dsn import complete_dsn, describe
from support.examples import examples

SECRETS = ("hunter", "swordfish")
PLAIN = "abcdefghijklmnopqrstuvwxyz0123456789"
# A password that begins and ends with a word which nobody else's text has, and that has been put in as it is.
passwords = st.lists(
    st.sampled_from((*NASTY, *PLAIN, *"@/:?#%&= [],", "@/", "/@", ":1/", "%40")),
    min_size=1, max_size=4,
).map(lambda between: SECRETS[0] + "".join(between) + SECRETS[1])  # fmt: skip
places = st.sampled_from([
    "postgresql://user:{}@host:5432/db", "postgres://user:{}@host/db?sslmode=require", "postgresql://:{}@host",
    "postgresql://user:1/{}@host/db", "postgresql://user:1/{}", "user:{}@host/db", "//user:{}@host/db",
    "http://user:{}@host", "postgresql:/user:{}@host/db", "postgresql://user:{}@[::1/db",
    "postgresql://user:{}@h1,h2:99999/db", "host=h user=u password={} dbname=d", "host=h password='{}' dbname=d",
    "password={}", "password = '{}", "passwrd={}", "host=h dbname=postgresql://u:{}@h/d",
    "host=h dbname='postgresql://u:{}@h/d'", "postgresql://host/db?password={}",
    "postgresql://host/db?user=u&password={}&", "postgresql://host/db?passwd={}", "{}", "host={}@h", "port={}",
    "postgresql://user:{}@host/db?connect_timeout=x", "connect_timeout={}",
])  # fmt: skip


def shows(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


@examples(400)
@given(places, passwords)
def test_no_part_of_a_password_is_shown_wherever_it_stands(place: str, password: str) -> None:
    dsn = place.format(password)
    refused = refusal(ConfigurationError, lambda: complete_dsn(dsn))
    if refused is not None:
        assert shows(str(refused)) == []
        assert is_readable(refused)
        assert refused.__cause__ is None
        assert refused.__suppress_context__ or refused.__context__ is None
        return
    told = describe(complete_dsn(dsn))
    assert not drives_terminal(told)
    taken = conninfo_to_dict(complete_dsn(dsn))
    if "password" in taken:
        assert shows(told) == []


@examples(150)
@given(any_texts() | st.text(max_size=60) | st.lists(st.sampled_from([
    "postgresql://", "postgres://", "host=", "port=", "user=", "dbname=", "password=", "hostaddr=", "service=",
    "options=", "sslmode=", "target_session_attrs=", "connect_timeout=", "@", ":", "/", "?", "&", "=", ",", "[", "]",
    "%", "%00", "%ff", "'", "\\", " ", "\0", "\ud800", "localhost", "5432", "99999", "-1", "1e400", "::1", "\x1b[31m",
    "ü" * 300,
]), max_size=10).map("".join))  # fmt: skip
def test_any_text_is_a_connection_string_or_refused(text: str) -> None:
    refused = refusal(ConfigurationError, lambda: complete_dsn(text))
    if refused is not None:
        assert is_readable(refused)
        return
    complete = complete_dsn(text)
    assert conninfo_to_dict(complete_dsn(complete)) == conninfo_to_dict(complete)
    assert not drives_terminal(describe(complete))
    assert len(describe(complete)) < 400


def test_a_url_that_is_meant_to_be_one_is_read_as_it_was() -> None:
    for dsn in (
        "postgresql://u:p%40ss%2Fw%3Ard@h:5433/d?sslmode=require", "postgresql:///d?host=/run/pg",
        "host=/run/a@b dbname=d", "postgresql://u@h1:1,h2:2/d", "dbname=d", "", "postgresql://u@[::1]:5432/d%40e",
        "host=h password='a b@c/d'", "postgresql://u%40tenant:p@h/d?options=-c%20search_path%3Da",
        "postgresql://h/d?user=me@tenant", "port=1,2 host=a,b",
    ):  # fmt: skip
        given, complete = conninfo_to_dict(dsn), conninfo_to_dict(complete_dsn(dsn))
        assert {name: complete[name] for name in given} == given


def test_of_several_hosts_the_one_that_writes_is_meant_unless_the_dsn_says_otherwise() -> None:
    assert conninfo_to_dict(complete_dsn("postgresql://h1,h2/d"))["target_session_attrs"] == "read-write"
    asked = conninfo_to_dict(complete_dsn("postgresql://h1,h2/d?target_session_attrs=any"))
    assert asked["target_session_attrs"] == "any"
    assert "target_session_attrs" not in conninfo_to_dict(complete_dsn("postgresql://h1/d"))


def test_a_dsn_of_another_type_is_refused_without_showing_it() -> None:
    for wrong in ({"dsn": b"postgresql://u:hunter2@h/d"}, {"dsn": "", "listen_dsn": b"password=hunter2"}):
        refused = refusal(ConfigurationError, lambda: Jobs(**wrong))  # type: ignore[arg-type]  # noqa: B023
        assert "got a bytes: the DSN is a text" in str(refused)
        assert "hunter2" not in str(refused)


def test_a_misspelt_option_is_recognized() -> None:
    for dsn, meant in (("host=h sslmod=require", "sslmode"), ("postgresql://h/d?pasword=hunter", "password")):
        refused = refusal(ConfigurationError, lambda: complete_dsn(dsn))  # noqa: B023
        assert f"perhaps {meant} is meant" in str(refused)


@pytest.mark.parametrize("dsn", [
    "host=a..b", "host=" + "x" * 300, "host=127.0.0.1 port=1 sslmode=hunter2", "host=127.0.0.1 port=1 gssencmode=x",
    "host=127.0.0.1,127.0.0.1 port=1,2,3", "host=127.0.0.1 port=1 target_session_attrs=x", "service=hunter2",
    "host=127.0.0.1 port=1 connect_timeout=-1", "hostaddr=hunter2 port=1", "host=/\x1b[31m/hunter2 password=hunter2",
    "host=127.0.0.1 port=1 password=hunter2 options='-c a=b'", "host=127.0.0.1 port=1 keepalives=hunter2",
    "host=127.0.0.1 port=1 passfile=/dev/null sslcert=/hunter2", "host=127.0.0.1 port=1 load_balance_hosts=x",
    "host=127.0.0.1 port=1 sslrootcert=/nowhere sslmode=verify-full", "host=127.0.0.1 port=1 client_encoding=x",
])  # fmt: skip
async def test_a_server_that_cannot_be_reached_so_is_told_in_words_of_ours(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(PieceworkError) as refused:
        async with Jobs(dsn):
            raise AssertionError("there is no server")
    assert len(str(refused.value)) < MOST
    assert "password=hunter2" not in str(refused.value)
    assert [record for record in caplog.records if "password=hunter2" in record.getMessage()] == []


@pytest.mark.parametrize("dsn", [
    "user:hunter2@host/db", "postgresql://u:hunter2@x@127.0.0.1:1/db", "postgresql://u:hunter2/@127.0.0.1:1/db",
    "postgresql://u:hunter2@127.0.0.1:1/db", "host=127.0.0.1 port=1 password=hunter2", "password=not hunter2 host=h",
    "postgresql://u:hunter2%@127.0.0.1:1/db", "postgresql://u:hunter2@[::1", "\ud800hunter2", "hunter2\0",
])  # fmt: skip
@pytest.mark.parametrize("command", [["status"], ["migrate", "--check"], ["jobs", "list"], ["doctor"]])
def test_no_command_shows_a_password(command: list[str], dsn: str) -> None:
    result = call(*command, "--database-url", dsn)
    assert result.exit_code in (2, 3)
    assert "hunter2" not in result.output


def test_the_environment_is_read_with_the_same_care(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIECEWORK_DATABASE_URL", "user:hunter2@host/db")
    result = call("status")
    assert result.exit_code == 2
    assert "hunter2" not in result.output
    monkeypatch.setenv("PIECEWORK_DATABASE_URL", "host=127.0.0.1 port=1")
    monkeypatch.setenv("PIECEWORK_LISTEN_URL", "user:hunter2@host/db")
    result = call("doctor")
    assert result.exit_code in (1, 2, 3)
    assert "hunter2" not in result.output
