"""The embedded PostgreSQL server, shared by any number of processes."""
