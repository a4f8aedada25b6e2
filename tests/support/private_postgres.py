"""A PostgreSQL server of a test's own, to be stopped, killed and restarted, with a log to read."""

from __future__ import annotations

from piecework.cli.chaos.node import Node


class PrivatePostgres(Node):
    """Made, and stopped in the end, by the fixture `private_postgres`. Its `dsn` stays the same across restarts."""
