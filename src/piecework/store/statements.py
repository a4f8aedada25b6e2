"""SQL texts: read from their files, with the schema put in. Nothing else builds SQL.

A text names the schema by a comment token, so that it stays readable as it stands: `FROM /*schema.*/jobs` becomes
`FROM "piecework".jobs`. `/*schema*/` is the quoted identifier, `/*schema_text*/` the name as a literal, `/*channel*/`
the NOTIFY channel as a literal.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

from piecework.base.errors import ConfigurationError

_TOKEN = re.compile(r"/\*(schema\.|schema|schema_text|channel)\*/")
_MAX_IDENTIFIER_BYTES = 63


@cache
def _read(folder: str, name: str) -> str:
    return files("piecework.store").joinpath(folder, name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Statements:
    """The SQL of one schema.

    Args:
        schema: the schema's name; any name PostgreSQL accepts, it is quoted.

    Raises:
        ConfigurationError: the name is empty, has a NUL or `$$` or is longer than 63 bytes, or is PostgreSQL's own.
    """

    schema: str

    def __post_init__(self) -> None:
        too_long = len(self.schema.encode()) > _MAX_IDENTIFIER_BYTES
        if not self.schema or too_long or "\0" in self.schema or "$$" in self.schema:  # $$ ends a function's text
            raise ConfigurationError(f"schema={self.schema!r}: a schema's name has 1 to 63 bytes, no NUL and no $$")
        if self.schema.startswith("pg_") or self.schema == "information_schema":
            raise ConfigurationError(f"schema={self.schema!r}: names of PostgreSQL's own schemas cannot be used")

    @cached_property
    def channel(self) -> str:
        """The NOTIFY channel of this schema: two schemas of one database do not hear each other."""
        return "piecework_" + hashlib.sha256(self.schema.encode()).hexdigest()[:16]

    def render(self, text: str) -> str:
        """Return `text` with the tokens replaced."""
        identifier = '"' + self.schema.replace('"', '""') + '"'
        literal = "'" + self.schema.replace("'", "''") + "'"
        values = {
            "schema.": identifier + ".",
            "schema": identifier,
            "schema_text": literal,
            "channel": f"'{self.channel}'",
        }
        return _TOKEN.sub(lambda match: values[match.group(1)], text)

    @cached_property
    def _rendered(self) -> dict[str, bytes]:
        return {}

    def sql(self, name: str) -> bytes:
        """Return the statement of `sql/<name>.sql` for this schema, as the driver takes it."""
        text = self._rendered.get(name)
        if text is None:
            text = self._rendered[name] = self.render(_read("sql", name + ".sql")).encode()
        return text


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
