"""piecework's tables in your Django migrations.

A migration of one of your apps makes them, and a further one brings them up to date after an upgrade of piecework:

    from django.db import migrations
    from piecework.integrations.django import MigratePiecework

    class Migration(migrations.Migration):
        dependencies = [("shop", "0007_basket")]
        operations = [MigratePiecework()]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

from django.db import router  # type: ignore[import-untyped] # pyright: ignore[reportMissingTypeStubs]
from django.db.migrations.operations.base import (  # type: ignore[import-untyped] # pyright: ignore[reportMissingTypeStubs]
    Operation,
)

from piecework.base.errors import ConfigurationError
from piecework.integrations.sql import migration_sql, removal_sql
from piecework.store.statements import Statements


class _Connection(Protocol):
    @property
    def alias(self) -> str: ...

    @property
    def vendor(self) -> str: ...


class _SchemaEditor(Protocol):
    @property
    def connection(self) -> _Connection: ...

    def execute(self, sql: str, params: None) -> object: ...


class _Router(Protocol):
    def allow_migrate(self, db: str, app_label: str) -> bool: ...


class MigratePiecework(Operation):  # type: ignore[misc]
    """Bring piecework's tables and functions up to date with the installed release, in the migration's transaction.

    What is there already is left as it is, so that a later migration of yours can say the same again. `sqlmigrate`
    prints everything, and each statement looks for itself whether it has anything to do. The models of your app are
    not touched: `makemigrations` sees nothing of it.

    Going back removes the tables with all jobs, and the schema unless something else is in it.

    Args:
        schema: the schema that holds everything of piecework, as in `Jobs(schema=…)`.
        keep: going back changes nothing. For a later migration, which only brings the tables up to date: schemas only
            go forward.

    Raises:
        ConfigurationError: PostgreSQL takes no schema of that name; when it runs: the database is no PostgreSQL.
    """

    reduces_to_sql = True
    reversible = True

    def __init__(self, schema: str = "piecework", *, keep: bool = False) -> None:
        Statements(schema)  # refuses what cannot be a schema's name
        self.schema = schema
        self.keep = keep

    def state_forwards(self, app_label: str, state: object) -> None:
        """Change nothing: no model is about piecework's tables."""

    def database_forwards(self, app_label: str, schema_editor: object, from_state: object, to_state: object) -> None:
        """Run `migration_sql`."""
        self._run(app_label, cast(_SchemaEditor, schema_editor), migration_sql)

    def database_backwards(self, app_label: str, schema_editor: object, from_state: object, to_state: object) -> None:
        """Run `removal_sql`, unless `keep` was given."""
        if not self.keep:
            self._run(app_label, cast(_SchemaEditor, schema_editor), removal_sql)

    def describe(self) -> str:
        """Say what it does."""
        return f"Bring piecework's tables in the schema {self.schema!r} up to date"

    @property
    def migration_name_fragment(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What a migration that has this alone may be called."""
        return "piecework"

    def _run(self, app_label: str, schema_editor: _SchemaEditor, statements: Callable[[str], list[str]]) -> None:
        connection = schema_editor.connection
        if not cast(_Router, router).allow_migrate(connection.alias, app_label):
            return
        if connection.vendor != "postgresql":
            raise ConfigurationError(
                f"MigratePiecework: the database {connection.alias!r} is {connection.vendor}, and piecework lives in "
                "PostgreSQL: keep the migration from it with a database router (allow_migrate)"
            )
        for statement in statements(self.schema):
            schema_editor.execute(statement, params=None)
