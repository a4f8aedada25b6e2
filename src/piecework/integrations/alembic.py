"""piecework's tables in your Alembic migrations.

A revision of yours makes them, and a further one brings them up to date after an upgrade of piecework:

    from alembic import op
    from piecework.integrations import alembic as piecework

    def upgrade() -> None:
        piecework.upgrade(op)

    def downgrade() -> None:
        piecework.downgrade(op)  # in the first of these revisions; `pass` in the further ones
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, TypeAlias

from piecework.integrations.sql import migration_sql, removal_sql
from piecework.store.migrating import is_ours

ParentName: TypeAlias = Literal["schema_name", "table_name", "schema_qualified_table_name"]


class _Impl(Protocol):
    def static_output(self, text: str, /) -> None: ...


class _Context(Protocol):
    @property
    def as_sql(self) -> bool: ...

    @property
    def impl(self) -> _Impl: ...


class _Connection(Protocol):
    def exec_driver_sql(self, statement: str, /, *, execution_options: Mapping[str, bool]) -> object: ...


class Operations(Protocol):
    """What `from alembic import op` gives."""

    def get_context(self) -> _Context:
        """Return the context of the migration."""
        ...

    def get_bind(self) -> _Connection:
        """Return the connection, where there is one."""
        ...


def upgrade(op: Operations, schema: str = "piecework") -> None:
    """Bring piecework's tables and functions up to date with the installed release, in the revision's transaction.

    What is there already is left as it is, so that every revision calls the same. With `--sql` everything is
    printed, and each statement looks for itself whether it has anything to do.

    Args:
        op: Alembic's `op`, with any driver.
        schema: the schema that holds everything of piecework, as in `Jobs(schema=…)`.

    Raises:
        ConfigurationError: PostgreSQL takes no schema of that name.
    """
    _run(op, migration_sql(schema))


def downgrade(op: Operations, schema: str = "piecework") -> None:
    """Remove piecework's tables and functions with all jobs, and the schema unless something else is in it.

    For the revision that made them. Schemas only go forward: a later revision that brought them up to date has nothing
    to take back.

    Args:
        op: Alembic's `op`, with any driver.
        schema: as for `upgrade`.

    Raises:
        ConfigurationError: PostgreSQL takes no schema of that name.
    """
    _run(op, removal_sql(schema))


def include_name(
    name: str | None, type_: str, parent_names: Mapping[ParentName, str | None], schema: str = "piecework"
) -> bool:
    """Leave piecework's tables out of `alembic revision --autogenerate` and `alembic check`: they are in no metadata.

    Needed with `include_schemas=True`, as `context.configure(…, include_name=include_name)`; without it Alembic looks
    at the default schema alone. For another schema write `functools.partial(include_name, schema="…")`; where you have
    a rule of your own, call this from it.

    Args:
        name, type_, parent_names: as Alembic gives them.
        schema: as for `upgrade`.
    """
    if type_ != "table" or name is None:
        return True
    # Alembic calls the default schema None.
    here = parent_names.get("schema_name") or "public"
    return here != schema or not is_ours(name)


def _run(op: Operations, statements: list[str]) -> None:
    context = op.get_context()
    for statement in statements:
        if context.as_sql:
            context.impl.static_output(statement + ";")
        else:
            # As it stands: neither SQLAlchemy nor the driver may take a `:` or `%` in it for a parameter.
            op.get_bind().exec_driver_sql(statement, execution_options={"no_parameters": True})
