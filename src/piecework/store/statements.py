"""SQL texts: read from their files, with the schema put in. Nothing else builds SQL.

A text names the schema by a comment token, so that it stays readable as it stands: `FROM /*schema.*/jobs` becomes
`FROM "piecework".jobs`. `/*schema*/` is the quoted identifier, `/*schema_text*/` the name as a literal, `/*channel*/`
the NOTIFY channel as a literal.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

from piecework.base.errors import ConfigurationError
from piecework.base.texts import shown
from piecework.store.connection import Pins

_TOKEN = re.compile(r"/\*(schema\.|schema|schema_text|channel)\*/|\$(\d+)")
_SIGNATURE = re.compile(r"^-- (params|returns):.*\n(--  .*\n)*", re.MULTILINE)
_MAX_IDENTIFIER_BYTES = 63
_QUOTES = ("$$", "$apply$", "$text$")
"""What ends a quoted text of ours: a name must not."""


@cache
def _read(folder: str, name: str) -> str:
    return files("piecework.store").joinpath(folder, name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Statements:
    """The SQL of one schema.

    Args:
        schema: the schema's name; any name PostgreSQL accepts, it is quoted.

    Raises:
        ConfigurationError: the name is empty, is longer than 63 bytes, has a NUL, a lone surrogate or one of `$$`,
            `$apply$` and `$text$`, or is PostgreSQL's own.
    """

    schema: str

    def __post_init__(self) -> None:
        if not isinstance(self.schema, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"schema={shown(self.schema)}: a schema's name is a text")
        size = len(self.schema.encode("utf-8", "surrogatepass"))
        stray = any("\ud800" <= character <= "\udfff" for character in self.schema)
        if not 0 < size <= _MAX_IDENTIFIER_BYTES or stray or any(part in self.schema for part in ("\0", *_QUOTES)):
            raise ConfigurationError(
                f"schema={shown(self.schema)}: a schema's name has 1 to {_MAX_IDENTIFIER_BYTES} bytes, no NUL, no lone "
                f"surrogate and none of {', '.join(_QUOTES)}"
            )
        if self.schema.startswith("pg_") or self.schema == "information_schema":
            raise ConfigurationError(f"schema={self.schema!r}: names of PostgreSQL's own schemas cannot be used")

    @cached_property
    def channel(self) -> str:
        """The NOTIFY channel of this schema: two schemas of one database do not hear each other."""
        return "piecework_" + hashlib.sha256(self.schema.encode()).hexdigest()[:16]

    def render(self, text: str, *, escaped: bool = False, params: Sequence[str | int] = ()) -> str:
        """Return `text` with the tokens replaced.

        Args:
            text: as it stands in a file.
            escaped: put in what every driver's own parsing leaves alone.
            params: put in these as literals for `$1` and so on.
        """
        identifier = _escaped(self.schema) if escaped else '"' + self.schema.replace('"', '""') + '"'
        values = {
            "schema.": identifier + ".",
            "schema": identifier,
            "schema_text": _quoted(self.schema),
            "channel": f"'{self.channel}'",
        }

        def replaced(match: re.Match[str]) -> str:
            token, number = match.groups()
            if token:
                return values[token]
            return _literal(params[int(number) - 1]) if params else match.group()

        return _TOKEN.sub(replaced, text)

    @cached_property
    def _rendered(self) -> dict[str, bytes]:
        return {}

    def sql(self, name: str) -> bytes:
        """Return the statement of `sql/<name>.sql` for this schema, as the driver takes it."""
        text = self._rendered.get(name)
        if text is None:
            text = self._rendered[name] = self.render(_read("sql", name + ".sql")).encode()
        return text

    @property
    def pins(self) -> Pins:
        """What piecework's own statements rest on."""
        return Pins(self.sql("pin_session"), self.sql("pin_transaction"))

    @property
    def pins_of_lent(self) -> Pins:
        """What the transactions rest on that are lent to runs; each begins with its pins."""
        return Pins(self.sql("pin_completing"), self.sql("pin_completing_transaction"))

    def printed(self, name: str, *params: str | int) -> str:
        """Return the statement of `sql/<name>.sql` with its parameters as literals: for scripts, which bind none."""
        return self.render(_SIGNATURE.sub("", _read("sql", name + ".sql")), params=params).strip()

    @cached_property
    def _rendered_for(self) -> dict[tuple[str, str], str]:
        return {}

    def sql_for(self, name: str, placeholder: str) -> str:
        """Return the statement of `sql/<name>.sql`, whose one parameter is `$1::text`, for another driver.

        Plain ASCII, whatever the schema's name: the connection may have another encoding than UTF-8.

        Args:
            name: the statement.
            placeholder: what that driver takes for `$1`.
        """
        text = self._rendered_for.get((name, placeholder))
        if text is None:
            template = re.sub(r"^--.*\n", "", _read("sql", name + ".sql"), flags=re.MULTILINE)
            before, after = template.strip().split("$1::text")  # `::text` were a parameter to SQLAlchemy
            text = f"{self.render(before, escaped=True)}CAST({placeholder} AS text){self.render(after, escaped=True)}"
            self._rendered_for[name, placeholder] = text
        return text


def _escaped(name: str) -> str:
    """Quote an identifier without the characters that mean something to a driver: `%`, `:`, `?`, `$`, quotes."""
    if re.fullmatch(r"\w+", name, re.ASCII):
        return f'"{name}"'
    codes = (
        character if re.fullmatch(r"\w", character, re.ASCII) else f"\\+{ord(character):06x}" for character in name
    )
    return f'U&"{"".join(codes)}"'


def _quoted(name: str) -> str:
    """Return a name as a literal of one line: it stands in texts that are quoted as a whole, by `_literal`."""
    if "\n" not in name:
        return "'" + name.replace("'", "''") + "'"
    return "E'" + name.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n") + "'"


def _literal(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    return f"$text$\n{value}$text$" if "\n" in value else "'" + value.replace("'", "''") + "'"


@dataclass(frozen=True)
class SqlFile:
    """A migration or a function: its name, its text before rendering, and the checksum of that text."""

    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]


def sql_files(folder: str) -> list[SqlFile]:
    """Return the files of `migrations` or `functions`, by name."""
    names = sorted(
        entry.name for entry in files("piecework.store").joinpath(folder).iterdir() if entry.name.endswith(".sql")
    )
    return [SqlFile(name.removesuffix(".sql"), _read(folder, name)) for name in names]
