-- How far the WAL is written.
-- returns: position text
SELECT pg_current_wal_insert_lsn()::text
