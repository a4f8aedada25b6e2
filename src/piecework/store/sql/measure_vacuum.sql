-- Bring a table that was just filled to the state in which autovacuum would have it.
VACUUM (ANALYZE) /*schema.*/jobs
