"""Connection strings: read by libpq, completed, and described, without a word of what is secret in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from piecework.base.errors import ConfigurationError
from piecework.base.texts import quiet_text

# A network that goes silent is noticed by the kernel within ten seconds, also on an idle LISTEN connection
# (stack study, section 2.2). What the DSN says wins.
_DEFAULTS: dict[str, str] = {
    "application_name": "piecework",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
# Of several hosts the one that writes is meant: a standby would take the connection and refuse the work. They are tried
# in turn, and one whose machine is gone costs the whole timeout at each try (2 is libpq's least).
_WITH_SEVERAL_HOSTS: dict[str, str] = {"target_session_attrs": "read-write", "connect_timeout": "2"}

_NO_OPTION = "it names an option that libpq does not have"
_NO_PAIR = "a part of its query is not of the form name=value"
# What libpq's messages begin with, and what they mean. None is passed on: they quote what they do not understand, which
# may be a password, or a part of one.
_REASONS = {
    'missing "="': "a part of it is not of the form name=value; a value with a space in it stands in single quotes",
    "unterminated quoted string": "a single quote is not closed",
    "invalid connection option": _NO_OPTION,
    "invalid URI query parameter": _NO_OPTION,
    "missing key/value separator": _NO_PAIR,
    "extra key/value separator": _NO_PAIR,
    "invalid percent-encoded token": "a % in it is not followed by two hexadecimal digits",
    "forbidden value %00": "it has a %00",
    "end of string reached when looking": "the [ before an IPv6 address is not closed",
    "IPv6 host address may not be empty": "the IPv6 address is empty",
    "unexpected character": "something stands between the host and the database that does not belong there",
}
_ENCODE = "In a URL the characters : / @ ? # % of a name or a password are percent-encoded: %3A %2F %40 %3F %23 %25"
_URLS = ("postgresql://", "postgres://")
_MOST_SHOWN = 100
_HIGHEST_PORT = 65_535


def complete_dsn(dsn: str) -> str:
    """Return a libpq connection string with piecework's defaults added.

    Raises:
        ConfigurationError: libpq does not accept `dsn`, or it was read otherwise than it was meant; the message says
            what is wrong, and never shows a password.
    """
    given = _parsed(dsn)
    _refuse_misread(dsn, given)
    chosen = {name: value for name, value in given.items() if value is not None}
    several = "," in str(chosen.get("host") or chosen.get("hostaddr") or "")
    defaults = {**_DEFAULTS, **_WITH_SEVERAL_HOSTS} if several else _DEFAULTS
    # The encoding is piecework's own matter: it is not the database's, nor the environment's.
    return make_conninfo("", **{**defaults, **chosen, "client_encoding": "UTF8"})


def describe(dsn: str) -> str:
    """Say where a DSN leads, without the password, in one short line: for messages and logs."""
    parts = conninfo_to_dict(dsn)
    where = _shown(parts.get("host") or parts.get("hostaddr") or "the default socket")
    port = f":{_shown(parts['port'])}" if parts.get("port") else ""
    return f"{where}{port} database {_shown(parts.get('dbname') or parts.get('user') or 'default')!r}"


def _shown(part: object) -> str:
    text = quiet_text(str(part)[: _MOST_SHOWN + 1])
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"


def _parsed(dsn: str) -> dict[str, str | int | None]:
    if "\0" in dsn:
        raise _unreadable("it has a NUL character")
    try:
        return dict(conninfo_to_dict(dsn))
    except psycopg.ProgrammingError as error:
        said = str(error)
    except UnicodeError:
        raise _unreadable("a part of it is no valid Unicode") from None
    reason = next((means for begins, means in _REASONS.items() if said.startswith(begins)), "libpq cannot read it")
    raise _unreadable(reason + (_meant(said) if reason == _NO_OPTION else ""))


def _meant(said: str) -> str:
    """Name the option that is probably meant, if there is one."""
    found = re.search(r'"(\w{1,40})"', said)
    known = [option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()]
    near = get_close_matches(found.group(1), known, 1, 0.8) if found else []
    return f": perhaps {near[0]} is meant" if near else ""


def _unreadable(reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"the database URL is not a libpq connection string: {reason}. Write it as "
        f"postgresql://user:password@host:5432/database or as key=value pairs. {_ENCODE}"
    )


def _refuse_misread(dsn: str, given: Mapping[str, object]) -> None:
    """Refuse what libpq reads without complaint, but takes a part of a password for a host, a port or a database."""
    hosts = str(given.get("host") or "").split(",")
    if any("@" in host and not host.startswith("/") for host in hosts):
        raise _misread("the host", "has an @ in it")
    for port in str(given.get("port") or "").split(","):
        if port and not (port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) <= _HIGHEST_PORT):
            raise _misread("the port", f"is no number from 1 to {_HIGHEST_PORT}")
    if "://" in str(given.get("dbname") or "") or "@" in _path(dsn):
        raise _misread("the name of the database", "holds an address")
    if not re.fullmatch(r"-?[0-9]{1,9}", str(given.get("connect_timeout") or "0").strip()):
        raise _misread("connect_timeout", "is no number of seconds")


def _path(dsn: str) -> str:
    """Return what stands behind the hosts of a URL, as it is written."""
    _, url, rest = dsn.partition("://") if dsn.startswith(_URLS) else ("", "", "")
    return rest.partition("?")[0].partition("/")[2] if url else ""


def _misread(what: str, how: str) -> ConfigurationError:
    return ConfigurationError(f"the database URL is not what was meant: {what} {how}. {_ENCODE}")
