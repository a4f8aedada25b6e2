"""A database in memory that answers piecework's statements as PostgreSQL does: for tests, and for the simulation."""
