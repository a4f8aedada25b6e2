"""The schema's own version: forward-only migrations, versioned functions, and the statements that apply both."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from piecework.base.errors import DatabaseError, MigrationsNeeded, PermissionDenied, SchemaTooNew
from piecework.store.connection import AsyncConnection
from piecework.store.statements import SqlFile, Statements, sql_files

_SUPPORTS = re.compile(r"^-- supports: (\d+)$", re.MULTILINE)
_LOCKS = re.compile(r"^-- locks: (.+)$", re.MULTILINE)
_CONCURRENTLY = "/*concurrently*/"
_INDEX = re.compile(r"^CREATE (?:UNIQUE )?INDEX /\*concurrently\*/ IF NOT EXISTS (\w+)", re.MULTILINE)
_MADE = re.compile(r"^CREATE (TABLE|FUNCTION) /\*schema\.\*/(\w+)", re.MULTILINE)
_LEAF = re.compile(r"_\d{8}$")
_DAYS_AHEAD = 7


@dataclass(frozen=True, slots=True)
class Migration:
    """A numbered step of the tables. `supports` is the oldest version of the code that can work on its result."""

    version: int
    supports: int
    file: SqlFile

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def locks(self) -> list[str]:
        """The tables that were there before and that it locks, in the order in which it has to."""
        found = _LOCKS.search(self.file.text)
        return [] if found is None else found.group(1).split(", ")

    @property
    def index(self) -> str | None:
        """The index that it makes, and nothing else, if that can be done while others write."""
        found = _INDEX.search(self.file.text)
        return None if found is None else found.group(1)


def migrations() -> list[Migration]:
    """Return all migrations of this package, oldest first."""
    found: list[Migration] = []
    for file in sql_files("migrations"):
        supports = _SUPPORTS.search(file.text)
        if supports is None:
            raise AssertionError(f"{file.name} does not say which version it supports")
        found.append(Migration(int(file.name[:4]), int(supports.group(1)), file))
    return found


def code_version() -> int:
    """Return the schema version that this package is written for."""
    return migrations()[-1].version


@dataclass(frozen=True, slots=True)
class SchemaState:
    """What a schema has."""

    version: int
    """Of the last migration applied; 0: none."""
    supports: int
    checksums: dict[int, str]
    functions: dict[str, str]
    """Checksum of each installed function by its name."""
    there: bool
    """The schema itself; somebody may have made it for piecework."""
    may_create: bool
    """Whether the role may create the schema, or in the schema if it is there."""
    readable: bool = True
    """Whether the role may know the version; if not, it is 0 here."""
    may_spawn: bool = True

    @property
    def spawns_only(self) -> bool:
        """Whether all that the role may is to spawn: then nothing can be said of the version."""
        return self.may_spawn and not self.readable

    @property
    def outdated_functions(self) -> list[SqlFile]:
        """The functions of this package that are missing or of another text."""
        return [file for file in sql_files("functions") if self.functions.get(file.name) != file.checksum]


async def schema_state(conn: AsyncConnection, statements: Statements) -> SchemaState:
    """Read what the schema has; works on a database that has never seen piecework."""
    row = await (await conn.execute(statements.sql("schema_state"))).fetchone()
    assert row is not None
    applied: list[tuple[object, ...]] = []
    functions: list[tuple[object, ...]] = []
    readable = bool(row[4])
    if row[0] and readable:
        applied = await (await conn.execute(statements.sql("applied_migrations"))).fetchall()
    if row[1] and readable:
        functions = await (await conn.execute(statements.sql("installed_functions"))).fetchall()
    return SchemaState(
        version=int(str(applied[-1][0])) if applied else 0,
        supports=int(str(applied[-1][3])) if applied else 0,
        checksums={int(str(r[0])): str(r[2]) for r in applied},
        functions={str(r[0]): str(r[1]) for r in functions},
        there=bool(row[2]),
        may_create=bool(row[3]),
        readable=readable,
        may_spawn=bool(row[5]),
    )


def check(state: SchemaState, schema: str) -> None:
    """Refuse a schema that this version of the code cannot work on.

    Raises:
        PermissionDenied: the role may not know.
        MigrationsNeeded: it is missing or older; says what to run.
        SchemaTooNew: it is newer and does not support this version.
        DatabaseError: a migration was applied from another text than this package's.
    """
    if not state.readable:
        raise PermissionDenied(
            f"the database role may not read the tables of the schema {schema!r}, so what it is at is not known. "
            "Roles and their grants are in docs/security.md"
        )
    ours = code_version()
    if state.version > ours:
        if state.supports > ours:
            raise SchemaTooNew(
                f"the schema {schema!r} is at version {state.version} and supports piecework from schema "
                f"version {state.supports} on, this one is written for {ours}: upgrade the piecework package"
            )
        return
    check_texts(state, schema)
    if state.version < ours:
        what = f"is at version {state.version}" if state.version else "does not exist"
        raise MigrationsNeeded(
            f"the schema {schema!r} {what}, this piecework needs version {ours}: "
            f"run `piecework migrate`, or open it with Jobs(..., migrate=True)"
        )
    if state.outdated_functions:
        names = ", ".join(file.name for file in state.outdated_functions)
        raise MigrationsNeeded(
            f"functions of the schema {schema!r} are missing or of another release: {names}. "
            "Run `piecework migrate`, or open it with Jobs(..., migrate=True)"
        )


def check_texts(state: SchemaState, schema: str) -> None:
    """Refuse a schema on which a migration was applied from another text than this package's.

    Raises:
        DatabaseError: names it.
    """
    for migration in migrations():
        applied = state.checksums.get(migration.version)
        if applied is not None and applied != migration.file.checksum:
            raise DatabaseError(
                f"migration {migration.file.name} was applied to the schema {schema!r} from another text "
                f"than this package's: install the piecework release that migrated it, or a later one"
            )


def check_may_create(state: SchemaState, schema: str) -> None:
    """Refuse a role that cannot make the tables of a new schema.

    Raises:
        PermissionDenied: says what it lacks.
    """
    if state.version == 0 and not state.may_create:
        raise PermissionDenied(
            f"the database role may not create tables in the schema {schema!r}: run `piecework migrate` "
            "with a role that has CREATE on the schema"
            if state.there
            else f"the schema {schema!r} does not exist and the database role may not create it: "
            "run `piecework migrate` with a role that has CREATE on the database"
        )


def everything() -> list[Migration | SqlFile]:
    """Return the migrations and then the functions of this package: what a database lacks that has never seen it."""
    return [*migrations(), *sql_files("functions")]


def pending(state: SchemaState) -> list[Migration | SqlFile]:
    """Return what of this package a schema lacks; nothing of a newer one, which has its own functions."""
    if state.version > code_version() or not state.readable:
        return []
    return [*(each for each in migrations() if each.version > state.version), *state.outdated_functions]


def next_parts(state: SchemaState) -> list[Migration | SqlFile]:
    """Return the first ones of `pending` that go in one transaction.

    An index that is made while others write goes by itself, when it has been made; in a new schema all go together.
    """
    parts = pending(state)
    for number, part in enumerate(parts if state.version else []):
        if isinstance(part, Migration) and part.index is not None:
            return parts[: max(number, 1)]
    return parts


def next_index(parts: Sequence[Migration | SqlFile], state: SchemaState) -> Migration | None:
    """Return the migration, if it is next, whose index has to be made before its transaction."""
    first = parts[0] if parts and state.version else None
    return first if isinstance(first, Migration) and first.index is not None else None


def making_index(statements: Statements, migration: Migration) -> str:
    """Return the statement that makes the index of a migration while others write. It takes no transaction."""
    return statements.render(migration.file.text.replace(_CONCURRENTLY, "CONCURRENTLY"))


def clearing_indexes(statements: Statements, parts: Sequence[Migration]) -> str:
    """Return the statement that drops what an interrupted `making_index` of these has left."""
    return statements.printed("drop_unfinished_indexes", ",".join(part.index for part in parts if part.index))


def script(statements: Statements, parts: Sequence[Migration | SqlFile]) -> list[str]:
    """Return the statements that apply `parts` and record them, without parameters, to be run in one transaction.

    A statement whose work is done already does nothing, so that the same ones may be run again, on any schema that
    is not newer than this package: whoever runs them without asking the database first needs no other.
    """
    return [
        statements.printed("lock_migrations", statements.schema),
        statements.printed("limit_lock_waits"),
        statements.printed("create_schema"),
        statements.printed("create_migrations"),
        statements.printed("create_functions"),
        *_preparations(statements, [part for part in parts if isinstance(part, Migration)]),
        *(_step(statements, part) for part in parts),
        statements.printed("add_partitions", _DAYS_AHEAD),
        statements.printed("restore_lock_waits"),
    ]


def _preparations(statements: Statements, parts: Sequence[Migration]) -> list[str]:
    prepared: list[str] = []
    if any(part.index for part in parts):
        prepared.append(clearing_indexes(statements, parts))
    if tables := [(part.version, table) for part in parts for table in part.locks]:
        prepared.append(statements.printed("lock_tables", json.dumps(tables)))
    return prepared


def _step(statements: Statements, part: Migration | SqlFile) -> str:
    if isinstance(part, Migration):
        file = part.file
        return statements.printed(
            "apply_migration", part.version, file.name, file.checksum, part.supports, statements.render(file.text)
        )
    return statements.printed(
        "install_function", code_version(), part.name, part.checksum, statements.render(part.text)
    )


def whole_script(statements: Statements, parts: Sequence[Migration | SqlFile]) -> str:
    """Return `script` as one text in a transaction of its own, for psql and its like."""
    steps = [statements.printed("begin_script"), *script(statements, parts), statements.printed("commit_script")]
    return "".join(f"{step};\n\n" for step in steps)


def removal(statements: Statements) -> str:
    """Return the statement that removes everything of piecework with all jobs, and the schema if it is left empty."""
    functions = [*_made("FUNCTION"), *(file.name for file in sql_files("functions"))]
    return statements.printed("remove", ",".join(_table_names()), ",".join(functions))


def is_ours(table: str) -> bool:
    """Say whether a table of this name, in the schema, is piecework's."""
    return _LEAF.sub("", table) in _table_names()


def _table_names() -> list[str]:
    return ["migrations", "functions", *_made("TABLE")]


def _made(kind: str) -> list[str]:
    return [name for each in migrations() for what, name in _MADE.findall(each.file.text) if what == kind]
