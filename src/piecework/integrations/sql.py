"""piecework's tables as SQL, for migration tools of any kind."""

from __future__ import annotations

from piecework.store import migrating
from piecework.store.statements import Statements


def migration_sql(schema: str = "piecework") -> list[str]:
    """Return the statements that bring a schema up to date with this release, in their order.

    Run all of them in one transaction. None has parameters, each is one statement, as some drivers take no more at
    once, and none ends in a semicolon. A statement does nothing where its work is done, so that the same list makes a
    new schema, brings an older one up to date, and leaves a current or newer one as it is. What they record is what
    `piecework migrate` records: `Jobs(…, migrate=False)` is satisfied by it.

    A table that is in use is waited for half a second, so that others do not wait behind for longer; then the statement
    fails (`lock_not_available`), and all of them are to be run again.

    Raises:
        ConfigurationError: PostgreSQL takes no schema of that name.
    """
    return migrating.script(Statements(schema), migrating.everything())


def removal_sql(schema: str = "piecework") -> list[str]:
    """Return the statements that remove piecework's tables and functions with all jobs.

    The schema goes as well, unless something else is in it. A view or a foreign key of your own that hangs on one of
    the tables is an error, and then nothing is removed.

    Raises:
        ConfigurationError: PostgreSQL takes no schema of that name.
    """
    return [migrating.removal(Statements(schema))]
